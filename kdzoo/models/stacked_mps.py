"""Two matrix product states, one after the other: the first makes several numbers of each input, the second reads them.

A single one with the features [1, x] is multilinear and cannot square an input. The first of two can copy each input z
times; the second, multilinear in the copies, can then express every polynomial of degree <= z in each input (Piché
2023, section 5.2; see :mod:`kdzoo.tensor_networks.polynomial`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError, DataError
from kdzoo.models.mps import MPS
from kdzoo.tensor_networks.orders import IMAGE_ORDERS, site_order
from kdzoo.tensor_networks.polynomial import Coefficients, compose, polynomial_layer

# Largest number of parameters of the output core of the first layer: 256 MB in float32. It grows with the square of
# hidden_bond_dim and with all copies, so that a mistake would otherwise end in an exhausted memory.
MAX_NUMBERS = 2**26


class StackedMPS(nn.Module):
    """Two matrix product states with the features [1, x]: from n inputs to ``copies`` numbers of each, to the classes.

    The numbers between the layers are copies of the inputs plus the outputs of ``first``, a chain with n * copies
    outputs that starts small, so that training starts near the copies. (The sum is equal to one chain with bonds larger
    by about n / 2, but copying needs no multiplications.) Parameters of the two layers, and multiplications for each
    input:

        first   (2 + copies) n hidden_bond_dim^2
        second  (2 n copies + num_classes) bond_dim^2

    Modules to hook: ``first`` gives what is added to the copies ``[batch, n * copies]``, ``copied`` the numbers between
    the layers, ``second`` the logits.

    Args:
        in_shape: Shape of one input without the batch, such as (1, 8, 8) or (64,).
        num_classes: Number of logits, >= 1.
        copies: Numbers that the second layer gets for each input, >= 1.
        bond_dim: Bond dimension of the second layer, >= 1, or that of every bond.
        hidden_bond_dim: The same of the first layer.
        order: ``raster``, ``snake`` or ``hilbert``, of both layers.
        noise: Standard deviation of the initial noise, as for :class:`MPS`.
        engine: As for :class:`MPS`.

    Raises:
        ConfigError: An argument is outside its range, or the output core of the first layer would have more than
            67,108,864 numbers.

    Example:
        >>> model = StackedMPS(in_shape=(1, 8, 8), num_classes=10)
        >>> model(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])

    References:
        Piché: Neural network knowledge distillation in tensor networks. 2023, section 5.2.
    """

    order: Tensor

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        num_classes: int,
        copies: int = 2,
        bond_dim: int | Sequence[int] = 8,
        hidden_bond_dim: int | Sequence[int] = 4,
        order: str = "snake",
        noise: float = 0.5,
        engine: str = "auto",
    ) -> None:
        super().__init__()
        positions = site_order(
            validation.choice("order", order, IMAGE_ORDERS), validation.integers("in_shape", in_shape)
        )
        n, self.copies = len(positions), validation.integer("copies", copies)
        largest = hidden_bond_dim if isinstance(hidden_bond_dim, int) else max(hidden_bond_dim)
        if largest**2 * n * self.copies > MAX_NUMBERS:
            raise ConfigError(
                f"copies={copies} of {n} inputs with hidden_bond_dim={largest} need an output core of "
                f"{largest**2 * n * self.copies} numbers; allowed are {MAX_NUMBERS}"
            )
        options: dict[str, Any] = {"noise": noise, "engine": engine}
        self.register_buffer("order", positions)
        self.first = MPS(n, n * self.copies, hidden_bond_dim, **options)
        self.copied = nn.Identity()
        self.second = MPS(n * self.copies, validation.integer("num_classes", num_classes), bond_dim, **options)
        with torch.no_grad():  # what n sites add to a copy is then about as large as the noise of one core
            self.first.centre.mul_(noise / n**0.5)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits ``[batch, num_classes]`` of inputs ``[batch, *in_shape]``."""
        x = input.flatten(1)
        if x.shape[1] != len(self.order):
            raise DataError(f"the chain has {len(self.order)} inputs, got inputs of {x.shape[1]} numbers")
        x = x[:, self.order]
        return self.second(self.copied(x.repeat_interleave(self.copies, 1) + self.first(x)))

    @property
    def learned_sizes(self) -> dict[str, Any]:
        """Constructor arguments that build layers with these bonds."""
        return {"bond_dim": self.second.dims.tolist(), "hidden_bond_dim": self.first.dims.tolist()}

    def to_polynomial(self) -> dict[tuple[int, ...], Tensor]:
        """Return exponents of the flat input's numbers -> coefficients of all classes, of a small stack, in float64.

        Raises:
            ConfigError: There might be more than 65,536 monomials. If every number between the layers depends on every
                input, an input's exponents go up to the number n * copies of all of them: (1 + n * copies)^n monomials.
        """
        n, first_polynomial = len(self.order), self.first.to_polynomial()
        numbers: list[dict[tuple[int, ...], float]] = []
        for k in range(n * self.copies):
            copied = tuple(int(i == k // self.copies) for i in range(n))
            number = {exponents: float(value[k]) for exponents, value in first_polynomial.items()}
            number[copied] = number.get(copied, 0.0) + 1.0
            numbers.append({exponents: value for exponents, value in number.items() if value})
        second = self.second
        polynomial = compose(second.sites(), second.centre.detach().double(), second.out_site, numbers, n)
        site_of_input = self.order.argsort().tolist()
        return {tuple(exponents[site] for site in site_of_input): value for exponents, value in polynomial.items()}

    @classmethod
    def from_polynomial(cls, coefficients: Coefficients, **options: Any) -> "StackedMPS":
        """Return a model that computes a polynomial, exactly if inputs and coefficients are whole numbers, in float64.

        Args:
            coefficients: Exponents of the inputs -> coefficient, or those of all outputs; at least one monomial.
            **options: Options of the class, except those that follow from the polynomial.

        Raises:
            ConfigError: The coefficients are not valid; see :func:`kdzoo.tensor_networks.polynomial.polynomial_layer`.

        Example:
            >>> model = StackedMPS.from_polynomial({(2, 0): 1.0, (1, 1): -3.0})
            >>> model(torch.tensor([[5.0, 2.0]], dtype=torch.float64)).item()
            -5.0
        """
        n = len(next(iter(coefficients), ()))
        copies = max((exponent for exponents in coefficients for exponent in exponents), default=1) or 1
        sites, centre, _ = polynomial_layer(coefficients, n, copies)
        settings = {"bond_dim": 1, "hidden_bond_dim": 1, **options, "copies": copies, "order": "raster"}
        model = cls(in_shape=(n,), num_classes=centre.shape[1], **settings).double()
        with torch.no_grad():
            model.first.centre.zero_()
        model.second.load_tensors(sites, centre)
        return model
