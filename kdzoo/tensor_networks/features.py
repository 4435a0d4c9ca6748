"""Local feature maps: the d features that a site of a chain computes from its number.

The chain is linear in the features of every site. For a chain of identity matrices to be about 1, which is how it
starts, some combination of the features must be about 1: ``unit`` holds its weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import comb
from typing import cast

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import DataError

# How far outside the domain an input may lie, relative to the length of the domain: far above the rounding of float32
# inputs (1e-7), far below what a wrong scale of the inputs would show.
TOLERANCE = 1e-4
GRID = 1001  # points of the domain at which the weights of ``unit`` are fitted; the maps are smooth


class FeatureMap(nn.Module, ABC):
    """Base of all feature maps.

    A subclass passes ``d`` on and defines ``features``. If its first feature is not 1, it needs a domain, over which
    ``unit`` is fitted. A map that differs between sites must take values ``[1, samples]`` as those of all sites.

    Args:
        d: Number of features, the local dimension, >= 1.
        domain: Smallest and largest input. None: any number.

    Raises:
        ConfigError: An argument is outside its range.
    """

    d: int
    domain: tuple[float, float] | None = None
    _device_of: Tensor  # empty; a map without parameters moves with its module only through a buffer

    def __init__(self, d: int, domain: Sequence[float] | None = None) -> None:
        super().__init__()
        self.d = validation.integer("local dimension", d)
        self.register_buffer("_device_of", torch.empty(0), persistent=False)
        if domain is not None:
            self.domain = validation.interval("domain", domain, validation.number)

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return the features ``[sites, d, samples]`` of values ``[sites, samples]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the features ``[sites, d, samples]`` of values ``[sites, samples]``.

        Raises:
            DataError: A number is outside of the domain.
        """
        if self.domain is not None and values_readable(x):
            _check_domain(x, self.domain, type(self).__name__)
        return self.features(x)

    def calibrate(self, inputs: Tensor) -> None:
        """Fit the map to training inputs ``[samples, sites]`` before training; most maps have nothing to fit."""

    @property
    def unit(self) -> Tensor:
        """Weights with which the features give about 1, in float64.

        They are ``[d]``, or ``[sites, d]`` for a map that differs between sites. If the first feature is 1, its weight
        is 1 and the others are 0; otherwise the weights are fitted over the domain.
        """
        first = self._device_of.new_zeros(self.d, dtype=torch.float64)
        first[0] = 1
        if self.domain is None:
            return first
        grid = torch.linspace(*self.domain, GRID, dtype=torch.float64, device=first.device)
        phi = self.double_features(grid[None])  # [1 or sites, d, points]
        if bool(((phi[:, 0] - 1).abs() < 1e-9).all()):
            return first
        weights = torch.linalg.lstsq(phi.mT, phi.new_ones(len(phi), GRID, 1)).solution  # [1 or sites, d, 1]
        # Scaled so that the geometric mean over the domain is 1: the combinations of all sites are multiplied.
        weights = (weights / (phi.mT @ weights).abs().log().mean(1, keepdim=True).exp())[..., 0]
        return weights[0] if len(weights) == 1 else weights

    def double_features(self, x: Tensor) -> Tensor:
        """Return ``features`` in float64 without a gradient."""
        numbers = {
            f"map.{name}": value.double() if value.is_floating_point() else value
            for name, value in self.state_dict().items()
        }
        # Another dtype without a copy of the module, which may be compiled or shared.
        with torch.no_grad():
            return cast(Tensor, torch.func.functional_call(_Features(self), numbers, x.double()))


class _Features(nn.Module):
    """A map whose ``forward`` is ``features``, without the check of the domain."""

    def __init__(self, feature_map: FeatureMap) -> None:
        super().__init__()
        self.map = feature_map

    def forward(self, x: Tensor) -> Tensor:
        return self.map.features(x)


class Polynomial(FeatureMap):
    """Powers 1, x, ..., x^degree; degree 1 is the map [1, x], for which a chain is multilinear in its inputs.

    Args:
        degree: Highest power, >= 1.
        domain: Smallest and largest input. None: any number.
    """

    def __init__(self, degree: int = 1, domain: Sequence[float] | None = None) -> None:
        super().__init__(validation.integer("degree", degree) + 1, domain)

    def features(self, x: Tensor) -> Tensor:
        """Return the powers ``[sites, d, samples]``."""
        powers = [torch.ones_like(x), x]
        for _ in range(self.d - 2):
            powers.append(powers[-1] * x)
        return torch.stack(powers, 1)


class CosSin(FeatureMap):
    """Products of cosine and sine: sqrt(binomial(degree, j)) cos^(degree - j) sin^j of pi/2 times x in [0, 1].

    Args:
        degree: Number of factors, >= 1; the local dimension is one more.
        domain: Smallest and largest input, which become 0 and pi/2.

    References:
        Stoudenmire, Schwab: Supervised learning with tensor networks. NeurIPS 2016, arXiv:1605.05775, eq. 3 and app. B.
    """

    domain: tuple[float, float]

    def __init__(self, degree: int = 1, domain: Sequence[float] = (0.0, 1.0)) -> None:
        super().__init__(validation.integer("degree", degree) + 1, domain)

    def features(self, x: Tensor) -> Tensor:
        """Return the products ``[sites, d, samples]``, whose squares sum to 1."""
        angle = (x - self.domain[0]) / (self.domain[1] - self.domain[0]) * (torch.pi / 2)
        cos, sin, n = angle.cos(), angle.sin(), self.d - 1
        return torch.stack([comb(n, j) ** 0.5 * cos ** (n - j) * sin**j for j in range(self.d)], 1)


class Legendre(FeatureMap):
    """Legendre polynomials, orthonormal under the uniform distribution of the domain.

    Args:
        degree: Highest degree, >= 1; the local dimension is one more.
        domain: Smallest and largest input, which become -1 and 1.
    """

    domain: tuple[float, float]

    def __init__(self, degree: int = 1, domain: Sequence[float] = (0.0, 1.0)) -> None:
        super().__init__(validation.integer("degree", degree) + 1, domain)

    def features(self, x: Tensor) -> Tensor:
        """Return sqrt(2k + 1) P_k ``[sites, d, samples]``, by Bonnet's recursion."""
        low, high = self.domain
        z = (2 * x - (low + high)) / (high - low)
        values = [torch.ones_like(z), z]
        for k in range(1, self.d - 1):
            values.append(((2 * k + 1) * z * values[-1] - k * values[-2]) / (k + 1))
        return torch.stack([(2 * k + 1) ** 0.5 * value for k, value in enumerate(values)], 1)


class Whitened(FeatureMap):
    """Another map whose features are made orthonormal under the training data, separately at every site.

    Before ``calibrate`` it equals the other map. Afterwards the features of a site have mean square 1 and are
    uncorrelated; [1, x] becomes [1, (x - mean) / deviation]. A pixel that never changes keeps its unscaled feature.

    Args:
        base: The other map; its first feature must be 1.
        n_sites: Number of sites, >= 1.
    """

    transform: Tensor

    def __init__(self, base: FeatureMap, n_sites: int) -> None:
        super().__init__(base.d, base.domain)
        self.base = base
        self.register_buffer("transform", torch.eye(self.d).repeat(validation.integer("n_sites", n_sites), 1, 1))

    def features(self, x: Tensor) -> Tensor:
        """Return the whitened features ``[sites, d, samples]``."""
        return self.transform.to(x.dtype) @ self.base.features(x)

    def calibrate(self, inputs: Tensor) -> None:
        """Make the features white under inputs ``[samples, sites]``."""
        self.transform.copy_(whitening_matrices(gram_matrices(self.base.double_features(inputs.T))))


class Trainable(FeatureMap):
    """Learned combinations of Legendre polynomials, the same for all sites; the first feature stays 1.

    Args:
        d: Local dimension, >= 2.
        degree: Highest degree, >= d - 1.
        domain: Smallest and largest input.
    """

    def __init__(self, d: int = 2, degree: int = 4, domain: Sequence[float] = (0.0, 1.0)) -> None:
        super().__init__(validation.integer("d", d, least=2), domain)
        self.base = Legendre(validation.integer("degree", degree, least=d - 1), domain)
        self.weight = nn.Parameter(torch.eye(d - 1, self.base.d - 1))

    def features(self, x: Tensor) -> Tensor:
        """Return the combinations ``[sites, d, samples]``."""
        basis = self.base.features(x)
        return torch.cat([basis[:, :1], self.weight @ basis[:, 1:]], 1)


FEATURE_MAPS: dict[str, Callable[[int, int, tuple[float, float] | None], FeatureMap]] = {
    "polynomial": lambda n_sites, degree, domain: Polynomial(degree, domain),  # noqa: ARG005
    "cos_sin": lambda n_sites, degree, domain: CosSin(degree, domain or (0.0, 1.0)),  # noqa: ARG005
    "legendre": lambda n_sites, degree, domain: Legendre(degree, domain or (0.0, 1.0)),  # noqa: ARG005
    "whitened": lambda n_sites, degree, domain: Whitened(Polynomial(degree, domain), n_sites),
    # two degrees more than features, so that there is something to combine
    "trainable": lambda n_sites, degree, domain: Trainable(degree + 1, degree + 3, domain or (0.0, 1.0)),  # noqa: ARG005
}
"""Feature maps by name, made from the number of sites, a degree and a domain."""


def values_readable(x: Tensor) -> bool:
    """Return whether a check may read the values of a tensor: not in compiled code, under vmap, or on meta.

    The functions of functorch are private, but there is no public way to tell a tensor under ``vmap``, whose values
    cannot be read, from one under ``grad``, whose values can.
    """
    if torch.compiler.is_compiling() or x.device.type == "meta":
        return False
    while torch._C._functorch.is_gradtrackingtensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return not torch._C._functorch.is_batchedtensor(x)


def same_settings(a: FeatureMap, b: FeatureMap) -> bool:
    """Return whether two maps have the same class and settings; their parameters and buffers may differ."""
    return _settings(a) == _settings(b)


def equal_maps(a: FeatureMap, b: FeatureMap) -> bool:
    """Return whether two maps have the same class, settings, parameters and buffers, up to the dtype."""
    state_a, state_b = a.state_dict(), b.state_dict()
    return (
        same_settings(a, b)
        and state_a.keys() == state_b.keys()
        and all(torch.equal(state_a[key].double(), state_b[key].double()) for key in state_a)
    )


def describe_map(feature_map: FeatureMap) -> str:
    """Return class, number of features and domain of a map, for a message."""
    name, domain = type(feature_map).__name__, feature_map.domain
    return f"{name} with {feature_map.d} features of numbers in {'any range' if domain is None else list(domain)}"


def make_feature_map(name: str, n_sites: int, degree: int = 1, domain: Sequence[float] | None = None) -> FeatureMap:
    """Return a feature map by its name in ``FEATURE_MAPS``.

    Raises:
        ConfigError: The name is unknown, or degree or domain is out of range.
    """
    interval = None if domain is None else validation.interval("domain", domain, validation.number)
    return FEATURE_MAPS[validation.choice("feature_map", name, tuple(FEATURE_MAPS))](
        n_sites, validation.integer("degree", degree), interval
    )


def as_feature_map(
    feature_map: str | FeatureMap, n_sites: int, degree: int = 1, domain: Sequence[float] | None = None
) -> FeatureMap:
    """Return a feature map as it is, or the one with this name; see :func:`make_feature_map`."""
    return (
        feature_map if isinstance(feature_map, FeatureMap) else make_feature_map(feature_map, n_sites, degree, domain)
    )


def gram_matrices(phi: Tensor) -> Tensor:
    """Return the mean products ``[sites, d, d]`` of features ``[sites, d, samples]``."""
    return phi @ phi.mT / phi.shape[2]


def whitening_matrices(grams: Tensor, least: float = 1e-10) -> Tensor:
    """Return lower triangular matrices T ``[sites, d, d]`` with T G T' = 1.

    A direction without variance is not scaled.

    Args:
        grams: Mean products G of features, symmetric and positive semidefinite ``[sites, d, d]``.
        least: A variance up to this share of the mean square of the feature is treated as 0. The default is above the
            rounding of float32 inputs, squared, and far below the share of any pixel that changes.
    """
    d = grams.shape[-1]
    transform = torch.zeros_like(grams)
    for k in range(d):  # Gram-Schmidt: feature k minus its projection on those before
        row = torch.zeros_like(grams[:, 0])
        row[:, k] = 1
        before = transform[:, :k]
        row = row - ((before @ grams[:, k, :, None]).mT @ before)[:, 0]
        variance = torch.einsum("nk,nkl,nl->n", row, grams, row)
        constant = variance <= least * grams[:, k, k].clamp_min(torch.finfo(grams.dtype).tiny)
        transform[:, k] = row / torch.where(constant, 1.0, variance.clamp_min(0).sqrt().clamp_min(1e-300))[:, None]
    return transform


def _settings(feature_map: FeatureMap) -> list[tuple[type, str]]:
    """Return class and plain attributes of a map, and of the maps in it."""
    # Parameters, buffers and submodules are in attributes of nn.Module that begin with an underscore.
    return [
        (type(part), str({k: v for k, v in sorted(vars(part).items()) if k != "training" and not k.startswith("_")}))
        for part in feature_map.modules()
    ]


def _check_domain(x: Tensor, domain: tuple[float, float], name: str) -> None:
    if x.numel() == 0:
        return
    slack = TOLERANCE * (domain[1] - domain[0])
    low, high = x.detach().aminmax()
    if low < domain[0] - slack or high > domain[1] + slack:
        raise DataError(
            f"feature map {name} takes inputs in [{domain[0]:g}, {domain[1]:g}] (domain), "
            f"got values from {float(low):.4g} to {float(high):.4g}"
        )
