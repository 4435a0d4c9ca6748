"""Distillers whose student is an automaton: what they learn from teachers that are automata themselves."""

from itertools import pairwise

import pytest
import pytorch_lightning as pl
import torch

from kdzoo import kinds
from kdzoo.automata import PFA, equivalent, from_pfa
from kdzoo.automata.baum_welch import expected_counts, maximise, prefix_trees_for
from kdzoo.automata.distill import distill_states
from kdzoo.automata.targets import tomita, tomita_dfa
from kdzoo.data import Tomita
from kdzoo.distillers import FGWPFA, OTPFA, BaumWelch, OnlinePFA
from kdzoo.errors import ConfigError
from kdzoo.models import LMEnsemble
from kdzoo.text.token_sequences import TokenSequences


@pytest.fixture(scope="module")
def data():
    data = Tomita(language=4, n_train=300, n_val=50, n_test=200, batch_size=100)
    data.setup("fit")
    return data


def fit(distiller, data, epochs=3):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(distiller, datamodule=data)
    return trainer


def test_the_language_and_its_probabilities_are_recovered_without_being_told_the_number_of_states(data):
    student, teacher = PFA(vocab_size=3), tomita(4)
    distiller = OTPFA(student, teacher, n_samples=1000, seed=1)
    trainer = fit(distiller, distiller.transfer_set(data))
    assert trainer.current_epoch == 1
    assert equivalent(from_pfa(student), tomita_dfa(4))
    valid = next(iter(data.test_dataloader()))
    assert float(distiller.losses(valid)["kl"].mean()) < 2e-3


def test_two_teachers_of_one_language_give_one_automaton(data):
    ensemble = LMEnsemble([tomita(4), tomita(4, stop=0.12)], [1, 3])
    student = PFA(vocab_size=3)
    distiller = OTPFA(student, ensemble, n_samples=800)
    fit(distiller, distiller.transfer_set(data))
    assert equivalent(from_pfa(student), tomita_dfa(4))


def test_teachers_without_a_string_are_named(data):
    distiller = OTPFA(PFA(vocab_size=3, states=2), LMEnsemble([tomita(4), tomita(4)], [1, 999]), n_samples=10)
    with pytest.raises(ConfigError, match="1 of 2 teachers"):
        fit(distiller, distiller.transfer_set(data))


def test_the_barycenter_and_the_stream_learn_too(data):
    teacher = tomita(4)
    for method, options, bound in ((FGWPFA, {}, 1e-3), (OnlinePFA, {"warm_up": 300}, 1e-2)):
        student = PFA(vocab_size=3, states=3)
        distiller = method(student, teacher, n_samples=2000, **options)
        fit(distiller, distiller.transfer_set(data), epochs=1)
        assert float(distiller.losses(next(iter(data.test_dataloader())))["kl"].mean()) < bound


def test_the_stream_keeps_nothing_of_what_it_has_read(data):
    def held(n):
        distiller = OnlinePFA(PFA(vocab_size=3, states=4), tomita(4), n_samples=n, warm_up=500)
        fit(distiller, distiller.transfer_set(data), epochs=1)
        return sum(value.numel() for value in distiller.observed.values() if isinstance(value, torch.Tensor))

    assert held(1000) == held(5000)


def test_an_epoch_of_baum_welch_is_one_iteration(data):
    student = PFA(vocab_size=3, states=3)
    distiller = BaumWelch(student, pseudocount=0.0)
    begin = PFA.from_parameters(student.initial, student.transitions, student.stop)
    fit(distiller, data, epochs=1)
    expected = maximise(begin, expected_counts(begin, prefix_trees_for(data.corpus.train, 3)), 0.0)
    torch.testing.assert_close(student.transitions, expected.transitions, atol=1e-12, rtol=0)
    torch.testing.assert_close(student.initial, expected.initial, atol=1e-12, rtol=0)


def test_baum_welch_never_loses_likelihood(data):
    student = PFA(vocab_size=3, states=4)
    distiller = BaumWelch(student, pseudocount=0.0)
    values = [float(student.log_prob(data.corpus.train).sum())]
    for _ in range(5):
        distiller = BaumWelch(student, start="student", pseudocount=0.0)
        fit(distiller, data, epochs=2)
        values.append(float(student.log_prob(data.corpus.train).sum()))
    assert all(after >= before - 1e-9 for before, after in pairwise(values))


def test_the_report_says_what_an_automaton_is(data, tmp_path):
    kind, student = kinds.get("automaton"), tomita(4)
    assert kind.properties(student)["total_mass"] == pytest.approx(1, abs=1e-9)
    assert kind.properties(student)["states"] == student.states
    assert kind.size(student) == student.n_parameters
    written = kind.export(student, tmp_path, data)
    assert all(path.stat().st_size for path in written)
    assert [path.name for path in kind.plot_model({"student": student}, tmp_path, data)] == ["automaton.png"]
    assert kind.plot_model({"student": PFA(vocab_size=3, states=41)}, tmp_path) == []


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (FGWPFA, {"alpha": 1.5}, r"alpha must be a finite number in \[0, 1\], got 1.5"),
        (FGWPFA, {"comparison": "foo"}, "comparison must be one of kl, l2, sparse"),
        (OTPFA, {"features": "foo"}, "features must be one of"),
        (OTPFA, {"n_samples": -1}, "n_samples must be an integer >= 0, got -1"),
        (OTPFA, {"baselines": ["foo"]}, "baselines must be one of kmeans"),
        (OnlinePFA, {"forgetting": 0.2}, r"forgetting must be a finite number in \[0.5, 1\], got 0.2"),
        (BaumWelch, {"start": "foo"}, "start must be one of random, student, got 'foo'"),
    ],
)
def test_wrong_arguments_are_named(method, options, message):
    with pytest.raises(ConfigError, match=message):
        method(PFA(vocab_size=3, states=2), tomita(4), **options)


def test_the_barycenter_needs_a_number_of_states():
    with pytest.raises(ConfigError, match=r"student\.states"):
        FGWPFA(PFA(vocab_size=3), tomita(4))


def test_more_states_than_points_are_refused(data):
    distiller = OTPFA(PFA(vocab_size=3, states=5000), tomita(4), n_samples=10)
    with pytest.raises(ConfigError, match="states"):
        fit(distiller, distiller.transfer_set(data))


def test_baselines_learn_from_the_strings_of_all_teachers(data):
    ensemble = LMEnsemble([tomita(1), tomita(2)])
    names = ["kmeans", "ngram3", "spectral", "baum_welch"]
    distiller = OTPFA(PFA(vocab_size=3, states=3), ensemble, n_samples=200, baselines=names)
    found = distiller.baselines(distiller.transfer_set(data))
    batch = next(iter(data.test_dataloader()))
    for name in names:
        said = found[name](batch["input"])[batch["mask"]]
        assert bool((said.exp().sum(-1) - 1).abs().max() < 1e-6), name
        assert found[name].n_parameters > 0, name


def test_only_empty_strings_are_strings_as_well():
    found = distill_states([[], [], []], torch.zeros(3, 2), states=1, vocab_size=3)
    assert float(found.pfa.log_prob(TokenSequences.of([[]])).exp()) > 0.9


def test_an_unknown_option_is_named():
    with pytest.raises(ConfigError, match="state is not a valid option"):
        distill_states([[0]], torch.zeros(2, 2), state=1)


def test_no_string_is_impossible_for_the_control(data):
    student = PFA(vocab_size=3, states=4)
    fit(BaumWelch(student), data, epochs=30)
    assert bool(student.log_prob(TokenSequences.of([[0, 0, 0, 0], [1], []])).isfinite().all())
