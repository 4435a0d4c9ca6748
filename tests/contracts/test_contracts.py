"""Exemptions from checks, and the report of ``kdzoo check``."""

import pytest

import kdzoo
from kdzoo import MethodInfo, contracts
from kdzoo.config import locate, registry
from kdzoo.contracts import CHECKS, NEVER_EXEMPT, checks
from kdzoo.core.closed_form import CLOSED_FORM_EXEMPT
from kdzoo.distillers import LogitKD
from kdzoo.errors import ConfigError

METHODS = {name: locate(target) for name, target in registry.targets("distiller").items()}
CLOSED_FORM = ("baum_welch", "coreset", "fgw_pfa", "mps_queries", "online_pfa", "ot_pfa", "sweep_mps")
ROLLED_OUT = ("consistency", "continual", "elbo", "generator_kd", "progressive", "semi_auxiliary")
GAMES = ("adversarial", "adversarial_autoencoder", "sequence_gan", "vae_gan")
TRANSFORMERS = ("distilbert", "distilbert_classifier", "distilbert_encoder")
EXEMPTIONS = {
    **{name: set(CLOSED_FORM_EXEMPT) for name in CLOSED_FORM},
    **{name: {"training", "compile"} for name in GAMES},
    "coreset": set(CLOSED_FORM_EXEMPT) - {"data_parallel"},
    **{name: {"compile"} for name in (*ROLLED_OUT, *TRANSFORMERS, "autoencoder_kd", "feature_kd")},
    **{name: {"accelerator"} for name in ("dataset", "dataset_poison")},
    "relational_kd": {"compile", "micro_batches", "data_parallel"},
}
"""The exemptions of every registered distiller; an addition here is a decision."""


def test_no_distiller_has_an_unknown_exemption():
    declared = {name: set(contracts.exemptions(method)) for name, method in METHODS.items() if method.info.exempt}
    assert declared == EXEMPTIONS


def test_methods_with_one_cause_give_one_reason():
    for name in CLOSED_FORM:
        reasons = {check: CLOSED_FORM_EXEMPT[check] for check in EXEMPTIONS[name]}
        assert dict(METHODS[name].info.exempt) == reasons
    for names in (
        (*(set(ROLLED_OUT) - {"consistency", "progressive"}), *GAMES),
        ("consistency", "progressive"),
        TRANSFORMERS,
        ("feature_kd", "relational_kd"),
    ):
        assert len({METHODS[name].info.exempt["compile"] for name in names}) == 1


def test_some_checks_cannot_be_exempt():
    assert {"export", "resume", "determinism"} <= NEVER_EXEMPT
    for method in METHODS.values():
        assert not NEVER_EXEMPT & method.info.exempt.keys()


@pytest.mark.parametrize(
    ("exempt", "message"),
    [
        ({"resume": "slow"}, "'resume' may not be exempt"),
        ({"no_such": "?"}, "names 'no_such', which is not a check"),
        ({"bf16": " "}, "or the reason is missing"),
    ],
)
def test_an_exemption_names_a_check_and_has_a_reason(exempt, message):
    with pytest.raises(ConfigError, match=f"Loose.info.exempt.*{message}"):
        contracts.exemptions(type("Loose", (LogitKD,), {"info": MethodInfo(exempt=exempt)}))


def test_the_report_names_each_check(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_kd.py").write_text(
        "from dataclasses import replace\n"
        "from kdzoo.distillers import LogitKD\n\n\n"
        "class MyKD(LogitKD):\n"
        "    info = replace(LogitKD.info, exempt={'data_parallel': 'one process is enough', 'compile': 'not traced'})\n"
    )
    (tmp_path / "conf" / "distiller").mkdir(parents=True)
    (tmp_path / "conf" / "distiller" / "my_kd.yaml").write_text("_target_: my_kd.MyKD\n")
    monkeypatch.syspath_prepend(tmp_path)
    cfg = kdzoo.compose("distiller=my_kd", config_dir=tmp_path / "conf")
    assert contracts.report_checks(cfg, allow={"my_kd.MyKD"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines if line.split()[0] in ("passed", "exempt")] == list(CHECKS)
    assert any(line.startswith("exempt  data_parallel: one process is enough") for line in lines)


def broken(subject):
    raise ValueError("nothing works\nand more")


def test_a_check_that_fails_does_not_hide_the_others(monkeypatch, capsys):
    monkeypatch.setattr(contracts, "CHECKS", {"training": broken, "bf16": checks.check_bf16})
    assert not contracts.report_checks(kdzoo.compose("distiller=logit_kd"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "FAILED  training: ValueError: nothing works"
    assert lines[1].startswith("passed  bf16")
