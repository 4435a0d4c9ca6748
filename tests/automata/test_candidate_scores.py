"""The search for the best candidate: its splits, its sizes and how it chooses."""

import pytest
import torch

from kdzoo.automata import candidate_scores
from kdzoo.automata.candidate_scores import Candidate, CandidateSearch
from kdzoo.automata.options import DistillationOptions
from kdzoo.automata.pfa import PFA
from kdzoo.automata.traced_sequences import TracedSequences

TRUTH = PFA.from_parameters([1.0, 0.0], [[[0.0, 0.7], [0.1, 0.0]], [[0.2, 0.0], [0.0, 0.5]]], [0.1, 0.4])


def traced(n=60, *, soft=True):
    strings = TRUTH.sample(n, seed=0, max_length=40)
    inputs, targets = strings.inputs_and_targets(3)
    result = TRUTH.trace(inputs)
    valid = targets >= 0
    return TracedSequences(strings, 3, result.hidden[valid], result.log_probs[valid].exp() if soft else None)


def search(data=None, **options):
    return CandidateSearch([data or traced()], [1.0], DistillationOptions(**options))


@pytest.mark.parametrize(
    ("n", "share", "held_out"), [(20, 0.1, 2), (20, 0.0, 20), (2, 0.1, 1), (1, 0.5, 1), (3, 0.9, 2)]
)
def test_strings_are_split_once_and_reproducibly(n, share, held_out):
    train, checked = candidate_scores._split(n, share, seed=4)
    assert len(checked) == held_out
    if len(train) + len(checked) == n:
        assert sorted([*train.tolist(), *checked.tolist()]) == list(range(n))
    else:
        assert train.tolist() == checked.tolist() == list(range(n))
    assert torch.equal(candidate_scores._split(n, share, seed=4)[0], train)


@pytest.mark.parametrize(
    ("options", "n_prefixes", "expected"),
    [
        ({}, 10_000, 60),
        ({"states": 20}, 10_000, 100),
        ({"states": 20}, 400, 20),
        ({"states": 2}, 400, 20),
        ({}, 10, 1),
        ({"clusters": 33}, 10_000, 33),
        ({"clusters": 33}, 12, 12),
    ],
)
def test_the_number_of_clusters_follows_states_and_prefixes(options, n_prefixes, expected):
    assert search(**options)._n_clusters(n_prefixes) == expected


def test_large_alphabets_have_fewer_clusters(monkeypatch):
    monkeypatch.setattr(candidate_scores, "MERGE_CELLS", 3 * 17**2)
    assert search()._n_clusters(10_000) == 17
    assert search(states=30)._n_clusters(10_000) == 30


def test_every_cluster_has_training_strings():
    candidates = search(clusters=12)
    labels = candidates._kmeans(0, 12, 0)
    assert set(labels.tolist()) == set(labels[candidates.train_prefixes[0]].tolist())


def test_the_pseudocount_depends_on_what_the_teacher_shows():
    assert search().pseudocount == candidate_scores.SOFT_PSEUDOCOUNT
    assert search(soft=False).pseudocount == candidate_scores.PSEUDOCOUNT
    assert search(traced(soft=False)).pseudocount == candidate_scores.PSEUDOCOUNT
    assert search(pseudocount=0.5).pseudocount == 0.5


@pytest.mark.parametrize("soft", [True, False])
def test_scores_are_the_objective_per_symbol_and_the_best_of_a_kind_is_kept(soft):
    candidates = search(soft=soft)
    held_out = candidates.held_out[0]
    if soft:
        expected = torch.xlogy(held_out.next_probs, held_out.next_probs).sum() / held_out.n_prefixes
    else:
        expected = TRUTH.log_prob(held_out.strings).sum() / held_out.n_prefixes
    assert candidates._score("a", TRUTH) == pytest.approx(float(expected), rel=1e-9)
    assert float(candidates._by_string(TRUTH).sum()) / held_out.n_prefixes == pytest.approx(float(expected), rel=1e-6)
    assert candidates._score("a", PFA(3)) < candidates.candidate_scores["a"] == pytest.approx(float(expected), rel=1e-9)


class TestChoice:
    """A merged automaton stays unless another is better by the margin and by two standard errors."""

    def choose(self, merged, other, **options):
        candidates = search(traced(200), **options)
        path = object()  # only whether there is one matters here
        contestants = [
            Candidate("merged", merged, candidates._score("merged", merged), path=path),
            Candidate("other", other, candidates._score("other", other)),
        ]
        return candidates._choose(contestants).name

    def test_a_clearly_better_one_wins(self):
        assert self.choose(PFA(3), TRUTH) == "other"

    def test_a_worse_one_loses(self):
        assert self.choose(TRUTH, PFA(3)) == "merged"

    def test_one_that_is_better_by_less_than_the_margin_loses(self):
        nearly = PFA.from_parameters(TRUTH.initial, TRUTH.transitions * 0.99, 1 - 0.99 * (1 - TRUTH.stop))
        assert self.choose(nearly, TRUTH) == "merged"

    def test_without_merging_the_best_wins(self):
        candidates = search()
        worse, better = Candidate("worse", PFA(3), -2.0), Candidate("better", TRUTH, -1.0)
        assert candidates._choose([worse, better]) is better


def test_the_winner_is_estimated_from_all_strings():
    data = traced()
    result = CandidateSearch([data], [1.0], DistillationOptions(states=2, em=False, restarts=1, held_out=0.5)).run()
    expected = torch.stack([data.next_probs[result.labels == k].mean(0) for k in range(2)])
    torch.testing.assert_close(result.pfa.emissions, expected, atol=1e-4, rtol=1e-3)
    assert result.chosen in result.candidate_scores
    assert result.em is None
    assert result.path.n_states[-1] == 2
