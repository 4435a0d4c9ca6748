"""Every registered distiller keeps every contract, or says why one cannot apply."""

import math

import pytest
import torch
from torch import nn

import kdzoo
from kdzoo import contracts
from kdzoo.config import registry
from kdzoo.contracts import CHECKS, NEVER_EXEMPT, checks
from kdzoo.contracts.compare import difference, weighted_loss
from kdzoo.contracts.ranks import data_parallel_gaps
from kdzoo.contracts.subject import Subject
from kdzoo.core.batch import IGNORE, labelled_positions, labels, valid_positions
from kdzoo.core.closed_form import CLOSED_FORM_EXEMPT, ClosedFormDistiller
from kdzoo.distillers import LogitKD
from kdzoo.errors import ConfigError
from kdzoo.functional import hard_target_ce, soft_target_kl

REGISTERED = registry.targets("distiller")
ROLLED_OUT = "the models are rolled out with noise, not called"
HOOKED = "hidden layers are read by forward hooks, which compiled code does not call"
IN_PIECES = "relations are between samples of one batch; those between micro-batches or ranks would be missing"
READ = "hidden states are read beside the output, which the compiled call of the student does not return"
EXEMPTIONS: dict[str, dict[str, str]] = {
    **{
        name: dict(ClosedFormDistiller.exempt)
        for name in ("baum_welch", "coreset", "fgw_pfa", "mps_queries", "online_pfa", "ot_pfa", "sweep_mps")
    },
    **{name: {"compile": ROLLED_OUT} for name in ("continual", "elbo", "semi_auxiliary")},
    "distilbert": {"compile": READ},
    "feature_kd": {"compile": HOOKED},
    "relational_kd": {"compile": HOOKED, "micro_batches": IN_PIECES, "data_parallel": IN_PIECES},
}
"""Every exemption of every registered distiller, with its reason; an addition here is a decision."""


def subject_of(name, tmp_path):
    return Subject(kdzoo.compose(f"distiller={name}"), tmp_path)


@pytest.fixture(scope="module")
def parallel_gaps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    tried = {name: subject_of(name, folder) for name in REGISTERED}
    return data_parallel_gaps({k: s for k, s in tried.items() if "data_parallel" not in s.method.exempt})


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", REGISTERED)
def test_contract(name, check, tmp_path, request):
    subject = subject_of(name, tmp_path)
    if check in subject.method.exempt:
        pytest.skip(subject.method.exempt[check])
    if check == "data_parallel":  # one pair of processes for all distillers
        assert request.getfixturevalue("parallel_gaps")[name] <= 1e-10
    else:
        CHECKS[check](subject)


def test_exemptions_are_known():
    methods = {name: subject_of(name, None).method for name in REGISTERED}
    declared = {name: contracts.exemptions(method) for name, method in methods.items() if method.exempt}
    assert declared == EXEMPTIONS
    assert {"export", "resume", "determinism"} <= NEVER_EXEMPT
    for method in methods.values():
        assert not NEVER_EXEMPT & method.exempt.keys()


@pytest.mark.parametrize("exempt", [{"resume": "slow"}, {"no_such": "?"}, {"bf16": " "}])
def test_an_exemption_must_be_real_and_have_a_reason(exempt):
    with pytest.raises(ConfigError, match="exempt"):
        contracts.exemptions(type("Loose", (LogitKD,), {"exempt": exempt}))


# ---------------------------------------------------------------- each check fails for what it is about


class Teaches(LogitKD):
    """Lets the teacher learn."""

    def trainable(self):
        self.teacher.requires_grad_(True)
        return self.parameters()

    def losses(self, batch):
        gap = (self.student(batch["input"]) - self.teacher(batch["input"])).square().mean(1)
        return {**super().losses(batch), "soft": gap}


class Forgets(LogitKD):
    """Keeps a running state that is in no checkpoint."""

    calls = 0

    def losses(self, batch):
        self.calls += self.training
        terms = super().losses(batch)
        return {**terms, "soft": terms["soft"] * (1 + 0.1 * self.calls)}


class Idle(LogitKD):
    """Has a parameter that no loss depends on."""

    def __init__(self, *models, **options):
        super().__init__(*models, **options)
        self.unused = nn.Parameter(torch.ones(2))


class BatchMean(LogitKD):
    """Averages over a batch by itself, whatever part it is of a larger one."""

    def losses(self, batch):
        student, teacher = self.student(batch["input"]), self.frozen_teacher.output(batch)
        kl = soft_target_kl(student, teacher, temperature=self.temperature)
        return {"soft": kl / kl.detach().mean(), "hard": super().losses(batch)["hard"]}


class Sometimes(LogitKD):
    """Depends on the clock."""

    def losses(self, batch):
        terms = super().losses(batch)
        noise = torch.rand((), generator=torch.Generator().manual_seed(torch.seed() % 2**31))
        return {**terms, "soft": terms["soft"] * (1 + noise)}


class AnyTemperature(LogitKD):
    """Checks nothing."""

    def __init__(self, *models, temperature: float = 4.0, **options):
        super().__init__(*models, **options)
        self.temperature = temperature


class Alone(LogitKD):
    """Divides by zero when only one sample is there."""

    def losses(self, batch):
        terms = super().losses(batch)
        return {**terms, "soft": terms["soft"] / (len(batch["input"]) - 1)}


class Awake(LogitKD):
    """Puts the teacher into training mode."""

    def losses(self, batch):
        self.teacher.train()
        return super().losses(batch)


class Climbs(LogitKD):
    """Raises the loss that it reports, by turning the gradient around."""

    def losses(self, batch):
        return {name: 2 * value.detach() - value for name, value in super().losses(batch).items()}


class Remembers(LogitKD):
    """Keeps a copy of the teacher under another name."""

    def __init__(self, student, teacher, **options):
        super().__init__(student, teacher, **options)
        self.register_state_dict_post_hook(keep_teacher)


def keep_teacher(module, state, prefix, metadata):
    state["teacher.copy"] = torch.ones(1)


BROKEN = [
    (Teaches, "gradients", "teacher"),
    (Teaches, "teacher", "changed the teacher"),
    (Awake, "teacher", "training mode"),
    (Idle, "gradients", "unused"),
    (Forgets, "resume", "ends differently"),
    (Sometimes, "determinism", "differ"),
    (BatchMean, "micro_batches", "micro_batch_size=1"),
    (AnyTemperature, "arguments", r"temperature=nan is accepted"),
    (Alone, "batch_of_one", "sample 0 alone"),
    (Climbs, "training", "do not lower the loss"),
    (Remembers, "checkpoint", r"teacher\.copy"),
]


@pytest.mark.parametrize(("method", "check", "reason"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_check_finds_what_it_is_about(method, check, reason, tmp_path):
    cfg = kdzoo.compose("distiller=logit_kd")
    cfg.distiller._target_ = f"{__name__}.{method.__name__}"
    subject = Subject(cfg, tmp_path, allow={cfg.distiller._target_})
    with pytest.raises(AssertionError, match=reason):
        CHECKS[check](subject)


def test_non_finite_terms_fail_training(tmp_path):
    trained = subject_of("logit_kd", tmp_path).train("one")
    trained.history.terms["soft"][-1] = math.inf
    with pytest.raises(AssertionError, match=r"soft.*inf"):
        checks.assert_finite(trained)


# ---------------------------------------------------------------- a user's own


def test_report_names_each_check(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_kd.py").write_text(
        "from kdzoo.distillers import LogitKD\n\n\n"
        "class MyKD(LogitKD):\n"
        "    exempt = {'data_parallel': 'one process is enough here', 'compile': 'not traced'}\n"
    )
    (tmp_path / "conf" / "distiller").mkdir(parents=True)
    (tmp_path / "conf" / "distiller" / "my_kd.yaml").write_text("_target_: my_kd.MyKD\n")
    monkeypatch.syspath_prepend(tmp_path)
    cfg = kdzoo.compose("distiller=my_kd", config_dir=tmp_path / "conf")
    assert contracts.report_checks(cfg, allow={"my_kd.MyKD"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines if line.split()[0] in ("passed", "exempt")] == list(CHECKS)
    assert any(line.startswith("exempt  data_parallel: one process is enough") for line in lines)


def test_report_of_a_broken_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(contracts, "CHECKS", {"training": broken, "bf16": checks.check_bf16})
    assert not contracts.report_checks(kdzoo.compose("distiller=logit_kd"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "FAILED  training: ValueError: nothing works"
    assert lines[1].startswith("passed  bf16")


def broken(subject):
    raise ValueError("nothing works\nand more")


def test_difference_sees_one_bit():
    one = {"a": [torch.zeros(3), {"seconds": 1.0, "n": 2}]}
    assert difference(one, {"a": [torch.zeros(3), {"seconds": 9.0, "n": 2}]}) is None
    assert difference(one, {"a": [torch.tensor([0, 0, 1e-45]), {"seconds": 1.0, "n": 2}]}).startswith("a.0 by")
    assert difference(one, {"a": [torch.zeros(3), {"seconds": 1.0, "n": 3}]}) == "a.1.n: 2 and 3"
    assert difference(one, {"b": 1}) is not None


def test_weighted_loss_is_the_sum_of_means():
    torch.manual_seed(0)
    distiller = LogitKD(nn.Linear(4, 3), nn.Linear(4, 3), temperature=2.0)
    batch = {"input": torch.randn(5, 4), "target": torch.tensor([0, IGNORE, 2, IGNORE, 1])}
    student, teacher = distiller.student(batch["input"]), distiller.teacher(batch["input"])
    soft = soft_target_kl(student[valid_positions(batch)], teacher, temperature=2.0).mean()
    hard = hard_target_ce(student[labelled_positions(batch)], labels(batch)).mean()
    loss = weighted_loss(distiller, batch).item()
    assert loss == pytest.approx((0.9 * soft + 0.1 * hard).item(), rel=1e-6)
