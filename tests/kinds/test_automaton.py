"""The kind of automata: which models it claims, what it reports, draws and exports."""

import pytest
import torch

from kdzoo import kinds
from kdzoo.automata import PFA
from kdzoo.automata.exchange.pautomac import read_model
from kdzoo.automata.targets import tomita
from kdzoo.data import Tomita
from kdzoo.errors import ConfigError
from kdzoo.kinds import AutomatonKind
from kdzoo.models import MLP, RNNLM
from kdzoo.text.token_sequences import TokenSequences

KIND = AutomatonKind()
SIZES = {"num_classes": 3, "vocab_size": 3}


@pytest.fixture(scope="module")
def data():
    data = Tomita(language=4, n_train=50, n_val=20, n_test=20, batch_size=10)
    data.setup("fit")
    return data


def test_an_automaton_is_of_this_kind_before_it_is_a_language_model():
    assert kinds.KINDS["language_model"].is_exclusive_match(tomita(4))
    assert kinds.kind_of(tomita(4)).name == "automaton"
    assert kinds.kind_of(RNNLM(vocab_size=3)).name == "language_model"
    assert not KIND.is_exclusive_match(RNNLM(vocab_size=3))


def test_properties_are_those_of_the_automaton():
    student = tomita(4)
    properties = KIND.properties(student)
    assert properties["states"] == student.states
    assert properties["total_mass"] == pytest.approx(1, abs=1e-9)
    # A geometric number of tokens: with one state that stops with probability 1/4 there are 3 tokens on average.
    assert KIND.properties(PFA.from_parameters([1.0], [[[0.75]]], [0.25]))["expected_length"] == pytest.approx(3)
    assert KIND.properties(RNNLM(vocab_size=3)) == {}


def test_the_size_counts_free_parameters():
    student, teacher = tomita(4), RNNLM(vocab_size=3)
    assert KIND.size(student) == student.n_parameters
    assert KIND.size(teacher) == sum(parameter.numel() for parameter in teacher.parameters())


def test_every_automaton_is_drawn_and_no_other_model(data, tmp_path):
    (path,) = KIND.plot_model({"student": tomita(4)}, tmp_path, data)
    assert path.name == "automaton.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert KIND.plot_model({"student": PFA(vocab_size=3, states=41)}, tmp_path) == [path]
    assert KIND.plot_model({"student": RNNLM(vocab_size=3)}, tmp_path) == []


def test_an_automaton_is_exported_in_three_formats(data, tmp_path):
    student = tomita(4)
    paths = KIND.export(student, tmp_path, data)
    assert [path.name for path in paths] == ["automaton.dot", "automaton.fst.txt", "automaton.pautomac"]
    assert all(path.stat().st_size for path in paths)
    strings = TokenSequences.of([[], [0, 1], [1, 0, 0, 1]])
    torch.testing.assert_close(read_model(paths[2]).log_prob(strings), student.log_prob(strings))
    assert KIND.export(RNNLM(vocab_size=3), tmp_path) == []


def test_a_student_must_be_an_automaton_and_a_teacher_need_not(data):
    batch = next(iter(data.test_dataloader()))
    KIND.check("student", tomita(4), batch, SIZES)
    KIND.check("teacher", RNNLM(vocab_size=3), batch, SIZES)
    message = r"^student RNNLM is not a probabilistic automaton \(kdzoo.automata.PFA\); choose student=pfa$"
    with pytest.raises(ConfigError, match=message):
        KIND.check("student", RNNLM(vocab_size=3), batch, SIZES)
    with pytest.raises(ConfigError, match=r"^teacher MLP is not a language model"):
        KIND.check("teacher", MLP(in_shape=(3,), num_classes=3), batch, SIZES)
