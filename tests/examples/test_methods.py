"""The examples of user-defined methods pass every contract check, as ``kdzoo check`` runs them."""

import os
from pathlib import Path

import pytest

import kdzoo
from kdzoo import contracts
from kdzoo.contracts.ranks import data_parallel_gaps
from kdzoo.contracts.subject import Subject

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOLDERS = {
    "my_dkd": EXAMPLES / "my_dkd",
    **{path.stem: EXAMPLES / "methods" for path in sorted((EXAMPLES / "methods/conf/distiller").glob("*.yaml"))},
}


@pytest.fixture(scope="module", autouse=True)
def importable():
    """Make the modules of the examples importable, also in the two processes of the data-parallel check."""
    paths = [str(folder) for folder in dict.fromkeys(FOLDERS.values())]
    with pytest.MonkeyPatch.context() as patch:
        for path in paths:
            patch.syspath_prepend(path)
        patch.setenv("PYTHONPATH", os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])]))
        yield


def compose(name):
    cfg = kdzoo.compose(f"distiller={name}", config_dir=FOLDERS[name] / "conf")
    return cfg, {cfg.distiller._target_}


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    """The differences of two processes from one for all examples, from one pair of processes."""
    folder = tmp_path_factory.mktemp("examples")
    return data_parallel_gaps({name: Subject(cfg, folder, allow) for name in FOLDERS for cfg, allow in [compose(name)]})


@pytest.mark.parametrize("name", FOLDERS)
def test_an_example_passes_every_check(name, monkeypatch, capsys):
    checks = {check: function for check, function in contracts.CHECKS.items() if check != "data_parallel"}
    monkeypatch.setattr(contracts, "CHECKS", checks)
    cfg, allow = compose(name)
    assert contracts.report_checks(cfg, allow=allow), capsys.readouterr().out
    printed = capsys.readouterr().out
    assert all(f"passed  {check}:" in printed for check in checks), printed  # no example is exempt from any check


@pytest.mark.parametrize("name", FOLDERS)
def test_an_example_trains_equally_in_two_processes(name, gaps):
    assert gaps[name] <= 1e-10
