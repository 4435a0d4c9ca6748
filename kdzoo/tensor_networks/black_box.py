"""A student that is built from queries to its teacher alone: sketching or cross interpolation, into a given chain."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError
from kdzoo.tensor_networks.chain_module import check_open_chain
from kdzoo.tensor_networks.cross import cross_interpolate
from kdzoo.tensor_networks.queries import Function, Oracle
from kdzoo.tensor_networks.sketching import CUTOFF, QueryResult, as_set, sketch

METHODS = ("sketching", "cross")


def from_queries(
    model: nn.Module,
    teacher: Function,
    samples: Tensor,
    *,
    method: str = "sketching",
    rank: int | None = None,
    cutoff: float = CUTOFF,
    domain: Sequence[float] | None = None,
    ends: int | None = None,
    budget: int | None = None,
) -> QueryResult:
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
        ConfigError: an argument is outside its range, the model is no open chain, or the teacher has another number of
            outputs, for which it is asked for one sample.
        DataError: there are too few samples, they do not fit the chain or its feature map, or they or the teacher's
            outputs are not finite.
        BudgetError: the budget is not enough.
    """
    chain = check_open_chain(model)
    validation.choice("method", method, METHODS)
    if len(samples) == 0:
        raise DataError("queries need at least one sample, got none")
    order, shape = chain.order.to(samples.device), samples.shape[1:]
    if shape.numel() != len(order):
        raise DataError(
            f"queries need one number for each of the chain's {len(order)} sites, got inputs of {tuple(shape)}"
        )
    back = order.argsort()
    points = as_set(samples.detach().flatten(1)[:, order].cpu())
    with torch.no_grad():
        chain.feature_map(points.T.to(chain.cores))  # refuses what is outside of its domain
    seen = [float(number) for number in points.aminmax()]
    low, high = validation.interval("domain", seen if domain is None else domain, validation.number)
    device, most = chain.cores.device, max(map(max, chain.layout.sides))

    def function(points: Tensor) -> Tensor:
        return teacher(points.to(samples.device)[:, back].unflatten(1, shape))

    def features(numbers: Tensor) -> Tensor:
        return chain.feature_map.double_features(numbers.to(device)).cpu()

    oracle = Oracle(function, budget=budget)
    outputs, wanted = oracle(points[:1]).shape[1], chain.centre.shape[1]  # both methods ask for this sample anyway
    if outputs != wanted:
        raise ConfigError(f"the teacher must have the {wanted} outputs of the chain, got {outputs}")
    limits: dict[str, Any] = {
        "rank": most if rank is None else rank,
        "cutoff": cutoff,
        "out_site": chain.out_site,
    }
    if method == "cross":
        sites, centre, found = cross_interpolate(oracle, points, features, domain=(low, high), **limits)
    else:
        tried = torch.linspace(low, high, chain.feature_map.d).tolist()
        sites, centre, found = sketch(oracle, points, features, domain=tried, ends=ends, **limits)
    chain.load_tensors(sites, centre)
    return found
