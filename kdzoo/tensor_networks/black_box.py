"""A student that is built from queries to its teacher alone: sketching or cross interpolation, into a given chain."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kdzoo import checks
from kdzoo.errors import DataError
from kdzoo.tensor_networks import growth
from kdzoo.tensor_networks.cross import cross
from kdzoo.tensor_networks.features import FeatureMap
from kdzoo.tensor_networks.queries import Function, Oracle
from kdzoo.tensor_networks.sketching import CUTOFF, Queried, sketch

METHODS = ("sketching", "cross")


@runtime_checkable
class Student(growth.Chain, Protocol):
    """A module that holds a chain, as `kdzoo.models.MPS` does."""

    feature_map: FeatureMap
    order: Tensor


def from_queries(
    model: Student,
    teacher: Function,
    samples: Tensor,
    *,
    method: str = "sketching",
    rank: int | None = None,
    cutoff: float = CUTOFF,
    domain: Sequence[float] | None = None,
    ends: int | None = None,
    budget: int | None = None,
) -> Queried:
    """Set a chain to an imitation of a teacher, which is only ever asked, and return what that took.

    Ordinary distillation can go on from there. If anything fails, the chain is as it was.

    Args:
        model: an `MPS` with open ends; its bonds become those that are found.
        teacher: returns outputs (n, outputs) of inputs (n, ...); a module must be in eval mode.
        samples: inputs (samples, ...) without labels, more than `rank`; a hundred are often enough.
        method: `sketching` (subspaces fitted to recombined samples), or `cross` (exact at chosen points of a grid).
        rank: greatest bond dimension; None: that of the chain.
        cutoff: directions, or pivots, below this share of the greatest are left out, in [0, 1].
        domain: least and largest number that is tried at a site; None: those of the samples.
        ends: of sketching, see :func:`kdzoo.tensor_networks.sketching.sketch`.
        budget: greatest number of evaluations of the teacher; None for any number.

    Raises:
        ConfigError: an argument is outside its range, or the model is no open chain.
        DataError: there are too few samples, or the teacher's outputs are not finite.
        BudgetError: the budget is not enough.
    """
    assert isinstance(model, nn.Module)
    growth.check_chain(model)
    checks.choice("method", method, METHODS)
    if len(samples) == 0:
        raise DataError("queries need at least one sample, got none")
    order, shape = model.order.to(samples.device), samples.shape[1:]
    if shape.numel() != len(order):
        raise DataError(
            f"queries need one number for each of the chain's {len(order)} sites, got inputs of {tuple(shape)}"
        )
    back = order.argsort()
    points = samples.detach().flatten(1)[:, order].cpu()
    seen = [float(number) for number in points.aminmax()]
    low, high = checks.interval("domain", seen if domain is None else domain, checks.number)
    device, most = model.cores.device, max(map(max, model.layout.sides))

    def function(points: Tensor) -> Tensor:
        return teacher(points.to(samples.device)[:, back].unflatten(1, shape))

    def features(numbers: Tensor) -> Tensor:
        return model.feature_map.double_features(numbers.to(device)).cpu()

    oracle = Oracle(function, budget=budget)
    limits: dict[str, Any] = {
        "rank": most if rank is None else rank,
        "cutoff": cutoff,
        "out_site": model.out_site,
    }
    if method == "cross":
        sites, centre, found = cross(oracle, points, features, domain=(low, high), **limits)
    else:
        tried = torch.linspace(low, high, model.feature_map.d).tolist()
        sites, centre, found = sketch(oracle, points, features, domain=tried, ends=ends, **limits)
    model.load_tensors(sites, centre)
    return found
