"""Matrix product states (tensor trains): a chain of small tensors, linear in the features of every input.

    f_o(x) = sum over bonds of  A1[phi(x1)] ... Am[phi(xm)] C_o  A(m+1)[phi(x(m+1))] ... AN[phi(xN)]
    A[phi] = sum_k phi_k A_k

Stoudenmire & Schwab 2016, "Supervised learning with tensor networks", equations 2 and 6, with the output's index on
a core C of its own between two sites. The chain starts as A[phi] = 1 + noise, so that the first output is finite at any
length.
"""

import warnings
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError, NonFiniteLossError
from kdzoo.tensor_networks import features
from kdzoo.tensor_networks.contraction import ENGINES, contract
from kdzoo.tensor_networks.features import FeatureMap, describe_map, equal_maps, values_readable
from kdzoo.tensor_networks.growth import usable_bonds
from kdzoo.tensor_networks.layout import Layout, make_layout
from kdzoo.tensor_networks.measure import TensorTrain, check_compatible, inner_product
from kdzoo.tensor_networks.network import as_nodes, canonical_form, check_open, reference_outputs
from kdzoo.tensor_networks.polynomial import to_polynomial
from kdzoo.tensor_networks.truncation import balanced_truncation, state_moments, truncate

BOUNDARIES = ("open", "periodic")
METHODS = ("product", "balanced")


class MPS(nn.Module):
    """Matrix product state with one output core.

    Modules to hook: `left` and `right` give the states (batch, bond) of both sides beside the output, `bonds.<b>` the
    state at bond b (between sites b - 1 and b) for each b of `probes`.

    Args:
        n_sites: Number of sites, >= 1; an input has so many numbers.
        n_outputs: Number of outputs, >= 1.
        bond_dim: Bond dimension, >= 1, or that of every bond: n_sites + 1 numbers and one more, as the output core
            has a bond on both sides. A bond that could not use its dimension gets a smaller one.
        feature_map: A name in `kdzoo.tensor_networks.MAPS` or a feature map of one's own.
        degree: Degree of a feature map that is given by name; the local dimension is one more.
        domain: Least and largest input of a feature map that is given by name; None for its own.
        order: Position in the flat input of each site; None: as they come.
        out_site: The output core is before this site, 0 <= out_site <= n_sites; None: in the middle, where it costs
            least.
        boundary: `open`, or `periodic`: the ends share a bond, at `bond_dim` times the cost.
        noise: Deviation of the noise at the start, in units of 1 / sqrt(n_sites * bond_dim).
        probes: Bonds whose states can be hooked, 1 <= b <= n_sites - 1.
        engine: `auto`, `compiled`, `sweep` or `autograd`; see `kdzoo.tensor_networks.contract`.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> model = MPS(n_sites=784, n_outputs=10, bond_dim=8)
        >>> model(torch.rand(2, 784)).shape
        torch.Size([2, 10])

    References:
        Stoudenmire, Schwab: Supervised learning with tensor networks. NeurIPS 2016, arXiv:1605.05775.
        Novikov, Trofimov, Oseledets: Exponential machines. ICLR workshop 2017, arXiv:1605.03795.
    """

    cores: nn.Parameter
    centre: nn.Parameter
    order: Tensor
    dims: Tensor

    def __init__(
        self,
        n_sites: int,
        n_outputs: int,
        bond_dim: int | Sequence[int] = 16,
        *,
        feature_map: str | FeatureMap = "polynomial",
        degree: int = 1,
        domain: Sequence[float] | None = None,
        order: Sequence[int] | Tensor | None = None,
        out_site: int | None = None,
        boundary: str = "open",
        noise: float = 0.5,
        probes: Sequence[int] = (),
        engine: str = "auto",
    ) -> None:
        super().__init__()
        self.n_sites = validation.integer("n_sites", n_sites)
        self.n_outputs = validation.integer("n_outputs", n_outputs)
        self.out_site = (
            self.n_sites // 2 if out_site is None else validation.integer("out_site", out_site, least=0, most=n_sites)
        )
        self.boundary = validation.choice("boundary", boundary, BOUNDARIES)
        self.engine = validation.choice("engine", engine, ENGINES)
        self.noise = validation.number("noise", noise, least=0.0)
        self.feature_map = (
            feature_map
            if isinstance(feature_map, FeatureMap)
            else features.make_feature_map(feature_map, n_sites, degree, domain)
        )
        self.probes = validation.integers("probes", probes, empty=True)
        for bond in self.probes:
            validation.integer("a bond of probes", bond, most=n_sites - 1)
        if self.probes and self.boundary == "periodic":
            raise ConfigError("probes need boundary='open', got boundary='periodic'")
        self.bonds = nn.ModuleDict({str(bond): nn.Identity() for bond in self.probes})
        self.left, self.right = nn.Identity(), nn.Identity()
        self.register_buffer("order", _order(order, n_sites))
        self.register_buffer("before_output", torch.tensor(self.out_site))  # weights of another place do not fit,
        self.register_buffer("closed", torch.tensor(self.boundary == "periodic"))  # nor those of other ends
        self._allocate(self._carried(bond_dim))
        self._start()

    # ---------------------------------------------------------------- calling it

    def forward(self, input: Tensor) -> Tensor:
        """Outputs (batch, n_outputs) of inputs (batch, ...) of n_sites numbers each.

        Raises:
            DataError: The inputs have another number of values, or one is outside the feature map's domain.
            NonFiniteLossError: A contraction is not finite; the message names the site, or the output core.
        """
        phi = self.features(input)
        samples, turns = phi.shape[2], self.layout.left[0]  # periodic: one sweep for each value of the joined bond
        if turns > 1:
            phi = phi.repeat_interleave(turns, 2)
        starts = torch.eye(turns, dtype=phi.dtype, device=phi.device).repeat(1, samples)
        stops = {(0, b) if b <= self.out_site else (1, self.n_sites - b): self.bonds[str(b)] for b in self.probes}
        left, right, log2 = contract(phi, self.cores, (starts, starts), self.layout, self.engine, stops)
        left, right = self.left(left.T) * log2.exp2()[:, None], self.right(right.T)
        towards = (left @ self.centre.flatten(1)).unflatten(1, self.centre.shape[1:])  # (samples, outputs, right bond)
        products = (towards * right[:, None]).sum(2)
        outputs = products.unflatten(0, (samples, turns)).sum(1)
        if values_readable(outputs):
            self._check_outputs(outputs, left, right)
        return outputs

    def _check_outputs(self, outputs: Tensor, left: Tensor, right: Tensor) -> None:
        """Refuse outputs that are not finite though the states are: the output core is not, or they are too large."""
        bad = ~outputs.isfinite().all(1)
        if bool(bad.any()) and bool(left.isfinite().all()) and bool(right.isfinite().all()):
            raise NonFiniteLossError(
                f"the contraction with the output core, before site {self.out_site} of {self.n_sites} (in the chain's "
                f"order), is not finite, sample {int(bad.nonzero()[0])}"
            )

    def features(self, input: Tensor) -> Tensor:
        """Return the features (sites, d, batch) of inputs (batch, ...), in the chain's order."""
        x = input.flatten(1)
        if x.shape[1] != self.n_sites:
            raise DataError(f"the chain has n_sites={self.n_sites}, got inputs of {x.shape[1]} numbers")
        return self._in_chain(self.feature_map(x.T.index_select(0, self.order)))

    def _in_chain(self, phi: Tensor) -> Tensor:
        """Return features in the dtype of the cores: inputs may be of another, and autocast changes products."""
        return phi.to(self.cores.dtype)

    def calibrate(self, inputs: Tensor) -> None:
        """Look at training inputs (samples, ...) before the training: feature maps that need data, and their scale."""
        x = inputs.to(self.cores.device).flatten(1)[:, self.order]
        self.feature_map.calibrate(x)
        with torch.no_grad():
            about_one = torch.einsum("nd,nds->ns", self._units(), self.feature_map.double_features(x.T))
            scale = about_one.abs().clamp_min(1e-12).log().mean(1).neg().exp()
            self.load_tensors([core * factor for core, factor in zip(self.sites(), scale, strict=True)], self.centre)

    # ---------------------------------------------------------------- its tensors

    @property
    def layout(self) -> Layout:
        """Where the cores lie in the vector ``cores``."""
        return self._layout

    def sites(self) -> list[Tensor]:
        """Return a copy of the core (n_left, d, n_right) of every site, from the left end, in float64."""
        return [core.detach().clone() for core in self.chain().sites]

    def load_tensors(self, sites: Sequence[Tensor], centre: Tensor) -> None:
        """Take other tensors: cores (n_left, d, n_right) from the left end, and the output core (left, output, right).

        The bonds become those of the tensors; ``cores`` and ``centre`` are new parameters if a bond changes.

        Raises:
            ConfigError: The bonds of neighbours differ, there is another number of sites, features or outputs, or the
                ends of an open chain would share a bond.
        """
        chain = [*sites[: self.out_site], centre, *sites[self.out_site :]]
        legs = [self.feature_map.d] * self.n_sites
        legs.insert(self.out_site, self.n_outputs)
        joined = all(one.shape[2] == other.shape[0] for one, other in pairwise(chain))
        ends = chain[0].shape[0], chain[-1].shape[2]
        closed = ends[0] == ends[1] and (ends[0] == 1 or self.boundary == "periodic")
        if [one.shape[1] for one in chain] != legs or not joined or not closed:
            raise ConfigError(
                f"tensors of shapes {[tuple(one.shape) for one in chain][:4]}... are no chain of {self.n_sites} sites "
                f"with {self.feature_map.d} features and {self.n_outputs} outputs before site {self.out_site}, "
                f"boundary={self.boundary!r}"
            )
        dims = (chain[0].shape[0], *(one.shape[2] for one in chain))
        if dims != tuple(self.dims.tolist()):
            self._allocate(dims)
        with torch.no_grad():
            for i, site in enumerate(sites):
                inner = i < self.out_site
                core = self.layout.core(self.cores, 1 - inner, i if inner else self.n_sites - 1 - i)
                core.copy_(site.transpose(0, 1) if inner else site.permute(1, 2, 0))
            self.centre.copy_(centre)

    @property
    def learned_sizes(self) -> dict[str, Any]:
        """Arguments that build a chain of these bonds."""
        return {"bond_dim": self.dims.tolist()}

    def extra_repr(self) -> str:
        """Return sites, outputs and the largest bond."""
        return f"n_sites={self.n_sites}, n_outputs={self.n_outputs}, bond_dim={int(self.dims.max())}"

    # ---------------------------------------------------------------- making it

    def _allocate(self, dims: Sequence[int]) -> None:
        """Make room for bonds ``dims``: those left of the output core from the left end, then those right of it."""
        m, like = self.out_site, getattr(self, "cores", torch.empty(0))
        self.register_buffer("dims", torch.tensor(dims, device=like.device))
        self._layout = make_layout(self.feature_map.d, tuple(dims[: m + 1]), tuple(reversed(dims[m + 1 :])))
        learned = like.requires_grad or not isinstance(like, nn.Parameter)
        self.cores = nn.Parameter(like.new_zeros(self._layout.n_cores), learned)
        self.centre = nn.Parameter(like.new_zeros(dims[m], self.n_outputs, dims[m + 1]), learned)

    def _start(self) -> None:
        """Set A[phi] to 1 + noise where the features allow it, and the output core to noise."""
        units, bonds = self._units().to(self.cores), self.dims.tolist()
        spread = self.noise / (self.n_sites * max(bonds)) ** 0.5
        with torch.no_grad():
            for side in (0, 1):
                for step, site in enumerate(self.layout.sites[side]):
                    core = self.layout.core(self.cores, side, step)
                    one = torch.eye(*core.shape[1:]).to(core)
                    core.copy_(units[site, :, None, None] * one + spread * torch.randn_like(core))
            self.centre.copy_(torch.randn_like(self.centre) / max(bonds) ** 0.5)

    def _units(self) -> Tensor:
        """Return the weights (sites, d) with which the features of every site give about 1, in float64."""
        return self.feature_map.unit.expand(self.n_sites, -1)

    def _carried(self, bond_dim: int | Sequence[int]) -> list[int]:
        """Return the bonds with ``bond_dim``, none larger than what the tensors on either side of it could use."""
        n, m = self.n_sites + 2, self.out_site
        if isinstance(bond_dim, int):
            asked = [validation.integer("bond_dim", bond_dim)] * n
        else:
            asked = list(validation.integers("bond_dim", bond_dim, length=n))
        if self.boundary == "periodic":
            if asked[0] != asked[-1]:
                raise ConfigError(f"bond_dim must begin and end with the same number, got {asked[0]} and {asked[-1]}")
            return asked
        legs = [self.feature_map.d] * self.n_sites
        legs.insert(m, self.n_outputs)
        dims = usable_bonds([1, *asked[1:-1], 1], legs)
        if max(dims) < max(asked):
            warnings.warn(
                f"bond_dim={max(asked)} is more than a chain of {self.n_sites} sites with {self.feature_map.d} "
                f"features and {self.n_outputs} outputs can carry; reduced to {max(dims)}",
                stacklevel=4,
            )
        return dims

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take the bonds of the weights that are loaded; refuse weights of another output's place or other ends."""
        dims, before, closed = (state_dict.get(f"{prefix}{name}") for name in ("dims", "before_output", "closed"))
        if before is not None and int(before) != self.out_site:
            raise ConfigError(
                f"out_site is {self.out_site}, but the weights are those of a chain of out_site={int(before)}"
            )
        if closed is not None and (theirs := BOUNDARIES[int(closed)]) != self.boundary:
            raise ConfigError(f"boundary is {self.boundary!r}, but the weights are those of a chain of {theirs!r} ends")
        if dims is not None and len(dims) == len(self.dims) and dims.tolist() != self.dims.tolist():
            self._allocate(dims.tolist())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    # ---------------------------------------------------------------- the chain as a function

    def chain(self) -> TensorTrain:
        """Return its tensors in float64, in the chain's order; gradients go through."""
        plan, n = self.layout, self.n_sites
        places = sorted((at, side, step) for side in (0, 1) for step, at in enumerate(plan.cores[side]))
        shapes = [plan.shape(side, step) for _, side, step in places]
        pieces = self.cores.double().split([prod(shape) for shape in shapes])
        sites = {}
        for (_, side, step), shape, piece in zip(places, shapes, pieces, strict=True):
            core = piece.view(shape)
            sites[n - 1 - step if side else step] = core.permute(2, 0, 1) if side else core.transpose(0, 1)
        return TensorTrain([sites[i] for i in range(n)], self.centre.double(), self.out_site)

    def grams(self, inputs: Tensor, other: "MPS | None" = None) -> Tensor:
        """Return the mean products (sites, d, d) of the features of inputs (samples, ...), in float64.

        They are all that the product of the inputs' marginals is to a chain. With another chain of the same order, the
        products are of the features of this one with those of the other.

        Raises:
            DataError: There are no inputs, one is not finite, or they do not fit the chain.
        """
        _check_inputs(inputs)
        total = torch.zeros((), dtype=torch.float64, device=self.cores.device)
        for part in inputs.split(4096):
            mine = self.features(part.to(self.cores)).double()
            theirs = mine if other is None else other.features(part.to(other.cores)).double()
            total = total + mine @ theirs.mT
        return total / len(inputs)

    def inner(self, other: "MPS", inputs: Tensor | None = None) -> Tensor:
        """Return the inner product with another chain, summed over outputs; differentiable in both.

        Args:
            other: A chain of as many sites, in the same order, and outputs.
            inputs: Samples (samples, ...): the inner product is E[f . g] for inputs whose numbers are independent, each
                distributed as here. None: that of the coefficients of products of features, which mean the same only
                if both chains have one feature map: of one class, with equal settings, parameters and buffers.

        Raises:
            ConfigError: The chains do not fit each other, or are periodic.
            DataError: There are no inputs, one is not finite, or they do not fit the chains.
        """
        mine, theirs = self.chain(), other.chain()
        check_compatible(mine, theirs)
        if not torch.equal(self.order, other.order):
            raise ConfigError("an inner product needs chains with one order of sites, got two")
        if inputs is not None:
            return inner_product(mine, theirs, self.grams(inputs, other)).sum()
        if not equal_maps(self.feature_map, other.feature_map):
            raise ConfigError(
                "an inner product without inputs needs chains with one feature map, equal in settings and numbers, got "
                f"{describe_map(self.feature_map)} and {describe_map(other.feature_map)}"
            )
        return inner_product(
            mine, theirs, torch.eye(self.feature_map.d).to(mine.centre).repeat(self.n_sites, 1, 1)
        ).sum()

    def canonicalize(self) -> None:
        """Make every core an isometry towards the output core, in place; the outputs stay.

        Raises:
            ConfigError: The chain is periodic.
            NonFiniteLossError: A decomposition fails; the chain is as it was.
        """
        self._take(*canonical_form(self.sites(), self.centre.detach().double(), self.out_site))

    def truncate(
        self,
        bond_dim: int | None = None,
        max_error: float | None = None,
        inputs: Tensor | None = None,
        *,
        method: str = "product",
    ) -> float:
        """Make the bonds smaller, in place, and return the error ||g - f|| / ||f|| of what it is to what it was.

        Use `product` with inputs: its error is known beforehand and can be limited, and few inputs are enough, as it
        needs their marginals alone. `balanced` sees how inputs depend on each other. It keeps more where they are
        nearly functions of one another; otherwise it is no better, holds the states of all inputs at once, and fits
        what is kept to them, without a bound for others.

        Args:
            bond_dim: Largest bond, >= 1; None: as large as needed.
            max_error: Largest error, in [0, 1); None: any. A bond_dim that is too small for it counts more.
            inputs: Samples (samples, ...), such as the training data: the error is the root mean square for inputs
                whose numbers are independent, each distributed as here. None: the error is that of the coefficients
                of products of features, which may cost far more accuracy.
            method: `product`, or `balanced`, which needs inputs and a bond_dim and takes no max_error; its error is
                that on these inputs as they are.

        Raises:
            ConfigError: An argument is out of its range, both limits are None, or the chain is periodic.
            DataError: There are no inputs, one is not finite, or they do not fit the chain.
            NonFiniteLossError: A decomposition fails; the chain is as it was.
        """
        chain = self.sites(), self.centre.detach().double(), self.out_site
        if validation.choice("method", method, METHODS) == "product":
            grams = None if inputs is None else self.grams(inputs)
            sites, centre, error = truncate(*chain, grams=grams, bond_dim=bond_dim, max_error=max_error)
        elif inputs is None or bond_dim is None or max_error is not None:
            raise ConfigError(
                f"method='balanced' needs inputs and bond_dim, and has no max_error; got bond_dim={bond_dim}, "
                f"max_error={max_error} and {'no ' if inputs is None else ''}inputs"
            )
        else:
            _check_inputs(inputs)
            with torch.no_grad():
                phi = self.features(inputs.to(self.cores)).double()
            sites, centre = balanced_truncation(*chain, *state_moments(*chain, phi), bond_dim)
            before = reference_outputs(*chain, phi)
            gap = (reference_outputs(sites, centre, self.out_site, phi) - before).norm()
            error = float(gap / before.norm().clamp_min(torch.finfo(before.dtype).tiny))
        self._take(sites, centre)
        return error

    def to_tensornetwork(self) -> list[Any]:
        """Return connected nodes of the library `tensornetwork`, one for each site and the output."""
        return as_nodes(self.sites(), self.centre.detach().double(), self.out_site)

    def _take(self, sites: Sequence[Tensor], centre: Tensor) -> None:
        """Load tensors that are computed, unless one is too large for the dtype of the parameters."""
        largest = max(float(one.abs().max()) for one in (*sites, centre))
        if not largest <= torch.finfo(self.cores.dtype).max:
            raise NonFiniteLossError(
                f"the chain was not changed: a tensor would hold {largest:.3g}, beyond the largest {self.cores.dtype}"
            )
        self.load_tensors(sites, centre)

    # ---------------------------------------------------------------- as a polynomial

    def to_polynomial(self) -> dict[tuple[int, ...], Tensor]:
        """Return exponents of the flat input's numbers -> coefficients of all outputs, of a small chain, in float64.

        Raises:
            ConfigError: The feature map is no `Polynomial`, the chain is periodic, or it has more than 65,536
                monomials.
        """
        if not isinstance(self.feature_map, features.Polynomial):
            raise ConfigError(f"to_polynomial needs feature_map='polynomial', got {type(self.feature_map).__name__}")
        sites, centre = self.sites(), self.centre.detach().double()
        check_open(sites, centre, self.out_site, "a polynomial")
        place = self.order.argsort().tolist()
        found = to_polynomial(sites, centre, self.out_site)
        return {tuple(one[site] for site in place): value for one, value in found.items()}


def _check_inputs(inputs: Tensor) -> None:
    """Refuse samples of which there are none, or that are not finite."""
    if inputs.numel() == 0:
        raise DataError(f"inputs must hold at least one sample, got shape {tuple(inputs.shape)}")
    if not bool(inputs.isfinite().all()):
        raise DataError("inputs must be finite, got NaN or infinite numbers")


def _order(order: Sequence[int] | Tensor | None, n_sites: int) -> Tensor:
    """Return a checked permutation of the inputs."""
    found = torch.arange(n_sites) if order is None else torch.as_tensor(order)
    if sorted(found.tolist()) != list(range(n_sites)):
        raise ConfigError(f"order must hold each of 0..{n_sites - 1} once, got {found.tolist()[:8]}...")
    return found
