"""Helmholtz machine of points in the plane, trained by wake-sleep (Hinton, Dayan, Frey & Neal 1995).

    z4 -> z3 -> y2 -> z2 -> z1 -> y1

Latents are pairs of bits; the targets y1 and y2 are the coordinates, normal with deviation 0.5. The target y2 is in the
middle of the graph. A second graph, the recognizer, infers each latent given its neighbours in the first.
"""

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError
from kdzoo.graphical_models import Bernoulli, Constant, Graph, Input, Latent, Normal, Target, per_sample
from kdzoo.graphical_models.graph import Values
from kdzoo.models.hvae import Perceptron

SCALE = 0.5
"""Deviation of both coordinates given the latents, in units of standardised data (Chen et al. 2023)."""
BITS = 2
"""Bits of each latent (Chen et al. 2023)."""
REACH = 9.0
"""Deviations beyond the outermost mean at which an integral over a coordinate ends; 2e-19 of the mass is left out."""
_WAKE, _SLEEP = "wake|", "sleep|"  # prefixes of the noise of both phases; "|" cannot be in a node's name


class HelmholtzMachine(Graph):
    """The Helmholtz machine that Chen et al. distil: four pairs of bits and two coordinates.

    The nodes in order are the latents ``z4`` and ``z3``, the target ``y2``, the latents ``z2`` and ``z1``, and the
    target ``y1``. The prior of ``z4`` is learned; every other conditional has one hidden ReLU layer. ``recognizer`` is
    the graph of the inference: ``z1`` given ``y1`` and ``y2``, ``z2`` given ``y2`` and ``z1``, ``z3`` given ``y2``,
    ``z4`` given ``z3``. The batch's ``input`` ``[b, 2]`` holds (y1, y2). With width 8 the model has 186 parameters and
    its recognizer 168, with width 2 they have 54 and 48.

    Args:
        in_shape: Shape of one point: (2,).
        width: Units of each hidden layer, >= 1.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> import torch
        >>> model = HelmholtzMachine(in_shape=(2,))
        >>> model(torch.zeros(3, 2)).shape, model.log_density(torch.zeros(3, 2)).shape
        (torch.Size([3, 2]), torch.Size([3]))

    References:
        Hinton, Dayan, Frey, Neal: The wake-sleep algorithm for unsupervised neural networks. Science 268, 1995.
        Chen, Liang, Zeng, Yao, Shao: A unified knowledge distillation framework for deep directed graphical models.
        CVPR 2023.
    """

    def __init__(self, *, in_shape: Sequence[int], width: int = 2) -> None:
        if validation.integers("in_shape", in_shape) != (2,):
            raise ConfigError(f"in_shape must be (2,), a point in the plane, got {tuple(in_shape)}")
        width, bits, number = validation.integer("width", width), Bernoulli((BITS,)), Normal((1,), SCALE)

        def net(n_in: int, n_out: int) -> Perceptron:
            return Perceptron([n_in, width, n_out])

        super().__init__(
            [
                Latent("z4", bits, Constant(BITS)),
                Latent("z3", bits, net(BITS, BITS), "z4"),
                Target("y2", number, net(BITS, 1), "z3", source=_second),
                Latent("z2", bits, net(1, BITS), "y2"),
                Latent("z1", bits, net(BITS, BITS), "z2"),
                Target("y1", number, net(BITS, 1), "z1", source=_first),
            ]
        )
        self.recognizer = Graph(
            [
                Input("y1", number),
                Input("y2", number),
                Latent("z1", bits, net(2, BITS), ("y1", "y2")),
                Latent("z2", bits, net(1 + BITS, BITS), ("y2", "z1")),
                Latent("z3", bits, net(1, BITS), "y2"),
                Latent("z4", bits, net(BITS, BITS), "z3"),
            ]
        )

    def inference_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the recognizer."""
        yield from self.recognizer.parameters()

    def noise(
        self, n: int, *, generator: torch.Generator | None = None, steps: int | None = None, leaves: bool = True
    ) -> dict[str, Tensor]:
        """Draw the noise of n samples, also of the leaf ``y1``: a point with a mean as coordinate is not a sample."""
        return super().noise(n, generator=generator, steps=steps, leaves=leaves)

    def as_data(self, values: Values) -> Tensor:
        """Return points (y1, y2), ``[n, 2]``."""
        return torch.cat([values["y1"], values["y2"]], -1)

    # ---------------------------------------------------------------- wake-sleep

    def elbo_noise(self, n: int, *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draw the noise of the inferred latents (``wake|<node>``) and of n dreams (``sleep|<node>``)."""
        wake, sleep = self.recognizer.noise(n, generator=generator, leaves=True), self.noise(n, generator=generator)
        return {**_prefixed(_WAKE, wake), **_prefixed(_SLEEP, sleep)}

    def negative_elbo(self, batch: Values, noise: Values, lengths: Tensor | None = None) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the terms of the wake-sleep algorithm by name, ``[b]`` each, in nats; their sum is not a bound.

        The wake terms, by node, are -log p(node | parents) with latents from the recognizer, which gets no gradient
        from them. ``sleep`` is -log q(latents | points) of dreams, samples of the model, which gets no gradient from
        it.

        Args:
            batch: Batch with ``input`` ``[b, 2]``.
            noise: Noise as :meth:`elbo_noise` draws it.
            lengths: Not used; there are no sequences.
        """
        points = self.observed(batch, self.targets())
        with torch.no_grad():  # each phase treats the samples of the other graph as data
            inferred = self.recognizer.rollout(_stripped(_WAKE, noise), points).values
            dreamt = self.rollout(_stripped(_SLEEP, noise)).values
        terms = _negative_log_probs(self, {}, {name: inferred[name] for name in self.random_nodes()})
        points = {name: dreamt[name] for name in self.targets()}
        latents = _negative_log_probs(self.recognizer, points, {name: dreamt[name] for name in self.latents()})
        return {**terms, "sleep": torch.stack(list(latents.values())).sum(0)}

    # ---------------------------------------------------------------- the exact density

    def log_density(self, points: Tensor) -> Tensor:
        """Return the exact log density of points (y1, y2), a sum over all states of the latents, ``[n]`` in nats.

        The graph is a chain, so p(y2) needs the 4 states of each of ``z4`` and ``z3``, and p(y1 | y2) those of ``z2``
        and ``z1``.

        Args:
            points: Points ``[n, 2]``.
        """
        first, second = points[:, :1], points[:, 1:]
        nodes, states = self.random_nodes(), self._states()
        z4 = self._log_table("z4", states)[:1]  # the prior has no parent, so all rows are equal
        z3 = (z4[:, :, None] + self._log_table("z3", states)).logsumexp(1)
        z2 = self._log_table("z2", second)
        z1 = (z2[:, :, None] + self._log_table("z1", states)).logsumexp(1)
        total = torch.zeros_like(points[:, 0])
        for name, latent, value in (("y2", z3, second), ("y1", z1, first)):
            means = nodes[name].conditional.net(states)[:, 0]  # type: ignore[misc]
            given = torch.distributions.Normal(means, SCALE).log_prob(value)
            total = total + (latent + given).logsumexp(1)
        return total

    def divergence_from(self, student: "HelmholtzMachine") -> float:
        """Return KL(this model || student) of the densities in nats; see :func:`kl_by_quadrature`."""
        return kl_by_quadrature(self, student)

    def _states(self) -> Tensor:
        """Return all values of a latent, ``[4, 2]``."""
        return torch.tensor(list(itertools.product((0, 1), repeat=BITS))).to(self.like)

    def _log_table(self, name: str, parents: Tensor) -> Tensor:
        """Return the log-probability of every value of a latent given each of m values of its parent, ``[m, 4]``."""
        node = self.latents()[name]
        raw = node.conditional([parents] if node.conditional.parents else [], len(parents), parents)
        return node.family.distribution(raw[:, None]).log_prob(self._states()).sum(2)

    def _extent(self, name: str) -> tuple[float, float]:
        """Return the interval over which a coordinate is integrated; 2e-19 of its mass lies outside."""
        means = self.random_nodes()[name].conditional.net(self._states())  # type: ignore[misc]
        return means.min().item() - REACH * SCALE, means.max().item() + REACH * SCALE

    def _kinks(self) -> list[float]:
        """Return the values of ``y2`` at which a ReLU of ``z2``'s network switches, kinks of the density."""
        layer = self.latents()["z2"].conditional.net.layers[0]  # type: ignore[union-attr, index]
        places = -layer.bias / layer.weight[:, 0]  # type: ignore[union-attr]
        return places[places.isfinite()].tolist()  # a unit with weight 0 never switches


def kl_by_quadrature(teacher: HelmholtzMachine, student: HelmholtzMachine, *, points: int = 12) -> float:
    """Return KL(teacher || student) of the densities of points in nats, computed in double precision.

    Gauss-Legendre quadrature is used in both coordinates, on panels that are at most one deviation wide and end where a
    density has a kink: within a panel the integrand is smooth, and the rule converges exponentially.

    Args:
        teacher: Model whose density is the weight.
        student: Model whose log density is compared.
        points: Quadrature points per panel and coordinate, >= 1.

    Raises:
        ConfigError: If ``points`` is not an integer >= 1.
    """
    points = validation.integer("points", points)
    first, second = (copy.deepcopy(model).double() for model in (teacher, student))
    with torch.no_grad():
        y1, weights1 = _panels(*first._extent("y1"), [], points)
        y2, weights2 = _panels(*first._extent("y2"), [*first._kinks(), *second._kinks()], points)
        grid = torch.cartesian_prod(y1, y2)
        log_density = first.log_density(grid)
        integrand = log_density.exp() * (log_density - second.log_density(grid))
        return float(weights1 @ integrand.reshape(len(y1), len(y2)) @ weights2)


def _panels(low: float, high: float, breaks: Iterable[float], points: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of the quadrature over [low, high], ``[m]`` each; panels also end at the breaks."""
    even = torch.linspace(low, high, ceil((high - low) / SCALE) + 1, dtype=torch.double).tolist()
    ends = torch.tensor(sorted({*even, *(place for place in breaks if low < place < high)}), dtype=torch.double)
    places, weights = (torch.from_numpy(array) for array in leggauss(points))
    half = ends.diff()[:, None] / 2
    return (ends[:-1, None] + half * (1 + places)).flatten(), (half * weights).flatten()


def _first(batch: Mapping[str, Tensor]) -> Tensor:
    """Return y1 of a batch, ``[b]``."""
    return _column(batch, 0)


def _second(batch: Mapping[str, Tensor]) -> Tensor:
    """Return y2 of a batch, ``[b]``."""
    return _column(batch, 1)


def _column(batch: Mapping[str, Tensor], number: int) -> Tensor:
    """Return one coordinate of a batch of points, ``[b]``."""
    points = batch["input"]
    if points.ndim != 2 or points.shape[1] != 2:
        raise DataError(f"input must be points [b, 2], got {list(points.shape)}")
    return points[:, number]


def _negative_log_probs(graph: Graph, inputs: Values, values: Values) -> dict[str, Tensor]:
    """Return -log p(node | parents) of all nodes whose values are given, ``[n]`` each."""
    distributions = graph.rollout({}, inputs, forced=values).distributions
    return {name: -per_sample(distributions[name].log_prob(value), "sum") for name, value in values.items()}


def _prefixed(prefix: str, noise: Values) -> dict[str, Tensor]:
    """Return noise with a prefix before each name."""
    return {f"{prefix}{name}": value for name, value in noise.items()}


def _stripped(prefix: str, noise: Values) -> dict[str, Tensor]:
    """Return the noise whose names have a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in noise.items() if name.startswith(prefix)}
