"""The folder of a run: one process at a time, one configuration, and the main process under every launcher."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdzoo.core.progress import shown_by
from kdzoo.errors import RunFolderError
from kdzoo.storage import checked_json, run_folder
from tests.reports.example import report

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = {
    "none": ({}, True),
    "slurm-first": ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, True),
    "slurm-fourth": ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, False),
    "torchrun-first": ({"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}, True),
    "torchrun-second-node": ({"RANK": "8", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),
    "lightning-second-process": ({"NODE_RANK": "0", "LOCAL_RANK": "1"}, False),
    "lightning-second-node": ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
}
RANK_VARIABLES = {name for variables, _ in LAUNCHERS.values() for name in variables}


# Torch is imported once, which takes most of the time, and Lightning in each process anew.
FRESH_PROCESSES = """
import json, os, sys, torch, torchmetrics
assert "lightning_fabric" not in sys.modules
for name, variables in json.loads(sys.argv[1]).items():
    process = os.fork()
    if process == 0:
        os.environ.update(variables)
        from kdzoo.storage.run_folder import is_main_process
        print(name, is_main_process(), flush=True)
        os._exit(0)
    os.waitpid(process, 0)
"""


def test_the_main_process_is_known_before_a_trainer_exists():
    """Each launcher in a process of its own, because Lightning reads the variables when it is imported."""
    environment = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
    variables = json.dumps({name: values for name, (values, _) in LAUNCHERS.items()})
    answer = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESSES, variables], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    found = dict(line.split() for line in answer.stdout.splitlines())
    assert found == {name: str(is_main) for name, (_, is_main) in LAUNCHERS.items()}, answer.stderr


def locked_by_another_process(folder):
    """Start a process that locks a folder and waits."""
    code = (
        "import sys, time; from pathlib import Path; from kdzoo.storage import run_folder\n"
        "with run_folder.lock(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


def test_two_processes_cannot_use_one_folder(tmp_path):
    folder = tmp_path / "run"
    other = locked_by_another_process(folder)
    with pytest.raises(RunFolderError, match="is in use by another process"), run_folder.lock(folder):
        pass
    assert run_folder.is_locked(folder)
    other.kill()
    other.wait()
    assert not run_folder.is_locked(folder)
    assert not run_folder.is_locked(tmp_path)  # where nothing was locked before
    assert not list(tmp_path.glob(".lock"))
    with run_folder.lock(folder):  # the lock of a process that was killed is gone with it
        assert folder.is_dir()


def test_a_lock_that_waits_says_so_and_takes_over_from_a_process_that_was_killed(tmp_path):
    other, stages = locked_by_another_process(tmp_path / "run"), []

    class Killer:
        """Ends the other process as soon as the wait for it is shown."""

        def begin(self, name, total, unit):
            stages.append(name)
            other.kill()
            return lambda completed, note: None

        def end(self):
            stages.append("end")

    with shown_by(Killer()), run_folder.lock(tmp_path / "run", wait_for="the training"):
        assert stages == ["waiting for the training in another process", "end"]
    other.wait()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "run").write_text("a file")
    with (
        pytest.raises(RunFolderError, match=r"cannot write to .*run.*choose another"),
        run_folder.lock(tmp_path / "run"),
    ):
        pass


def test_another_rank_neither_locks_nor_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "is_main_process", lambda: False)
    with run_folder.lock(tmp_path / "run"):
        run_folder.reserve(tmp_path / "run", {"seed": 0})
    assert not (tmp_path / "run").exists()


def test_a_folder_belongs_to_its_configuration_once_a_seed_has_begun(tmp_path):
    run_folder.reserve(tmp_path, {"seed": 0, "data": {"n": 1}})
    run_folder.reserve(tmp_path, {"seed": 1, "data": {"n": 1}})  # nothing was computed yet
    (tmp_path / "seed_1").mkdir()
    run_folder.reserve(tmp_path, {"seed": 1, "data": {"n": 1}})
    run_folder.reserve(tmp_path, {"seed": 1, "data": {"n": 1}, "cache_dir": "x"}, free={"cache_dir"})
    run_folder.reserve(tmp_path, {"seed": 1, "data": {"n": 4}}, free={"data.n"})
    with pytest.raises(RunFolderError, match=r"\(data\.n: 1 -> 4\)"):
        run_folder.reserve(tmp_path, {"seed": 1, "data": {"n": 4}}, free={"data.na", "n"})
    with pytest.raises(RunFolderError, match=r"\(seed: 1 -> 2; data\.n: 1 -> 3\)"):
        run_folder.reserve(tmp_path, {"seed": 2, "data": {"n": 3}})


def test_many_differences_make_one_short_line(tmp_path):
    run_folder.reserve(tmp_path, dict.fromkeys("abcde", 0))
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"\(a: 0 -> 1; b: 0 -> 1; c: 0 -> 1 and 2 more\)"):
        run_folder.reserve(tmp_path, dict.fromkeys("abcde", 1))


def test_differences_of_trees():
    before, now = {"a": {"x": 1, "y": [1]}, "gone": 0}, {"a": {"x": 1, "y": [2]}, "new": {"z": 3}}
    assert list(run_folder.differences(before, now)) == ["a.y: [1] -> [2]", "gone: 0 -> None", "new: None -> {'z': 3}"]


def test_a_damaged_report_is_named(tmp_path):
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"report\.json is not valid JSON"):
        run_folder.read_if_present(tmp_path / "report.json")


@pytest.mark.parametrize("key", run_folder.REPORT_TYPES)
def test_what_is_not_a_report_is_refused_although_its_checksum_is_right(key, tmp_path):
    path = tmp_path / "report.json"
    without = {name: value for name, value in report().items() if name != key}
    for content in (without, report(**{key: 0.5})):
        checked_json.write(path, content)
        with pytest.raises(RunFolderError, match=f"is not the report of a run: {key} is missing or of another type"):
            run_folder.read_report(path)
    checked_json.write(path, report())
    assert run_folder.read_report(path) == report()


def test_a_model_without_measurements_is_refused(tmp_path):
    checked_json.write(tmp_path / "report.json", report(student={}))
    with pytest.raises(RunFolderError, match="student is missing or of another type"):
        run_folder.read_report(tmp_path / "report.json")
