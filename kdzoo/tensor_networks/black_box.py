"""A chain that is built from queries to a teacher alone, by sketching or cross interpolation."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError
from kdzoo.tensor_networks.chain_module import ChainModule, check_open_chain
from kdzoo.tensor_networks.cross import cross_interpolate
from kdzoo.tensor_networks.queries import Function, Oracle
from kdzoo.tensor_networks.sketching import CUTOFF, Features, QueryResult, as_set, sketch

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
    """Replace the tensors of a chain by an approximation of a teacher; if anything fails, the chain is unchanged.

    Args:
        model: A :class:`kdzoo.models.MPS` with open ends; its bonds become those of the approximation.
        teacher: Returns outputs ``[n, outputs]`` of inputs ``[n, ...]``; a module must be in eval mode.
        samples: Inputs ``[samples, ...]`` without labels, more than ``rank``; a hundred are often enough.
        method: ``sketching`` (subspaces fitted to recombined samples), or ``cross`` (exact at chosen points of a grid).
        rank: Largest bond dimension. None: that of the chain.
        cutoff: Directions, or pivots, below this share of the largest are left out, in [0, 1].
        domain: Smallest and largest number that is tried at a site. None: those of the samples.
        ends: Only for sketching, see :func:`kdzoo.tensor_networks.sketching.sketch`.
        budget: Largest number of evaluations of the teacher. None: any number.

    Raises:
        ConfigError: An argument is outside its range, the model is not an open chain, or the teacher has another number
            of outputs, which is checked with one sample.
        DataError: There are too few samples, they do not fit the chain or its feature map, or they or the outputs of
            the teacher are not finite.
        BudgetError: The budget is too small.
    """
    chain = check_open_chain(model)
    validation.choice("method", method, METHODS)
    problem = _problem(chain, teacher, samples)
    low, high = validation.interval("domain", problem.seen if domain is None else domain, validation.number)
    rank = max(map(max, chain.layout.sides)) if rank is None else rank
    limits: dict[str, Any] = {"rank": rank, "cutoff": cutoff, "out_site": chain.out_site}
    oracle = Oracle(problem.function, budget=budget)
    _check_outputs(oracle, problem, chain.centre.shape[1])
    if method == "cross":
        sites, centre, result = cross_interpolate(
            oracle, problem.points, problem.features, domain=(low, high), **limits
        )
    else:
        # At least d numbers are needed to distinguish d features of a site.
        tried = torch.linspace(low, high, chain.feature_map.d).tolist()
        sites, centre, result = sketch(oracle, problem.points, problem.features, domain=tried, ends=ends, **limits)
    chain.load_tensors(sites, centre)
    return result


class _Problem(NamedTuple):
    """The teacher and the samples in the order of the chain's sites.

    Attributes:
        function: The teacher as a function of points ``[n, sites]``.
        points: Different samples, sorted ``[n, sites]``, on the CPU, where the decompositions are.
        features: The feature map in float64, on the CPU.
        seen: Smallest and largest number of the samples.
    """

    function: Function
    points: Tensor
    features: Features
    seen: tuple[float, ...]


def _check_outputs(oracle: Oracle, problem: _Problem, expected: int) -> None:
    """Check the number of outputs with one sample that both methods need anyway, so that it costs no evaluation."""
    outputs = oracle(problem.points[:1]).shape[1]
    if outputs != expected:
        raise ConfigError(f"the teacher must have the {expected} outputs of the chain, got {outputs}")


def _problem(chain: ChainModule, teacher: Function, samples: Tensor) -> _Problem:
    """Return the task in the order of the sites.

    Raises:
        DataError: There are no samples, they do not fit the chain or its feature map, or they are not finite.
    """
    if len(samples) == 0:
        raise DataError("queries need at least one sample, got none")
    order, shape = chain.order.to(samples.device), samples.shape[1:]
    if shape.numel() != len(order):
        raise DataError(
            f"queries need one number for each of the chain's {len(order)} sites, got inputs of {tuple(shape)}"
        )
    position = order.argsort()
    points = as_set(samples.detach().flatten(1)[:, order].cpu())
    with torch.no_grad():
        chain.feature_map(points.T.to(chain.cores))  # rejects values outside its domain before the first evaluation

    def function(points: Tensor) -> Tensor:
        return teacher(points.to(samples.device)[:, position].unflatten(1, shape))

    def features(values: Tensor) -> Tensor:
        return chain.feature_map.double_features(values.to(chain.cores.device)).cpu()

    return _Problem(function, points, features, tuple(float(value) for value in points.aminmax()))
