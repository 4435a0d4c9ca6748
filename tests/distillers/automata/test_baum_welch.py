"""Baum-Welch as a method: an epoch is one iteration, and no string becomes impossible."""

from itertools import pairwise

import pytest
import torch

from kdzoo.automata import PFA
from kdzoo.automata.baum_welch import expected_counts, maximise, prefix_trees_for
from kdzoo.automata.targets import tomita
from kdzoo.core.batch import IGNORE
from kdzoo.distillers import BaumWelch
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences


def test_an_epoch_is_one_iteration_on_all_strings(tomita4, fit):
    student = PFA(vocab_size=3, states=3)
    distiller = BaumWelch(student, pseudocount=0.0)
    before = PFA.from_parameters(student.initial, student.transitions, student.stop)
    fit(distiller, tomita4, epochs=1)
    expected = maximise(before, expected_counts(before, prefix_trees_for(tomita4.corpus.train, 3)), 0.0)
    torch.testing.assert_close(student.transitions, expected.transitions, atol=1e-12, rtol=0)
    torch.testing.assert_close(student.initial, expected.initial, atol=1e-12, rtol=0)
    assert distiller.observed == {}


def test_the_likelihood_never_falls(tomita4, fit):
    student = PFA(vocab_size=3, states=4)
    BaumWelch(student)  # gives it random parameters
    values = [float(student.log_prob(tomita4.corpus.train).sum())]
    for _ in range(5):
        fit(BaumWelch(student, start="student", pseudocount=0.0), tomita4, epochs=2)
        values.append(float(student.log_prob(tomita4.corpus.train).sum()))
    assert all(after >= before - 1e-9 for before, after in pairwise(values))
    assert values[-1] > values[0]


def test_the_term_is_the_negative_log_probability_of_the_strings(tomita4):
    student = tomita(4)
    distiller = BaumWelch(student, start="student")
    total = sum(float(distiller.losses(batch)["nll"].sum()) for batch in tomita4.train_eval_dataloader())
    assert total == pytest.approx(-float(student.log_prob(tomita4.corpus.train).sum()), rel=1e-9)


def test_the_unknown_symbol_after_a_chunk_of_text_has_no_term(tomita4):
    batch = next(iter(tomita4.train_eval_dataloader()))
    is_end = batch["target"] == 2
    chunks = {**batch, "target": batch["target"].masked_fill(is_end, IGNORE)}
    terms = BaumWelch(tomita(4), start="student").losses(chunks)
    assert len(terms["nll"]) == int((batch["mask"] & ~is_end).sum())


def test_a_pseudocount_keeps_every_string_possible(tomita4, fit):
    """No string of the language has three zeros in a row; from its own automaton they stay impossible without one."""
    strings = TokenSequences.of([[0, 0, 0, 0], [1], []])
    smoothed, plain = tomita(4), tomita(4)
    fit(BaumWelch(smoothed, start="student"), tomita4, epochs=2)
    fit(BaumWelch(plain, start="student", pseudocount=0.0), tomita4, epochs=2)
    log_probs = smoothed.log_prob(strings)
    assert log_probs.isfinite().all()
    assert log_probs[0] < log_probs[1:].min()
    assert plain.log_prob(strings)[0] == -torch.inf


def test_the_start_is_random_or_the_student_itself():
    torch.manual_seed(0)
    students = [PFA(vocab_size=3, states=4) for _ in range(3)]
    uniform = students[0].transitions.clone()
    for student, start in zip(students, ("student", "random", "random"), strict=True):
        BaumWelch(student, start=start)
    assert torch.equal(students[0].transitions, uniform)
    assert not torch.allclose(students[1].transitions, students[2].transitions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "foo"}, "start must be one of random, student, got 'foo'"),
        ({"pseudocount": -1.0}, "pseudocount must be a finite number >= 0, got -1.0"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        BaumWelch(PFA(vocab_size=3, states=2), **options)
