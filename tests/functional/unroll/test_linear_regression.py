"""One step on a distilled set of linear regression: D examples reach the optimum from anywhere, D - 1 cannot.

A step of size eta on M examples (X, y) takes w to w - (eta / M) X'(Xw - y). It ends at w* from every w if and only if
(eta / M) X'X = 1 and X'y = X'X w*. With fewer examples than weights there is a direction n with Xn = 0, along which
nothing moves, so that the mean squared distance to w* is at least the least eigenvalue of the starts' second moments.
"""

import pytest
import torch

from kdzoo.functional.unroll import ENGINES, unroll
from tests.functional.unroll.cases import normal

D, STARTS = 8, 12
SIZE = torch.tensor([0.4], dtype=torch.float64)
OPTIMUM = normal(D, seed=1)


def squares(weights, images, labels):
    """Half the mean squared error, (K, D) weights, (M, D) inputs, (M, 1) labels."""
    return (images @ weights.T - labels).square().mean(0).sum() / 2


def distance(starts, images, labels, engine="full"):
    """Return the mean squared distance to the optimum after one step."""
    end = unroll(starts, images, labels, SIZE, loss=squares, engine=engine)
    return (end - OPTIMUM).square().sum(1).mean()


def learned(examples: int, seed: int, engine: str):
    """Return a set that was learned from some starts, and the distance from these."""
    starts = normal(STARTS, D, seed=seed)
    images, labels = normal(examples, D, seed=seed + 1).requires_grad_(), normal(examples, 1, seed=seed + 2)
    labels.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [images, labels], max_iter=400, tolerance_grad=1e-12, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = distance(starts, images, labels, engine)
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        return images.detach(), labels.detach(), float(distance(starts, images, labels))


@pytest.mark.parametrize("engine", ENGINES)
def test_as_many_examples_as_weights_reach_the_optimum(engine) -> None:
    basis, _ = torch.linalg.qr(normal(D, D, seed=2))
    images = (D / SIZE).sqrt() * basis
    assert float(distance(100 * normal(50, D), images, images @ OPTIMUM[:, None], engine)) < 1e-20


@pytest.mark.parametrize("engine", ["segments", "reverse"])
@pytest.mark.parametrize("seed", [10, 20, 30])
def test_a_learned_set_reaches_it_too(engine, seed) -> None:
    images, labels, _ = learned(D, seed, engine)
    fresh = 3 * normal(50, D, seed=seed + 3)
    end = unroll(fresh, images, labels, SIZE, loss=squares)
    assert float((end - OPTIMUM).abs().max()) < 1e-6
    torch.testing.assert_close(SIZE / D * images.T @ images, torch.eye(D).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", [10, 20, 30])
def test_one_example_less_cannot(seed) -> None:
    images, _, found = learned(D - 1, seed, "segments")
    starts = normal(STARTS, D, seed=seed)
    moments = (starts - OPTIMUM).T @ (starts - OPTIMUM) / STARTS
    least = float(torch.linalg.eigvalsh(moments)[0])
    assert least > 0.01
    assert found == pytest.approx(least, rel=1e-5)  # the bound, and the learned set attains it
    blind = torch.linalg.svd(images)[2][-1]
    fresh = normal(50, D, seed=seed + 3)
    end = unroll(fresh, images, torch.zeros(D - 1, 1).double(), SIZE, loss=squares)
    torch.testing.assert_close(end @ blind, fresh @ blind, rtol=0, atol=1e-10)
