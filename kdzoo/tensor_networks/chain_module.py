"""Modules whose parameters are a chain, and what can be computed from the tensors of such a chain.

:class:`ChainModule` is what distillers, figures and queries ask of a student or teacher; :class:`kdzoo.models.MPS` is
one. How a chain is parametrised and called is up to the subclass. Everything here works on copies of the tensors in
float64 for any dtype of the parameters, because decompositions lose digits, of which float32 has too few.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError, NonFiniteLossError
from kdzoo.tensor_networks.features import FeatureMap, Polynomial, describe_map, equal_maps
from kdzoo.tensor_networks.layout import Layout
from kdzoo.tensor_networks.measure import TensorTrain, check_compatible, inner_product
from kdzoo.tensor_networks.network import as_nodes, canonical_form, check_open, reference_outputs
from kdzoo.tensor_networks.polynomial import to_polynomial
from kdzoo.tensor_networks.truncation import balanced_truncation, state_moments, truncate

METHODS = ("product", "balanced")
GRAM_BATCH = 4096  # samples whose features are held at once: 784 sites with 2 features take 50 MB in float64


class ChainModule(nn.Module, ABC):
    """Base of all modules that hold a chain; a subclass stores the tensors and defines ``forward``.

    This is an abstract class and not a protocol, because parameters and buffers of a module are not found by
    ``isinstance`` with a protocol from Python 3.12 on.

    Attributes:
        n_sites: Number of sites.
        n_outputs: Number of outputs.
        out_site: The output core stands before this site.
        boundary: ``open``, or ``periodic`` if both ends share a bond.
        feature_map: Map from the number (or patch) of a site to its features.
        order: Position in the flat input of each site ``[n_sites]``.
        dims: Dimension of every bond, from the left end ``[n_sites + 2]``.
        cores: All cores in one vector; ``layout`` says where each of them lies.
        centre: Output core ``[left, outputs, right]``.
    """

    n_sites: int
    n_outputs: int
    out_site: int
    boundary: str
    feature_map: FeatureMap
    order: Tensor
    dims: Tensor
    cores: nn.Parameter
    centre: nn.Parameter

    # ---------------------------------------------------------------- what a subclass defines

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """The layout of the cores in the vector ``cores``."""

    @abstractmethod
    def features(self, input: Tensor) -> Tensor:
        """Return the features ``[sites, d, batch]`` of inputs ``[batch, ...]``, in the order of the chain."""

    @abstractmethod
    def load_tensors(self, sites: Sequence[Tensor], centre: Tensor) -> None:
        """Replace all tensors.

        The bonds become those of the new tensors; ``cores`` and ``centre`` are new parameters if a bond changes.

        Args:
            sites: Core ``[left, d, right]`` of every site, from the left end.
            centre: Output core ``[left, outputs, right]``.

        Raises:
            ConfigError: The tensors do not form a chain of this module's sites, features, outputs and boundary.
        """

    def site_grid(self, in_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape ``(channels, height, width)`` of the image that one value per site makes.

        Args:
            in_shape: Shape of one input without the batch.
        """
        return tuple(in_shape)

    # ---------------------------------------------------------------- the tensors

    def chain(self) -> TensorTrain:
        """Return the tensors in float64, from the left end; gradients pass through."""
        plan, n = self.layout, self.n_sites
        places = sorted((offset, side, step) for side in (0, 1) for step, offset in enumerate(plan.cores[side]))
        shapes = [plan.shape(side, step) for _, side, step in places]
        # One split of the vector: a slice for each core would make autograd add a full-size gradient for each of them.
        pieces = self.cores.double().split([prod(shape) for shape in shapes])
        sites = {}
        for (_, side, step), shape, piece in zip(places, shapes, pieces, strict=True):
            core = piece.view(shape)
            sites[n - 1 - step if side else step] = core.permute(2, 0, 1) if side else core.transpose(0, 1)
        return TensorTrain([sites[i] for i in range(n)], self.centre.double(), self.out_site)

    def sites(self) -> list[Tensor]:
        """Return a copy of the core ``[left, d, right]`` of every site, from the left end, in float64."""
        return [core.detach().clone() for core in self.chain().sites]

    def to_tensornetwork(self) -> list[Any]:
        """Return connected nodes of the library ``tensornetwork``, one for each site and one for the output."""
        return as_nodes(*self._tensors())

    # ---------------------------------------------------------------- the chain as a function

    def grams(self, inputs: Tensor, other: "ChainModule | None" = None) -> Tensor:
        """Return the mean products of the features of every site, in float64.

        For a chain they describe completely the product of the marginal distributions of the inputs.

        Args:
            inputs: Samples ``[samples, ...]``.
            other: Another chain with the same order of sites; the products are then those of the features of this chain
                with the features of the other one.

        Returns:
            Gram matrices ``[sites, d, d]``.

        Raises:
            DataError: There are no inputs, one is not finite, or they do not fit the chain.
        """
        _check_inputs(inputs)
        total = torch.zeros((), dtype=torch.float64, device=self.cores.device)
        for batch in inputs.split(GRAM_BATCH):
            phi = self.features(batch.to(self.cores)).double()
            other_phi = phi if other is None else other.features(batch.to(other.cores)).double()
            total = total + phi @ other_phi.mT
        return total / len(inputs)

    def inner(self, other: "ChainModule", inputs: Tensor | None = None) -> Tensor:
        """Return the inner product with another chain, summed over outputs; differentiable in both.

        Args:
            other: A chain with as many outputs and sites, in the same order.
            inputs: Samples ``[samples, ...]``: the inner product is E[f . g] for inputs whose numbers are independent,
                each distributed as here. None: that of the coefficients of products of features, which can be compared
                only if both chains have the same feature map: same class, settings, parameters and buffers.

        Raises:
            ConfigError: The chains do not fit each other, or are periodic.
            DataError: There are no inputs, one is not finite, or they do not fit the chains.
        """
        chain, other_chain = self.chain(), other.chain()
        check_compatible(chain, other_chain)
        if not torch.equal(self.order, other.order):
            raise ConfigError("an inner product needs chains with the same order of sites, got two orders")
        if inputs is not None:
            return inner_product(chain, other_chain, self.grams(inputs, other)).sum()
        if not equal_maps(self.feature_map, other.feature_map):
            raise ConfigError(
                "an inner product without inputs needs chains with the same feature map, equal in settings and values, "
                f"got {describe_map(self.feature_map)} and {describe_map(other.feature_map)}"
            )
        units = torch.eye(self.feature_map.d).to(chain.centre).repeat(self.n_sites, 1, 1)
        return inner_product(chain, other_chain, units).sum()

    def canonicalize(self) -> None:
        """Make every core an isometry towards the output core, in place; the outputs do not change.

        Raises:
            ConfigError: The chain is periodic.
            NonFiniteLossError: A decomposition fails; the chain is unchanged.
        """
        self._replace(*canonical_form(*self._tensors()))

    def truncate(
        self,
        bond_dim: int | None = None,
        max_error: float | None = None,
        inputs: Tensor | None = None,
        *,
        method: str = "product",
    ) -> float:
        """Make the bonds smaller, in place, and return the relative error ||g - f|| / ||f|| of the new function g.

        Use ``product`` with inputs: its error can be limited beforehand, and a few hundred inputs are enough, as it
        depends on their marginal distributions only. ``balanced`` also sees correlations between inputs. It keeps more
        of the function where inputs are almost functions of one another; otherwise it is not better, holds the states
        of all inputs at once, and has no bound for the error on other inputs.

        Args:
            bond_dim: Largest bond, >= 1. None: as large as needed.
            max_error: Largest error, in [0, 1). None: any. ``bond_dim`` takes precedence where it is too small for it.
            inputs: Samples ``[samples, ...]``, such as the training data: the error is the root mean square for inputs
                whose numbers are independent, each distributed as here. None: the error is that of the coefficients of
                products of features, which may cost far more accuracy.
            method: ``product``, or ``balanced``, which needs ``inputs`` and ``bond_dim`` and does not take
                ``max_error``; its error is the one on these inputs.

        Returns:
            The relative error.

        Raises:
            ConfigError: An argument is outside its range, both limits are None, or the chain is periodic.
            DataError: There are no inputs, one is not finite, or they do not fit the chain.
            NonFiniteLossError: A decomposition fails; the chain is unchanged.
        """
        if validation.choice("method", method, METHODS) == "product":
            grams = None if inputs is None else self.grams(inputs)
            sites, centre, error = truncate(*self._tensors(), grams=grams, bond_dim=bond_dim, max_error=max_error)
        elif inputs is None or bond_dim is None or max_error is not None:
            raise ConfigError(
                f"method='balanced' needs inputs and bond_dim, and has no max_error; got bond_dim={bond_dim}, "
                f"max_error={max_error} and {'no ' if inputs is None else ''}inputs"
            )
        else:
            sites, centre, error = self._balanced(inputs, bond_dim)
        self._replace(sites, centre)
        return error

    def _balanced(self, inputs: Tensor, bond_dim: int) -> tuple[list[Tensor], Tensor, float]:
        """Return the tensors of the balanced truncation, and its relative error on the inputs."""
        _check_inputs(inputs)
        chain = self._tensors()
        with torch.no_grad():
            phi = self.features(inputs.to(self.cores)).double()
        sites, centre = balanced_truncation(*chain, *state_moments(*chain, phi), bond_dim)
        outputs = reference_outputs(*chain, phi)
        difference = (reference_outputs(sites, centre, self.out_site, phi) - outputs).norm()
        return sites, centre, float(difference / outputs.norm().clamp_min(torch.finfo(outputs.dtype).tiny))

    def to_polynomial(self) -> dict[tuple[int, ...], Tensor]:
        """Return the chain as a polynomial of its inputs, for a small chain with the features 1, x, ..., x^(d-1).

        Returns:
            Exponents of the numbers of the flat input -> coefficients of all outputs, in float64.

        Raises:
            ConfigError: The feature map is not a ``Polynomial``, the chain is periodic, or it has more than 65,536
                monomials.
        """
        if not isinstance(self.feature_map, Polynomial):
            raise ConfigError(f"to_polynomial needs feature_map='polynomial', got {type(self.feature_map).__name__}")
        chain = self._tensors()
        check_open(*chain, "a polynomial")
        site_of_input = self.order.argsort().tolist()
        return {
            tuple(exponents[site] for site in site_of_input): coefficients
            for exponents, coefficients in to_polynomial(*chain).items()
        }

    def _tensors(self) -> tuple[list[Tensor], Tensor, int]:
        """Return copies of the tensors, without gradients, as the functions of this package take them."""
        return self.sites(), self.centre.detach().double(), self.out_site

    def _replace(self, sites: Sequence[Tensor], centre: Tensor) -> None:
        """Load computed tensors, unless a value is too large for the dtype of the parameters."""
        largest = max(float(tensor.abs().max()) for tensor in (*sites, centre))
        # "not <=" instead of ">": a NaN must be rejected as well
        if not largest <= torch.finfo(self.cores.dtype).max:
            raise NonFiniteLossError(
                f"the chain was not changed: a tensor would hold {largest:.3g}, beyond the largest {self.cores.dtype}"
            )
        self.load_tensors(sites, centre)


def check_open_chain(model: nn.Module, role: str = "student") -> ChainModule:
    """Return the model if it is a chain with open ends.

    Args:
        model: Any module.
        role: What the model is, for the message.

    Raises:
        ConfigError: The model is not a :class:`ChainModule`, or its ends share a bond.
    """
    if not isinstance(model, ChainModule):
        raise ConfigError(f"{role} must be a matrix product state (kdzoo.models.MPS), got {type(model).__name__}")
    if model.boundary != "open":
        raise ConfigError(f"{role} must have boundary='open', got {model.boundary!r}")
    return model


def _check_inputs(inputs: Tensor) -> None:
    """Reject an empty batch, and values that are not finite."""
    if inputs.numel() == 0:
        raise DataError(f"inputs must hold at least one sample, got shape {tuple(inputs.shape)}")
    if not bool(inputs.isfinite().all()):
        raise DataError("inputs must be finite, got NaN or infinite numbers")
