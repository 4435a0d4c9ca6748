"""Costs of transitions against entropies, and the optimality of their closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from torch import Tensor

from kdzoo.functional.fgw.transition_cost import LOSSES, TransitionCost, transition_cost, transition_density

some = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def statistics(seed: int, tokens: int = 3, clusters: int = 4) -> tuple[Tensor, Tensor]:
    """Joint masses that sum to one, and products of other masses, as sequences have them at their ends."""
    g = np.random.default_rng(seed)
    W = g.dirichlet(np.full(tokens * clusters**2, 0.3)).reshape(tokens, clusters, clusters)
    h = g.dirichlet(np.ones(clusters))
    return torch.from_numpy(W), torch.from_numpy(np.outer(h, h))


def smoothed(W: Tensor, H: Tensor, share: float) -> np.ndarray:
    return ((1 - share) * W + share * W.sum((1, 2), keepdim=True) * H).numpy()


@given(seeds, st.sampled_from([0.0, 1e-3, 0.3]))
@some
def test_divergence_is_the_mass_less_the_information(seed: int, share: float) -> None:
    W, H = statistics(seed)
    joint, f = smoothed(W, H, share), W.sum((1, 2)).numpy()
    information = entropy(joint.ravel(), (np.ones_like(f)[:, None, None] * H.numpy()).ravel()) - np.log(len(f))
    value = transition_cost("kl", W, H, smoothing=share).value(W, H)
    assert value == pytest.approx(1 - information, abs=1e-12)


@given(seeds)
@some
def test_squares_have_their_profiled_value(seed: int) -> None:
    W, H = statistics(seed)
    assert transition_cost("l2", W, H).value(W, H) == pytest.approx(-float((W**2 / H).sum()), rel=1e-12)


@given(seeds, st.sampled_from([0.0, 0.5, 1.0, 4.0]), st.sampled_from([0.0, 1e-3, 0.3]))
@some
def test_surprise_is_a_sum_of_conditional_entropies(seed: int, determinism: float, share: float) -> None:
    W, H = statistics(seed)
    joint = smoothed(W, H, share)
    state, pair = joint.sum((0, 2)), joint.sum(2)
    token = entropy(pair.ravel()) - entropy(state)
    successor = entropy(joint.ravel()) - entropy(pair.ravel())
    value = transition_cost("sparse", W, H, smoothing=share, determinism=determinism).value(W, H)
    assert value == pytest.approx(token + determinism * successor, abs=1e-12)


def test_surprise_is_zero_weighted_for_a_deterministic_automaton() -> None:
    W = torch.tensor([[[0.0, 0.5], [0.0, 0.0]], [[0.0, 0.0], [0.5, 0.0]]], dtype=torch.float64)
    H = torch.full((2, 2), 0.25, dtype=torch.float64)
    values = [transition_cost("sparse", W, H, determinism=weight).value(W, H) for weight in (0.0, 1.0, 9.0)]
    assert values == pytest.approx([0, 0, 0], abs=1e-12)


@given(seeds, st.sampled_from(LOSSES), st.sampled_from([1e-3, 0.3]))
@some
def test_no_other_transitions_do_better(seed: int, loss: str, share: float) -> None:
    W, H = statistics(seed)
    best = transition_cost(loss, W, H, smoothing=share).value(W, H)
    noise = torch.randn(W.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for size in (1e-3, 0.1, 1.0):
        other = W * (size * noise).exp()
        other = other / other.sum((1, 2), keepdim=True) * W.sum((1, 2), keepdim=True)
        assert transition_cost(loss, other, H, smoothing=share).value(W, H) >= best - 1e-12


@pytest.mark.parametrize("loss", LOSSES)
def test_an_empty_cluster_changes_nothing(loss: str) -> None:
    W, H = statistics(4)
    wide_W, wide_H = torch.zeros(3, 5, 5, dtype=torch.float64), torch.zeros(5, 5, dtype=torch.float64)
    wide_W[:, :4, :4], wide_H[:4, :4] = W, H
    narrow, wide = (transition_cost(loss, *pair, smoothing=1e-3) for pair in ((W, H), (wide_W, wide_H)))
    assert all(part.isfinite().all() for part in wide)
    torch.testing.assert_close(wide.B[:, :4, :4], narrow.B)
    assert wide.value(wide_W, wide_H) == pytest.approx(narrow.value(W, H), abs=1e-12)


def test_density_of_independent_pairs_is_flat() -> None:
    _, H = statistics(0)
    f = torch.tensor([0.25, 0.75], dtype=torch.float64)
    expected = f[:, None, None].expand(2, 4, 4)
    torch.testing.assert_close(transition_density(f[:, None, None] * H, H), expected)


def test_a_scaled_cost_has_a_scaled_value() -> None:
    W, H = statistics(1)
    cost = transition_cost("kl", W, H)
    assert isinstance(cost.scaled(0.25), TransitionCost)
    assert cost.scaled(0.25).value(W, H) == pytest.approx(cost.value(W, H) / 4, rel=1e-14)
