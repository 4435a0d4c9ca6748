"""Larger bonds during a training: the chain's function stays what it is, and the optimizer's state follows.

A bond grows by new entries in its state, the vector that the chain passes on. Nothing flows into them at first: the
weights from old entries to new ones are zero. What they pass on, from bond to bond and to the output, is the start of a
new chain, 1 + noise. So the function does not change at all, and yet the gradient of the zeros is not zero.

Bonds may also grow by decompositions of merged tensors, as in the density-matrix renormalization group; padding needs
none, and leaves every old number where an optimizer has its moments of it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.tensor_networks.layout import Layout
from kdzoo.tensor_networks.network import check_open, tensor_row


def usable_bonds(wanted: Sequence[int], legs: Sequence[int]) -> list[int]:
    """Return all bonds, from the left end, as they are wanted or as large as the chain can use, if that is less.

    A bond can use what the tensors to its left, or to its right, could be told apart by: no more than the product of
    their legs.

    Args:
        wanted: all bonds, those at both ends included; the outer ones stay.
        legs: dimensions of the legs between them, one fewer.
    """
    found = list(wanted)
    for i in range(1, len(found)):
        found[i] = min(found[i], found[i - 1] * legs[i - 1])
    for i in reversed(range(len(legs))):
        found[i] = min(found[i], found[i + 1] * legs[i])
    return found


def grown_bonds(sites: Sequence[Tensor], centre: Tensor, out_site: int, bond_dim: int) -> list[int]:
    """Return all bonds, from the left end, with ``bond_dim`` where they are smaller and could use it.

    The output core has a bond on both sides; see :func:`usable_bonds`.
    """
    chain = tensor_row(sites, centre, out_site)
    bonds = [chain[0].shape[0], *(core.shape[2] for core in chain)]
    wanted = [bonds[0], *(max(bond, validation.integer("bond_dim", bond_dim)) for bond in bonds[1:-1]), bonds[-1]]
    return [max(pair) for pair in zip(bonds, usable_bonds(wanted, [core.shape[1] for core in chain]), strict=True)]


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
        sites: cores (n_left, d, n_right) of an open chain.
        centre: output core (left, outputs, right).
        out_site: the output core is before this site.
        bond_dims: all bonds from the left end, none smaller than now; see :func:`roomy_bonds`.
        noise: deviation of the noise in what new entries pass on, >= 0: in units of 1 / sqrt(n_sites * largest bond),
            and of the root mean square of the output core for that core.
        unit: weights (d) or (sites, d) whose combination of the features is about 1; None: the first feature.
        generator: source of the noise.

    Raises:
        ConfigError: a bond would become smaller, there is another number of bonds, or the chain is periodic.
    """
    check_open(sites, centre, out_site, "a growing chain")
    chain = tensor_row(sites, centre, out_site)
    bonds = [chain[0].shape[0], *(core.shape[2] for core in chain)]
    wanted = list(validation.integers("bond_dims", bond_dims, length=len(bonds)))
    if any(new < old for new, old in zip(wanted, bonds, strict=True)) or wanted[-1] != 1 or wanted[0] != 1:
        raise ConfigError(f"bond_dims must be no smaller than the bonds {bonds}, and 1 at both ends, got {wanted}")
    d, n = sites[0].shape[1], len(sites)
    first = torch.eye(d, dtype=centre.dtype)[0] if unit is None else unit.to(centre)
    units = first.expand(n, d)
    spread = validation.number("noise", noise, least=0.0)

    def padded(core: Tensor, place: int, deviation: float) -> Tensor:
        shape = (wanted[place], core.shape[1], wanted[place + 1])
        return embed(core, deviation * torch.randn(shape, generator=generator, dtype=core.dtype).to(core.device))

    with_learned_sizes = []
    for i, core in enumerate(sites):
        new = padded(core, i + (i >= out_site), spread / (n * max(wanted)) ** 0.5)
        legs = (0, 1, 2) if i < out_site else (2, 1, 0)  # from the outer bond to the inner one
        view, (into, _, out) = new.permute(legs), core.permute(legs).shape
        view[:into, :, out:] = 0
        block = view[into:, :, out:]
        block += units[i][:, None] * torch.eye(block.shape[0], block.shape[2]).to(block)[:, None]
        with_learned_sizes.append(new)
    scale = float(centre.square().mean()) ** 0.5
    return with_learned_sizes, padded(centre, out_site, spread * scale)


def embed_cores(cores: Tensor, old: Layout, new: Layout) -> Tensor:
    """Return the numbers of one chain, such as moments of its cores, where they lie in a larger one; 0 elsewhere."""
    found = cores.new_zeros(new.n_cores)
    for side in (0, 1):
        for step in range(len(old.sides[side]) - 1):
            _, n_in, n_out = old.shape(side, step)
            new.core(found, side, step)[:, :n_in, :n_out] = old.core(cores, side, step)
    return found


def embed(tensor: Tensor, larger: Tensor) -> Tensor:
    """Write a tensor (left, leg, right) where it lies in one with larger bonds, in place, and return that."""
    larger[: tensor.shape[0], :, : tensor.shape[2]] = tensor
    return larger


def describe_bonds(sites: Sequence[Tensor]) -> str:
    """Return the range and the mean of the bonds between the sites (n_left, d, n_right) of a chain."""
    bonds = [core.shape[2] for core in sites[:-1]]
    return f"{min(bonds)} to {max(bonds)}, {sum(bonds) / len(bonds):.1f} on average"


def replace_parameter(
    optimizer: torch.optim.Optimizer,
    old: Tensor,
    new: Tensor,
    change: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Let an optimizer go on with a new parameter in the place of an old one.

    Args:
        optimizer: any whose state of a parameter is tensors of its shape, such as moments, and numbers.
        old: the parameter that it has; nothing happens if it has not.
        new: the one in its place.
        change: makes a state for ``new`` of one for ``old``; None: the state of this parameter starts anew.
    """
    for group in optimizer.param_groups:
        group["params"] = [new if one is old else one for one in group["params"]]
    state = optimizer.state.pop(old, None)
    if state and change is not None:
        optimizer.state[new] = {
            key: change(value) if isinstance(value, Tensor) and value.shape == old.shape else value
            for key, value in state.items()
        }
