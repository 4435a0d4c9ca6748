"""The fused Gromov-Wasserstein barycenter as a method."""

from itertools import pairwise

import pytest
import torch

from kdzoo.automata import PFA, TracedSequences
from kdzoo.automata.counts import count
from kdzoo.automata.targets import tomita
from kdzoo.distillers import FGWPFA
from kdzoo.distillers.automata.fgw_pfa import PSEUDOCOUNT
from kdzoo.errors import ConfigError
from kdzoo.text.language_model import trace_token_sequences


def test_an_automaton_is_learned_from_an_automaton(tomita4, fit):
    distiller = FGWPFA(PFA(vocab_size=3, states=3), tomita(4), n_samples=2000)
    fit(distiller, distiller.transfer_set(tomita4), epochs=1)
    assert float(distiller.losses(next(iter(tomita4.test_dataloader())))["kl"].mean()) < 1e-3
    objective = distiller.figure_data["objective"]
    assert all(after <= before + 1e-12 for before, after in pairwise(objective))


def test_the_automaton_counts_the_clusters(tomita4):
    """With several teachers the counts are those of each teacher's own strings, added up."""
    teacher, strings = tomita(4), tomita4.corpus.train
    result = trace_token_sequences(teacher, strings)
    traced = TracedSequences(strings, 3, result.hidden.float(), result.log_probs.exp().float())
    distiller = FGWPFA(PFA(vocab_size=3, states=3), teacher, alpha=1.0, restarts=1)
    pfa, labels = distiller.distil([traced])
    expected = count(traced, labels, n_clusters=3, soft=False).to_pfa(PSEUDOCOUNT)
    torch.testing.assert_close(pfa.transitions, expected.transitions)
    pooled, both_labels = distiller.distil([traced, traced])
    assert both_labels.shape == (2 * traced.n_prefixes,)
    assert pooled.states == 3


def test_a_given_number_of_states_is_needed():
    with pytest.raises(ConfigError, match=r"needs a given number of states, such as student\.states=20; got None"):
        FGWPFA(PFA(vocab_size=3), tomita(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha must be a finite number in \[0, 1\], got 1.5"),
        ({"comparison": "foo"}, "comparison must be one of kl, l2, sparse, got 'foo'"),
        ({"features": "learned"}, "features must be one of hidden, sqrt_probs, both, got 'learned'"),
        ({"init": "foo"}, "init must be one of random, kmeans, got 'foo'"),
        ({"restarts": 0}, "restarts must be an integer >= 1, got 0"),
        ({"soft_labels": 1}, "soft_labels must be true or false, got 1"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        FGWPFA(PFA(vocab_size=3, states=2), tomita(4), **options)
