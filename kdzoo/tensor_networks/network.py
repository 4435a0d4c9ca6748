"""What the library ``tensornetwork`` is used for: definition, graph, canonical form and decompositions of a chain.

Nothing here belongs in a training step: a contraction by the library takes about fifty times as long as its matrix
product. Decompositions are those of numpy, in float64, because the torch backend of the library calls functions that
torch has deprecated.

The function of a chain of sites A_i and the output core C before site m is, for features phi_i,

    f_o = A_1[phi_1] ... A_m[phi_m]  C_o  A_(m+1)[phi_(m+1)] ... A_n[phi_n],    A[phi] = sum_k phi_k A_k.

Canonical forms and spectra are about the row of all n + 1 tensors; the output core is one of them.

References:
    Roberts et al.: TensorNetwork: a library for physics and machine learning. arXiv:1905.01330.
    Schollwoeck: The density-matrix renormalization group in the age of matrix product states. Ann. Phys. 326, 2011,
    sections 4.1 and 4.4.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.errors import ConfigError, NonFiniteLossError


@cache
def _library() -> Any:
    """Return the library, imported on first use because that takes most of a second."""
    import tensornetwork

    return tensornetwork


# ---------------------------------------------------------------- the definition


def reference_outputs(sites: Sequence[Tensor], centre: Tensor, out_site: int, phi: Tensor) -> Tensor:
    """Return the outputs ``[samples, outputs]`` of a chain by its definition: differentiable, for any dtype, and slow.

    Args:
        sites: Cores ``[left, d, right]`` in the chain's order, of an open or a periodic chain.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        phi: Features ``[sites, d, samples]`` in the chain's order.
    """
    # Two or three tensors at a time: path finders of the library explode on chains with an index for the samples.
    ncon, ends = _library().ncon, torch.ones_like(phi[0, 0])
    boundary = torch.eye(tensor_row(sites, centre, out_site)[0].shape[0], dtype=phi.dtype, device=phi.device)
    left = right = ends[:, None, None] * boundary  # [samples, bond that joins the ends, current bond]
    for core, numbers in zip(sites[:out_site], phi[:out_site], strict=True):
        left = ncon([left, numbers, core], [[-1, -2, 1], [2, -1], [1, 2, -3]], backend="pytorch")
    for core, numbers in zip(reversed(sites[out_site:]), phi[out_site:].flip(0), strict=True):
        right = ncon([right, numbers, core], [[-1, -2, 1], [2, -1], [-3, 2, 1]], backend="pytorch")
    outputs: Tensor = ncon([left, centre, right], [[-1, 1, 2], [2, -2, 3], [-1, 1, 3]], backend="pytorch")
    return outputs


def as_nodes(sites: Sequence[Tensor], centre: Tensor, out_site: int) -> list[Any]:
    """Return the chain as connected nodes of the library, for drawing and for its contractors.

    The nodes ``site 0``, ... and ``output`` are in the order of the chain; their edges ``feature`` and ``output`` are
    dangling. The ends of an open chain have no outer edge, those of a periodic one share theirs.
    """
    tensors = tensor_row(sites, centre, out_site)
    names = [f"site {i}" for i in range(len(sites))]
    names.insert(out_site, "output")
    nodes, is_periodic = [], tensors[0].shape[0] > 1
    for i, (name, tensor) in enumerate(zip(names, tensors, strict=True)):
        axes = ["left", "output" if name == "output" else "feature", "right"]
        if i == 0 and not is_periodic:
            tensor, axes = tensor[0], axes[1:]
        elif i == len(sites) and not is_periodic:
            tensor, axes = tensor[..., 0], axes[:-1]
        nodes.append(_library().Node(tensor, name=name, axis_names=axes, backend="pytorch"))
    for node, following in pairwise(nodes):
        node["right"] ^ following["left"]  # connects the edges
    if is_periodic:
        nodes[-1]["right"] ^ nodes[0]["left"]
    return nodes


# ---------------------------------------------------------------- canonical form


def canonical_form(sites: Sequence[Tensor], centre: Tensor, out_site: int) -> tuple[list[Tensor], Tensor]:
    """Return the same function with every site an isometry towards the output core, which holds the norm.

    To the left of the output sum_k A_k' A_k = 1, to its right sum_k A_k A_k' = 1. Bonds become smaller where the
    tensors next to them cannot use their dimension.

    Args:
        sites: Core ``[left, d, right]`` of every site of an open chain, float64.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.

    Raises:
        ConfigError: The chain is periodic.
        NonFiniteLossError: A decomposition fails or overflows.
    """
    check_open(sites, centre, out_site, "a canonical form")
    with _decomposed("canonical form"):
        chain = _library().FiniteMPS(
            [_numpy(tensor) for tensor in tensor_row(sites, centre, out_site)], canonicalize=False, backend="numpy"
        )
        chain.center_position = 0  # arbitrary: the sweep to the right end makes every core an isometry
        chain.position(len(sites), normalize=False)
        chain.position(out_site, normalize=False)
        if not all(np.isfinite(tensor).all() for tensor in chain.tensors):
            raise np.linalg.LinAlgError("it is not finite")
    tensors = [torch.from_numpy(tensor).to(centre) for tensor in chain.tensors]
    middle = tensors.pop(out_site)
    return tensors, middle


def spectra(sites: Sequence[Tensor], centre: Tensor, out_site: int) -> list[Tensor]:
    """Return the singular values of every bond, from the left end.

    Bond b is between tensors b and b + 1 of the row in which the output core is tensor ``out_site``; the index of the
    output belongs to the side of its core. The squares of each bond sum to the squared norm of the coefficients.

    Args:
        sites: Core ``[left, d, right]`` of every site of an open chain, float64.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.

    Raises:
        ConfigError: The chain is periodic.
        NonFiniteLossError: A decomposition fails or overflows.
    """
    sites, centre = canonical_form(sites, centre, out_site)
    left: list[Tensor] = []
    current = centre
    for core in reversed(sites[:out_site]):
        vectors, _, values, _ = split_svd(current, legs=1)
        left.append(values)
        current = core @ (vectors * values)
    right: list[Tensor] = []
    current = centre
    for core in sites[out_site:]:
        _, vectors, values, _ = split_svd(current, legs=2)
        right.append(values)
        current = torch.tensordot(values[:, None] * vectors, core, 1)
    return left[::-1] + right


def split_svd(
    tensor: Tensor, max_bond: int | None = None, max_error: float | None = None, *, legs: int = 2
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Split a merged tensor by a singular value decomposition.

    Args:
        tensor: Two merged cores ``[left, a, b, right]``, or any tensor with more legs than ``legs``.
        max_bond: Most singular values to keep, >= 1. None: all. It takes precedence over ``max_error``.
        max_error: Norm of what is cut, relative to that of the tensor, in [0, 1).
        legs: Number of legs that the left part has, without the new bond.

    Returns:
        The left isometry ``[left, a, bond]``, the right isometry ``[bond, b, right]``, the singular values ``[bond]``,
        at least one, and the discarded weight: the sum of the squares of those that were cut.

    Raises:
        ConfigError: An argument is outside its range.
        NonFiniteLossError: The decomposition fails.
    """
    if max_bond is not None:
        validation.integer("max_bond", max_bond)
    size = float(tensor.norm())
    if max_error is not None:
        max_error = validation.probability("max_error", max_error) * size
    with _decomposed("singular value decomposition"):
        node = _library().Node(_numpy(tensor), backend="numpy")
        left, values, right, cut = _library().split_node_full_svd(
            node,
            node.edges[:legs],
            node.edges[legs:],
            max_singular_values=max_bond if size else 1,  # of a tensor of zeros the library would keep all
            max_truncation_err=max_error if size else None,
        )
        singular_values = np.diag(values.tensor).copy()
        if not np.isfinite(singular_values).all():
            raise np.linalg.LinAlgError("its singular values are not finite")
    parts = [torch.from_numpy(part).to(tensor) for part in (left.tensor, right.tensor, singular_values)]
    return parts[0], parts[1], parts[2], float(np.square(cut).sum())


# ---------------------------------------------------------------- helpers


def tensor_row(sites: Sequence[Tensor], centre: Tensor, out_site: int) -> list[Tensor]:
    """Return all tensors of a chain from left to right, including the output core."""
    return [*sites[:out_site], centre, *sites[out_site:]]


def check_open(sites: Sequence[Tensor], centre: Tensor, out_site: int, what: str) -> None:
    """Check that the ends of a chain do not share a bond.

    Args:
        sites: Core ``[left, d, right]`` of every site.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        what: What needs an open chain, for the message.

    Raises:
        ConfigError: They share a bond.
    """
    end_bond = tensor_row(sites, centre, out_site)[0].shape[0]
    if end_bond != 1:
        raise ConfigError(f"{what} needs boundary='open', got ends that share a bond of dimension {end_bond}")


def _numpy(tensor: Tensor) -> Any:
    """Return a copy in float64."""
    return tensor.detach().to("cpu", torch.float64, copy=True).numpy()


@contextmanager
def _decomposed(what: str) -> Iterator[None]:
    """Turn an error of numpy, and its warnings about overflow, into a NonFiniteLossError."""
    try:
        with np.errstate(all="ignore"):
            yield
    except np.linalg.LinAlgError as error:
        raise NonFiniteLossError(f"the {what} of a chain failed, and nothing was changed: {error}") from error
