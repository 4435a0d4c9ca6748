"""What all matrix product states have in common: parameters, contraction and initialisation of a chain.

    f_o(x) = sum over bonds of  A1[phi(x1)] ... Am[phi(xm)] C_o  A(m+1)[phi(x(m+1))] ... AN[phi(xN)]
    A[phi] = sum_k phi_k A_k

Stoudenmire & Schwab 2016, "Supervised learning with tensor networks", equations 2 and 6, with the index of the output
on a separate core C between two sites. The chain starts as A[phi] = 1 + noise, so that the first output is finite at
any length: a product of 784 random matrices would underflow to 0.
"""

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.precision import host_may_read
from kdzoo.errors import ConfigError, DataError, KdzooWarning, NonFiniteLossError
from kdzoo.tensor_networks.chain_module import ChainModule
from kdzoo.tensor_networks.contraction import ENGINES, contract
from kdzoo.tensor_networks.features import FeatureMap, values_readable
from kdzoo.tensor_networks.growth import usable_bonds
from kdzoo.tensor_networks.layout import Layout, make_layout

BOUNDARIES = ("open", "periodic")


class MPSBase(ChainModule):
    """Base of the matrix product states: it takes the options that do not depend on what a site sees.

    A subclass passes its options on, and then calls ``_build`` once with sizes, feature map and order.

    Args:
        bond_dim: Bond dimension, >= 1, or the dimensions of all bonds: n_sites + 2 numbers, as the output core has a
            bond on both sides. A bond that cannot use its dimension gets a smaller one.
        out_site: The output core stands before this site, 0 <= out_site <= n_sites. None: in the middle, where it
            costs least.
        boundary: ``open``, or ``periodic``: the ends share a bond, at ``bond_dim`` times the cost.
        noise: Standard deviation of the initial noise, >= 0, in units of 1 / sqrt(n_sites * bond_dim). At 0.5 the
            states of 784 sites start with norms of 0.9 to 1.3, at 3 with norms of 40 to 400.
        probes: Bonds whose states can be hooked, 1 <= b <= n_sites - 1.
        engine: ``auto``, ``compiled``, ``sweep`` or ``autograd``; see :func:`kdzoo.tensor_networks.contract`.

    Raises:
        ConfigError: An argument is outside its range.
    """

    def __init__(
        self,
        *,
        bond_dim: int | Sequence[int] = 16,
        out_site: int | None = None,
        boundary: str = "open",
        noise: float = 0.5,
        probes: Sequence[int] = (),
        engine: str = "auto",
    ) -> None:
        super().__init__()
        self.boundary = validation.choice("boundary", boundary, BOUNDARIES)
        self.engine = validation.choice("engine", engine, ENGINES)
        self.noise = validation.number("noise", noise, least=0.0)
        self.probes = validation.integers("probes", probes, empty=True)
        if self.probes and self.boundary == "periodic":
            raise ConfigError("probes need boundary='open', got boundary='periodic'")
        self._options = bond_dim, out_site  # checked by _build, which knows the number of sites

    def _build(self, n_sites: int, n_outputs: int, feature_map: FeatureMap, order: Tensor) -> None:
        """Make the tensors, and the modules that can be hooked.

        Args:
            n_sites: Number of sites, >= 1.
            n_outputs: Number of outputs, >= 1.
            feature_map: Map of a site's input.
            order: Position of each site among the inputs, a permutation.
        """
        bond_dim, out_site = self._options
        self.n_sites, self.n_outputs = n_sites, n_outputs
        self.out_site = (
            n_sites // 2 if out_site is None else validation.integer("out_site", out_site, least=0, most=n_sites)
        )
        for bond in self.probes:
            validation.integer("a bond of probes", bond, most=n_sites - 1)
        self.feature_map = feature_map
        self.bonds = nn.ModuleDict({str(bond): nn.Identity() for bond in self.probes})
        self.left, self.right = nn.Identity(), nn.Identity()
        self.register_buffer("order", order)
        # Saved with the weights, because a chain with the output elsewhere or with other ends can have equal shapes.
        self.register_buffer("before_output", torch.tensor(self.out_site))
        self.register_buffer("closed", torch.tensor(self.boundary == "periodic"))
        self.cores = nn.Parameter(torch.empty(0))  # _allocate keeps its dtype, device and requires_grad
        self._allocate(self._initial_bonds(bond_dim))
        self._initialise()

    # ---------------------------------------------------------------- forward

    def forward(self, input: Tensor) -> Tensor:
        """Return the outputs ``[batch, n_outputs]`` of inputs ``[batch, ...]`` with n_sites numbers each.

        Raises:
            DataError: The inputs have another number of values, or one is outside the domain of the feature map.
            NonFiniteLossError: The contraction is not finite; the message names the site, or the output core.
        """
        phi = self.features(input)
        # A periodic chain is swept once for each value of the bond that its ends share; an open one has a single value.
        samples, turns = phi.shape[2], self.layout.left[0]
        if turns > 1:
            phi = phi.repeat_interleave(turns, 2)
        starts = torch.eye(turns, dtype=phi.dtype, device=phi.device).repeat(1, samples)
        stops = {(0, b) if b <= self.out_site else (1, self.n_sites - b): self.bonds[str(b)] for b in self.probes}
        left, right, log2 = contract(phi, self.cores, (starts, starts), self.layout, self.engine, stops)
        left, right = self.left(left.T) * log2.exp2()[:, None], self.right(right.T)
        towards_right = (left @ self.centre.flatten(1)).unflatten(1, self.centre.shape[1:])  # [samples, outputs, bond]
        products = (towards_right * right[:, None]).sum(2)
        outputs = products.unflatten(0, (samples, turns)).sum(1)
        if values_readable(outputs) and host_may_read(outputs):
            self._check_outputs(outputs, left, right)
        return outputs

    def _check_outputs(self, outputs: Tensor, left: Tensor, right: Tensor) -> None:
        """Reject outputs that are not finite though the states are, which is the fault of the output core."""
        bad = ~outputs.isfinite().all(1)
        if bool(bad.any()) and bool(left.isfinite().all()) and bool(right.isfinite().all()):
            raise NonFiniteLossError(
                f"the contraction with the output core, before site {self.out_site} of {self.n_sites} (in the chain's "
                f"order), is not finite, sample {int(bad.nonzero()[0])}"
            )

    def features(self, input: Tensor) -> Tensor:
        """Return the features ``[sites, d, batch]`` of inputs ``[batch, ...]``, in the order of the chain."""
        x = input.flatten(1)
        if x.shape[1] != self.n_sites:
            raise DataError(f"the chain has n_sites={self.n_sites}, got inputs of {x.shape[1]} numbers")
        return self._cast(self.feature_map(x.T.index_select(0, self.order)))

    def _cast(self, phi: Tensor) -> Tensor:
        """Return features in the dtype of the cores: inputs may have another one, and autocast changes products."""
        return phi.to(self.cores.dtype)

    def calibrate(self, inputs: Tensor) -> None:
        """Fit the feature map, and the scale of each site, to training inputs ``[samples, ...]`` before training.

        Afterwards the geometric mean of A[phi] is 1 at every site, for the noise-free start.
        """
        x = inputs.to(self.cores.device).flatten(1)[:, self.order]
        self.feature_map.calibrate(x)
        with torch.no_grad():
            near_one = torch.einsum("nd,nds->ns", self._unit_weights(), self.feature_map.double_features(x.T))
            # The logarithm, because the factors of all sites are multiplied; 1e-12 keeps a feature of 0 finite.
            scale = near_one.abs().clamp_min(1e-12).log().mean(1).neg().exp()
            self.load_tensors([core * factor for core, factor in zip(self.sites(), scale, strict=True)], self.centre)

    # ---------------------------------------------------------------- tensors

    @property
    def layout(self) -> Layout:
        """The layout of the cores in the vector ``cores``."""
        return self._layout

    def load_tensors(self, sites: Sequence[Tensor], centre: Tensor) -> None:
        """Replace all tensors; see :meth:`kdzoo.tensor_networks.ChainModule.load_tensors`."""
        dims = self._checked_bonds(sites, centre)
        if dims != tuple(self.dims.tolist()):
            self._allocate(dims)
        with torch.no_grad():
            for i, site in enumerate(sites):
                is_left = i < self.out_site
                core = self.layout.core(self.cores, 1 - is_left, i if is_left else self.n_sites - 1 - i)
                core.copy_(site.transpose(0, 1) if is_left else site.permute(1, 2, 0))
            self.centre.copy_(centre)

    def _checked_bonds(self, sites: Sequence[Tensor], centre: Tensor) -> tuple[int, ...]:
        """Return the bonds of new tensors, from the left end, after checking that they fit each other and this chain.

        Raises:
            ConfigError: The bonds of neighbours differ, there is another number of sites, features or outputs, or the
                ends of an open chain would share a bond.
        """
        chain = [*sites[: self.out_site], centre, *sites[self.out_site :]]
        is_connected = all(tensor.shape[2] == following.shape[0] for tensor, following in pairwise(chain))
        first, last = chain[0].shape[0], chain[-1].shape[2]
        ends_fit = first == last and (first == 1 or self.boundary == "periodic")
        if [tensor.shape[1] for tensor in chain] != self._legs() or not is_connected or not ends_fit:
            raise ConfigError(
                f"tensors of shapes {[tuple(tensor.shape) for tensor in chain][:4]}... are not a chain of "
                f"{self.n_sites} sites with {self.feature_map.d} features and {self.n_outputs} outputs before site "
                f"{self.out_site}, boundary={self.boundary!r}"
            )
        return (first, *(tensor.shape[2] for tensor in chain))

    def _legs(self) -> list[int]:
        """Return the dimension of the free leg of every tensor, from the left end: features, and once the outputs."""
        legs = [self.feature_map.d] * self.n_sites
        legs.insert(self.out_site, self.n_outputs)
        return legs

    @property
    def learned_sizes(self) -> dict[str, Any]:
        """Constructor arguments that build a chain with these bonds."""
        return {"bond_dim": self.dims.tolist()}

    def extra_repr(self) -> str:
        """Return sites, outputs and the largest bond."""
        return f"n_sites={self.n_sites}, n_outputs={self.n_outputs}, bond_dim={int(self.dims.max())}"

    # ---------------------------------------------------------------- construction

    def _allocate(self, dims: Sequence[int]) -> None:
        """Make parameters of zeros for the bonds ``dims`` from the left end, with the present device and dtype."""
        m, like = self.out_site, self.cores
        self.register_buffer("dims", torch.tensor(dims, device=like.device))
        self._layout = make_layout(self.feature_map.d, tuple(dims[: m + 1]), tuple(reversed(dims[m + 1 :])))
        # a frozen teacher stays frozen when it is truncated
        self.cores = nn.Parameter(like.new_zeros(self._layout.n_cores), like.requires_grad)
        self.centre = nn.Parameter(like.new_zeros(dims[m], self.n_outputs, dims[m + 1]), like.requires_grad)

    def _initialise(self) -> None:
        """Set A[phi] to 1 + noise where the features allow it, and the output core to noise."""
        units, bonds = self._unit_weights().to(self.cores), self.dims.tolist()
        # The variances of N sites with bonds D add up to about noise^2, whatever N and D are.
        deviation = self.noise / (self.n_sites * max(bonds)) ** 0.5
        with torch.no_grad():
            for side in (0, 1):
                for step, site in enumerate(self.layout.sites[side]):
                    core = self.layout.core(self.cores, side, step)
                    identity = torch.eye(*core.shape[1:]).to(core)
                    core.copy_(units[site, :, None, None] * identity + deviation * torch.randn_like(core))
            self.centre.copy_(torch.randn_like(self.centre) / max(bonds) ** 0.5)

    def _unit_weights(self) -> Tensor:
        """Return the weights ``[sites, d]`` with which the features of every site give about 1, in float64."""
        return self.feature_map.unit.expand(self.n_sites, -1)

    def _initial_bonds(self, bond_dim: int | Sequence[int]) -> list[int]:
        """Return all bonds with ``bond_dim``, none larger than what the tensors on either side of it can use."""
        count = self.n_sites + 2
        if isinstance(bond_dim, int):
            requested = [validation.integer("bond_dim", bond_dim)] * count
        else:
            requested = list(validation.integers("bond_dim", bond_dim, length=count))
        if self.boundary == "periodic":
            if requested[0] != requested[-1]:
                raise ConfigError(
                    f"bond_dim must begin and end with the same number, got {requested[0]} and {requested[-1]}"
                )
            return requested
        dims = usable_bonds([1, *requested[1:-1], 1], self._legs())
        if max(dims) < max(requested):
            warnings.warn(
                f"bond_dim={max(requested)} is more than a chain of {self.n_sites} sites with {self.feature_map.d} "
                f"features and {self.n_outputs} outputs can carry; reduced to {max(dims)}",
                KdzooWarning,
                stacklevel=4,  # the caller of the constructor, past _build and __init__
            )
        return dims

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take the bonds of the weights that are loaded; reject weights of another output site or other ends."""
        dims, before, closed = (state_dict.get(f"{prefix}{name}") for name in ("dims", "before_output", "closed"))
        if before is not None and int(before) != self.out_site:
            raise ConfigError(
                f"out_site is {self.out_site}, but the weights are those of a chain of out_site={int(before)}"
            )
        if closed is not None and (saved := BOUNDARIES[int(closed)]) != self.boundary:
            raise ConfigError(f"boundary is {self.boundary!r}, but the weights are those of a chain of {saved!r} ends")
        if dims is not None and len(dims) == len(self.dims) and dims.tolist() != self.dims.tolist():
            self._allocate(dims.tolist())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
