"""Larger bonds during training: the function of the chain stays the same, and the state of the optimizer follows.

A bond grows by new entries of its state, the vector that the chain passes on. Nothing flows into them at first: the
weights from old entries to new ones are zero. What they pass on, from bond to bond and to the output, is the start of a
new chain, 1 + noise. So the function does not change at all, and yet the gradient of the zeros is not zero.

Bonds may also grow by decompositions of merged tensors, as in the density-matrix renormalization group (see
:mod:`kdzoo.tensor_networks.two_site`); padding needs none, and every old value keeps its moments in the optimizer.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.tensor_networks.layout import Layout
from kdzoo.tensor_networks.network import check_open, tensor_row


def usable_bonds(wanted: Sequence[int], legs: Sequence[int]) -> list[int]:
    """Return all bonds, from the left end: those of ``wanted``, reduced to what the chain can use.

    A bond cannot carry more than the tensors to its left, or to its right, can distinguish: the product of their legs.

    Args:
        wanted: The wanted size of all bonds, including those at both ends, which are not reduced.
        legs: Dimension of the leg of each tensor between them, one fewer.
    """
    bonds = list(wanted)
    # One pass in each direction is enough: the second one makes bonds smaller only where the first one left them.
    for i in range(1, len(bonds)):
        bonds[i] = min(bonds[i], bonds[i - 1] * legs[i - 1])
    for i in reversed(range(len(legs))):
        bonds[i] = min(bonds[i], bonds[i + 1] * legs[i])
    return bonds


def grown_bonds(sites: Sequence[Tensor], centre: Tensor, out_site: int, bond_dim: int) -> list[int]:
    """Return all bonds, from the left end, with ``bond_dim`` where they are smaller and can use it.

    The output core has a bond on both sides; see :func:`usable_bonds`.
    """
    chain = tensor_row(sites, centre, out_site)
    bonds = [chain[0].shape[0], *(core.shape[2] for core in chain)]
    new_bonds = [bonds[0], *(max(bond, validation.integer("bond_dim", bond_dim)) for bond in bonds[1:-1]), bonds[-1]]
    return [max(pair) for pair in zip(bonds, usable_bonds(new_bonds, [core.shape[1] for core in chain]), strict=True)]


def grow(
    sites: Sequence[Tensor],
    centre: Tensor,
    out_site: int,
    bond_dims: Sequence[int],
    *,
    noise: float = 0.5,
    unit: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Return the same function with larger bonds.

    Args:
        sites: Core ``[left, d, right]`` of every site of an open chain.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        bond_dims: All bonds from the left end, none smaller than now; see :func:`grown_bonds`.
        noise: Standard deviation of the noise in what new entries pass on, >= 0: in units of 1 / sqrt(n_sites * largest
            bond), as of a new chain, and of the root mean square of the output core for that core.
        unit: Weights ``[d]`` or ``[sites, d]`` whose combination of the features is about 1. None: the first feature.
        generator: Source of the noise.

    Returns:
        The cores and the output core.

    Raises:
        ConfigError: A bond would become smaller, there is another number of bonds, or the chain is periodic.
    """
    check_open(sites, centre, out_site, "a growing chain")
    bonds = _checked_growth(sites, centre, out_site, bond_dims)
    d, n = sites[0].shape[1], len(sites)
    units = (torch.eye(d, dtype=centre.dtype)[0] if unit is None else unit.to(centre)).expand(n, d)
    spread = validation.number("noise", noise, least=0.0)

    def padded(core: Tensor, place: int, deviation: float) -> Tensor:
        """Return a core in the corner of a larger one of noise; drawn on the CPU, it is equal on all devices."""
        shape = (bonds[place], core.shape[1], bonds[place + 1])
        return embed(core, deviation * torch.randn(shape, generator=generator, dtype=core.dtype).to(core.device))

    grown = []
    for i, core in enumerate(sites):
        larger = padded(core, i + (i >= out_site), spread / (n * max(bonds)) ** 0.5)
        _start_new_entries(larger, core, units[i], towards_right=i < out_site)
        grown.append(larger)
    # The output core has no identity to start from; its noise is as large as what it has learned.
    scale = float(centre.square().mean()) ** 0.5
    return grown, padded(centre, out_site, spread * scale)


def _checked_growth(sites: Sequence[Tensor], centre: Tensor, out_site: int, bond_dims: Sequence[int]) -> list[int]:
    """Return the new bonds after checking that there is one for each bond and none becomes smaller."""
    chain = tensor_row(sites, centre, out_site)
    bonds = [chain[0].shape[0], *(core.shape[2] for core in chain)]
    new_bonds = list(validation.integers("bond_dims", bond_dims, length=len(bonds)))
    if any(new < old for new, old in zip(new_bonds, bonds, strict=True)) or new_bonds[-1] != 1 or new_bonds[0] != 1:
        raise ConfigError(f"bond_dims must be no smaller than the bonds {bonds}, and 1 at both ends, got {new_bonds}")
    return new_bonds


def _start_new_entries(larger: Tensor, core: Tensor, unit: Tensor, *, towards_right: bool) -> None:
    """Make the new entries of a core a new chain, in place: no old entry reaches them, and they pass on 1 + noise.

    Args:
        larger: Core with larger bonds, noise outside the old block.
        core: The old core.
        unit: Weights ``[d]`` whose combination of the features is about 1.
        towards_right: Whether the output is to the right of the site.
    """
    legs = (0, 1, 2) if towards_right else (2, 1, 0)  # from the outer bond to the inner one
    view, (n_in, _, n_out) = larger.permute(legs), core.permute(legs).shape
    view[:n_in, :, n_out:] = 0  # only the gradient will let old entries reach new ones
    block = view[n_in:, :, n_out:]
    block += unit[:, None] * torch.eye(block.shape[0], block.shape[2]).to(block)[:, None]


def embed_cores(cores: Tensor, old: Layout, new: Layout) -> Tensor:
    """Return the values of one chain, such as moments of its cores, at their places in a larger one; 0 elsewhere."""
    embedded = cores.new_zeros(new.n_cores)
    for side in (0, 1):
        for step in range(len(old.sides[side]) - 1):
            _, n_in, n_out = old.shape(side, step)
            new.core(embedded, side, step)[:, :n_in, :n_out] = old.core(cores, side, step)
    return embedded


def embed(tensor: Tensor, larger: Tensor) -> Tensor:
    """Write a tensor ``[left, leg, right]`` into the corner of one with larger bonds, in place, and return that."""
    larger[: tensor.shape[0], :, : tensor.shape[2]] = tensor
    return larger


def describe_bonds(sites: Sequence[Tensor]) -> str:
    """Return the range and the mean of the bonds between the sites ``[left, d, right]`` of a chain, for a report."""
    bonds = [core.shape[2] for core in sites[:-1]]
    return f"{min(bonds)} to {max(bonds)}, {sum(bonds) / len(bonds):.1f} on average"


def replace_parameter(
    optimizer: torch.optim.Optimizer,
    old: Tensor,
    new: Tensor,
    change: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Let an optimizer continue with a new parameter in the place of an old one.

    Args:
        optimizer: Any optimizer whose state of a parameter consists of numbers and tensors of its shape, like moments.
        old: The parameter that it has; nothing happens if it does not have it.
        new: The parameter in its place.
        change: Maps a state tensor of ``old`` to one of ``new``. None: the state of this parameter is reset.
    """
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    state = optimizer.state.pop(old, None)
    if state and change is not None:
        # what is not of the parameter's shape, such as Adam's step count, stays
        optimizer.state[new] = {
            key: change(value) if isinstance(value, Tensor) and value.shape == old.shape else value
            for key, value in state.items()
        }
