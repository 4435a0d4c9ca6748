"""Kinds by name and by model, what a method supports, and a user-defined kind from two files of its own."""

import json
import os
import sys

import pytest
import torch
from torch import nn

from kdzoo import kinds
from kdzoo.automata import PFA
from kdzoo.cli import main
from kdzoo.dataset_distillation import PoisonSet
from kdzoo.errors import ConfigError
from kdzoo.kinds import ClassifierKind, Kind
from kdzoo.models import HVAE, MLP, RNNLM
from tests.kinds.conftest import make_batches, make_set


class ErrorRateKind(ClassifierKind):
    """Classifiers that are compared by their error rate."""

    name, score, lower_is_better = "error_rate", "error_rate", True

    def metrics(self, predictions):
        metrics = super().metrics(predictions)
        return {**metrics, "error_rate": 1 - metrics["accuracy"]}


# ---------------------------------------------------------------- which kind a model is of


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: MLP(in_shape=(4,), num_classes=3), "classifier"),
        (lambda: nn.Linear(4, 3), "classifier"),
        (lambda: RNNLM(vocab_size=5), "language_model"),
        (lambda: PFA(vocab_size=5, states=2), "automaton"),
        (lambda: HVAE(in_shape=(1, 8, 8)), "graphical_model"),
        (make_set, "synthetic_set"),
        (lambda: make_set(PoisonSet, source=0, target=2), "poison"),
    ],
    ids=["mlp", "linear", "rnn", "automaton", "hvae", "set", "poison"],
)
def test_the_kind_follows_from_the_model(build, name):
    assert kinds.kind_of(build()).name == name


def test_the_kind_of_any_module_follows_from_the_data():
    module = nn.Linear(4, 3)
    assert kinds.kind_of(module, sizes={"num_classes": 3, "vocab_size": 3}).name == "language_model"
    assert kinds.kind_of(module, sizes={"num_classes": 2, "vocab_size": 9, "pad_id": 0}).name == "classifier"
    assert kinds.kind_of(module, sizes={"num_classes": 3, "in_shape": (4,)}).name == "classifier"


def test_a_chosen_kind_takes_precedence_where_it_matches():
    class OwnSets(ErrorRateKind):
        def is_exclusive_match(self, model):
            return isinstance(model, nn.Linear)

    chosen = OwnSets()
    assert kinds.kind_of(nn.Linear(4, 3), chosen) is chosen
    assert kinds.kind_of(RNNLM(vocab_size=5), chosen).name == "language_model"


def test_kinds_have_the_names_by_which_they_are_found():
    for name, kind in kinds.KINDS.items():
        assert kinds.get(name) is kind
        assert kind.name == name
    with pytest.raises(ConfigError, match=r"kind must be one of adversarial, .*, got 'regression'"):
        kinds.get("regression")


def test_a_kind_needs_all_required_methods():
    class Incomplete(Kind):
        def predict(self, model, batches):
            return []

    with pytest.raises(TypeError, match=r"abstract methods? '?check'?, '?fidelity'?, '?metrics'?"):
        Incomplete()


def test_a_kind_matches_no_model_exclusively_by_default():
    assert not Kind.is_exclusive_match(ErrorRateKind(), nn.Linear(4, 3))


# ---------------------------------------------------------------- what a method supports


def test_methods_without_a_list_support_every_kind():
    kinds.check_supported("student", kinds.get("automaton"), (), "LogitKD")


def test_a_derived_kind_is_supported_where_its_base_is():
    kinds.check_supported("student", ErrorRateKind(), ("language_model", "classifier"), "LogitKD")


def test_an_unsupported_kind_is_refused_with_what_the_method_needs():
    with pytest.raises(ConfigError) as caught:
        kinds.check_supported("teacher", kinds.get("automaton"), ("classifier", "synthetic_set", "my_kind"), "LogitKD")
    assert str(caught.value) == (
        "LogitKD needs a module that returns logits [..., classes] or a synthetic data set "
        "(kdzoo.dataset_distillation.SyntheticSet) or my_kind as teacher, got a model of kind automaton"
    )


# ---------------------------------------------------------------- quick scores and sizes


def test_quick_scores_are_all_metrics_of_a_kind_without_quicker_ones():
    torch.manual_seed(0)
    kind, model, batches = kinds.get("classifier"), nn.Linear(2, 3), make_batches()
    assert kinds.quick_scores(kind, model, batches) == kind.metrics(kind.predict(model, batches))


def test_quick_scores_are_those_of_the_kind_if_it_has_any():
    class Quick(ErrorRateKind):
        def quick_scores(self, model, batches):
            return {"error_rate": 0.25}

    assert kinds.quick_scores(Quick(), nn.Linear(2, 3), []) == {"error_rate": 0.25}


def test_parameters_are_counted_by_the_kind_or_by_their_elements():
    automaton = PFA(vocab_size=5, states=2)
    assert kinds.count_parameters(kinds.get("automaton"), automaton) == automaton.n_parameters
    assert kinds.count_parameters(kinds.get("classifier"), nn.Linear(2, 3)) == 9


# ---------------------------------------------------------------- a user-defined kind

MY_KIND = '''
from kdzoo.kinds import ClassifierKind


class TopKKind(ClassifierKind):
    """Classifiers, compared by how often the label is among the k most likely classes."""

    name, score = "top_k", "top_k_accuracy"

    def __init__(self, k: int = 2) -> None:
        self.k = k

    def metrics(self, predictions):
        top = predictions.logits.topk(self.k, dim=1).indices
        found = (top == predictions.target[:, None]).any(1)
        return {**super().metrics(predictions), "top_k_accuracy": float(found.double().mean())}
'''


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """A user's folder with a kind and its YAML, as the current folder."""
    (tmp_path / "my_top_k.py").write_text(MY_KIND)
    (tmp_path / "conf" / "kind").mkdir(parents=True)
    (tmp_path / "conf" / "kind" / "top_k.yaml").write_text("_target_: my_top_k.TopKKind\nk: 3  # classes\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_top_k", None)


def kdzoo(monkeypatch, capsys, *arguments):
    """Run the command in this process; return exit code, standard output and error."""
    monkeypatch.setattr(sys, "argv", ["kdzoo", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    code = 0
    try:
        main.main()
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_user_defined_kind_measures_a_run_and_an_exported_student(user_folder, monkeypatch, capsys):
    own = ("--config-dir", "conf", "kind=top_k")
    line = (*own, "debug=fast", "student.hidden=[8]", "teacher.hidden=[8]", "output_dir=run")
    code, _, error = kdzoo(monkeypatch, capsys, *line)
    assert code == 0, error
    report = json.loads((user_folder / "run" / "report.json").read_text())
    assert (report["kind"], report["score"]) == ("top_k", "top_k_accuracy")
    for role in ("student", "control"):
        metrics = report[role]["metrics"]
        assert metrics["accuracy"] <= metrics["top_k_accuracy"] <= 1
    assert report["fidelity"]["student"].keys() == {"agreement", "kl"}
    assert "top k accuracy" in (user_folder / "run" / "report.md").read_text()

    code, out, error = kdzoo(monkeypatch, capsys, "evaluate", "run/student", *own)
    assert code == 0, error
    assert "top_k_accuracy" in out
    assert str(round(report["student"]["metrics"]["top_k_accuracy"], 3)) in out


def test_an_argument_that_a_user_defined_kind_does_not_have_is_refused(user_folder, monkeypatch, capsys):
    code, _, error = kdzoo(monkeypatch, capsys, "--config-dir", "conf", "kind=top_k", "kind.n=3")
    assert code == 2
    assert "kind.n" in error
    assert not (user_folder / "outputs").exists()
