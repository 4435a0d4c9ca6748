"""Linear normal graphs: the affine map from the noise to the values, and the joint normal distribution of the targets.

If all networks are affine and all random nodes are normal with deviations that do not depend on random values, every
value is an affine function of the noise. Its coefficients are found by rolling the graph out on zero noise and on unit
vectors; further points check that the map is affine.
"""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from kdzoo.errors import ConfigError
from kdzoo.graphical_models.families import Family, Normal
from kdzoo.graphical_models.graph import Graph, Values
from kdzoo.graphical_models.nodes import Target
from kdzoo.graphical_models.states import count_rows, cross_rows

CHECK_POINTS = 4
"""Random points at which a map is checked to be affine. A network that is not affine fails at almost every point, so
one would do; a ReLU can act linearly in the region of one point, and does so at four with a far lower probability."""


def gaussian_marginal(graph: Graph, inputs: Values | None = None) -> MultivariateNormal:
    """Return the joint distribution of all targets, flattened and concatenated in order, with batch shape ``[b]``.

    Args:
        graph: A linear normal graph.
        inputs: Values of the inputs, ``[b, ...]``; without them b is 1.

    Raises:
        ConfigError: If a node is not normal, or its value is not an affine function of the noise.
    """
    values = _affine_values(graph, inputs)
    parts = [values[name] for name in graph.targets()]
    offset, matrix = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    # A Cholesky factor of matrix @ matrix.T without forming this product, which would square the condition number.
    root = torch.linalg.qr(matrix.mT).R.mT
    signs = root.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # a Cholesky factor has a positive diagonal
    return MultivariateNormal(offset, scale_tril=root * signs, validate_args=False)


def affine_maps(
    compute: Callable[[Values, Values], dict[str, Tensor]], graph: Graph, inputs: Values
) -> dict[str, tuple[Tensor, Tensor]]:
    """Find affine functions of a graph's noise, one for each row of the inputs.

    Args:
        compute: Function of noise and inputs that returns values ``[n, ...]`` by name.
        graph: Graph whose noise is the argument.
        inputs: Values of the inputs, ``[b, ...]`` each.

    Returns:
        By name, the values at zero noise ``[b, d]`` and the matrix ``[b, d, k]`` that multiplies the noise.

    Raises:
        ConfigError: If a value is not an affine function of the noise.
    """
    like: Tensor = graph.like
    shapes = {name: noise.shape[1:] for name, noise in graph.noise(1, leaves=True).items()}
    k = sum(prod(shape) for shape in shapes.values())
    # Twice as wide as the noise itself, so that a slight curvature shows.
    check_points = 2 * torch.randn(CHECK_POINTS, k, generator=torch.Generator().manual_seed(0))
    points = torch.cat([torch.zeros(1, k), torch.eye(k), check_points]).to(like)
    columns = points.split([prod(shape) for shape in shapes.values()], 1)
    noise = {name: column.reshape(-1, *shapes[name]) for name, column in zip(shapes, columns, strict=True)}
    rows = cross_rows(inputs, noise)
    computed = compute({name: rows[name] for name in shapes}, {name: rows[name] for name in inputs})
    tolerance = torch.finfo(like.dtype).eps ** 0.5  # far above rounding, far below any real curvature
    maps = {}
    for name, value in computed.items():
        value = value.reshape(count_rows(inputs), len(points), -1)
        offset = value[:, 0]
        matrix = (value[:, 1 : k + 1] - offset[:, None]).mT
        predicted = offset[:, None] + points[k + 1 :] @ matrix.mT
        error = float((predicted - value[:, k + 1 :]).detach().abs().max())
        # "not <=" instead of ">" also rejects nan.
        if not error <= tolerance * (1 + float(value.detach().abs().max())):
            raise ConfigError(f"node {name!r} must be an affine function of the noise, but is off by {error:.2g}")
        maps[name] = (offset, matrix)
    return maps


def compared_families(graph: Graph) -> dict[str, Family]:
    """Return the families of the nodes that a divergence compares; point masses only if they are targets."""
    nodes = graph.random_nodes().values()
    return {node.name: node.family for node in nodes if node.family.is_random or isinstance(node, Target)}


def check_normal(graph: Graph) -> None:
    """Reject graphs with random nodes that are not normal.

    Raises:
        ConfigError: If there is such a node.
    """
    for name, family in compared_families(graph).items():
        if not isinstance(family, Normal):
            raise ConfigError(f"node {name!r}: a linear normal graph has only Normal nodes, got {family}")


def _affine_values(graph: Graph, inputs: Values | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the values of random nodes as affine functions of all noise."""
    check_normal(graph)

    def values(noise: Values, repeated: Values) -> dict[str, Tensor]:
        trace = graph.rollout(noise, repeated)
        return {name: trace.values[name] for name in compared_families(graph)}

    return affine_maps(values, graph, inputs or {})
