"""Clustering, merging, soft labels and Baum-Welch as one method."""

import pytest

from kdzoo.automata import PFA, equivalent, from_pfa
from kdzoo.automata.targets import tomita, tomita_dfa
from kdzoo.distillers import OTPFA
from kdzoo.errors import ConfigError
from kdzoo.models import LMEnsemble


def test_language_and_probabilities_are_recovered_with_an_unknown_number_of_states(tomita4, fit):
    student = PFA(vocab_size=3)
    distiller = OTPFA(student, tomita(4), n_samples=1000, seed=1)
    trainer = fit(distiller, distiller.transfer_set(tomita4))
    assert trainer.current_epoch == 1
    assert equivalent(from_pfa(student), tomita_dfa(4))
    assert float(distiller.losses(next(iter(tomita4.test_dataloader())))["kl"].mean()) < 2e-3


def test_two_teachers_of_one_language_give_one_automaton(tomita4, fit):
    student = PFA(vocab_size=3)
    distiller = OTPFA(student, LMEnsemble([tomita(4), tomita(4, stop=0.12)], [1, 3]), n_samples=800)
    fit(distiller, distiller.transfer_set(tomita4))
    assert equivalent(from_pfa(student), tomita_dfa(4))


def test_the_path_of_merges_is_plotted(tomita4, fit, tmp_path):
    """The teacher has three hidden states, so that there are three clusters."""
    distiller = OTPFA(PFA(vocab_size=3, states=2), tomita(4), n_samples=200, restarts=1, em=False)
    fit(distiller, distiller.transfer_set(tomita4), epochs=1)
    assert list(distiller.figure_data["path"]["states"]) == [3, 2]
    names = [path.name for path in distiller.report_extras.figures(tmp_path)]
    assert names == ["hidden_states.png", "merge_path.png"]


def test_more_states_than_prefixes_are_refused(tomita4, fit):
    distiller = OTPFA(PFA(vocab_size=3, states=5000), tomita(4), n_samples=10)
    with pytest.raises(ConfigError, match="states must be at most the number of prefixes"):
        fit(distiller, distiller.transfer_set(tomita4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "foo"}, "features must be one of hidden, sqrt_probs, both, learned, got 'foo'"),
        ({"clusters": 1}, "clusters must be at least states = 2, got 1"),
        ({"soft_labels": "yes"}, "soft must be true or false, got 'yes'"),
        ({"held_out": 1.0}, r"held_out must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        OTPFA(PFA(vocab_size=3, states=2), tomita(4), **options)
