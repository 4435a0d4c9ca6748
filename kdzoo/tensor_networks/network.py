"""The library ``tensornetwork``: the definition of a chain, its graph, its canonical form and its decompositions.

Nothing here belongs into a training step: a contraction by the library costs about fifty times that of its matrix
product. Decompositions are numpy's, in float64; the library's torch backend calls what torch has deprecated.

The function of a chain of sites A_i and the output core C before site m is, for features phi_i,

    f_o = A_1[phi_1] ... A_m[phi_m]  C_o  A_(m+1)[phi_(m+1)] ... A_n[phi_n],    A[phi] = sum_k phi_k A_k.

Its tensors in a row are the chain of n + 1 tensors that canonical forms and spectra are about; the output core is one
of them.

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
    """Return the library, which takes most of a second to load and is not always needed."""
    import tensornetwork

    return tensornetwork


# ---------------------------------------------------------------- the definition


def reference_outputs(sites: Sequence[Tensor], centre: Tensor, out_site: int, phi: Tensor) -> Tensor:
    """Return the outputs ``[samples, outputs]`` of a chain, by its definition; differentiable, of any dtype, and slow.

    Args:
        sites: Cores ``[left, d, right]`` in the chain's order, of an open or a periodic chain.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        phi: Features ``[sites, d, samples]`` in the chain's order.
    """
    ncon, ends = _library().ncon, torch.ones_like(phi[0, 0])
    joined = torch.eye(tensor_row(sites, centre, out_site)[0].shape[0], dtype=phi.dtype, device=phi.device)
    left = right = ends[:, None, None] * joined  # [samples, bond that joins the ends, current bond]
    for core, numbers in zip(sites[:out_site], phi[:out_site], strict=True):
        left = ncon([left, numbers, core], [[-1, -2, 1], [2, -1], [1, 2, -3]], backend="pytorch")
    for core, numbers in zip(reversed(sites[out_site:]), phi[out_site:].flip(0), strict=True):
        right = ncon([right, numbers, core], [[-1, -2, 1], [2, -1], [-3, 2, 1]], backend="pytorch")
    outputs: Tensor = ncon([left, centre, right], [[-1, 1, 2], [2, -2, 3], [-1, 1, 3]], backend="pytorch")
    return outputs


def as_nodes(sites: Sequence[Tensor], centre: Tensor, out_site: int) -> list[Any]:
    """Return the chain as connected nodes of the library, for drawing and for its contractors.

    The nodes ``site 0``, ... and ``output`` are in the chain's order; their edges ``feature`` and ``output`` dangle.
    The ends of an open chain have no outer edge, those of a periodic one share theirs.
    """
    tensors = tensor_row(sites, centre, out_site)
    names = [f"site {i}" for i in range(len(sites))]
    names.insert(out_site, "output")
    made, closed = [], tensors[0].shape[0] > 1
    for i, (name, tensor) in enumerate(zip(names, tensors, strict=True)):
        axes = ["left", "output" if name == "output" else "feature", "right"]
        if i == 0 and not closed:
            tensor, axes = tensor[0], axes[1:]
        elif i == len(sites) and not closed:
            tensor, axes = tensor[..., 0], axes[:-1]
        made.append(_library().Node(tensor, name=name, axis_names=axes, backend="pytorch"))
    for one, other in pairwise(made):
        one["right"] ^ other["left"]
    if closed:
        made[-1]["right"] ^ made[0]["left"]
    return made


# ---------------------------------------------------------------- canonical form


def canonical_form(sites: Sequence[Tensor], centre: Tensor, out_site: int) -> tuple[list[Tensor], Tensor]:
    """Return the same function with every site an isometry towards the output core, which holds the norm.

    With the bonds left and right of a core, sum_k A_k' A_k = 1 to the left of the output and sum_k A_k A_k' = 1 to its
    right. Bonds become smaller where the tensors beside them cannot use their dimension.

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
        chain.center_position = 0  # of no meaning yet; the sweep to the right end makes every core an isometry
        chain.position(len(sites), normalize=False)
        chain.position(out_site, normalize=False)
        if not all(np.isfinite(tensor).all() for tensor in chain.tensors):
            raise np.linalg.LinAlgError("it is not finite")
    found = [torch.from_numpy(tensor).to(centre) for tensor in chain.tensors]
    middle = found.pop(out_site)
    return found, middle


def spectra(sites: Sequence[Tensor], centre: Tensor, out_site: int) -> list[Tensor]:
    """Return the singular values of every bond, in the chain's order; one list of each bond between two tensors.

    Bond b is between tensors b and b + 1 of the row in which the output core is tensor ``out_site``; the output belongs
    to the side where its core is. The squares of each sum to the squared norm of the chain's coefficients.

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
        turn, _, values, _ = split_svd(current, legs=1)
        left.append(values)
        current = core @ (turn * values)
    right: list[Tensor] = []
    current = centre
    for core in sites[out_site:]:
        _, turn, values, _ = split_svd(current, legs=2)
        right.append(values)
        current = torch.tensordot(values[:, None] * turn, core, 1)
    return left[::-1] + right


def split_svd(
    tensor: Tensor, max_bond: int | None = None, max_error: float | None = None, *, legs: int = 2
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Divide a merged tensor by its singular value decomposition.

    Args:
        tensor: ``[left, a, b, right]``, two merged cores, or any other with more legs than ``legs``.
        max_bond: Most singular values to keep, >= 1; None for all. It counts more than ``max_error``.
        max_error: Norm of what is cut, relative to that of the tensor, in [0, 1).
        legs: Number of legs that the left part has, without the new bond.

    Returns:
        The left isometry ``[left, a, bond]``, the right isometry ``[bond, b, right]``, the singular values ``[bond]``, at least
        one, and the discarded weight: the sum of the squares of those that were cut.

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
            max_singular_values=max_bond if size else 1,
            max_truncation_err=max_error if size else None,
        )
        kept = np.diag(values.tensor).copy()
        if not np.isfinite(kept).all():
            raise np.linalg.LinAlgError("its singular values are not finite")
    parts = [torch.from_numpy(part).to(tensor) for part in (left.tensor, right.tensor, kept)]
    return parts[0], parts[1], parts[2], float(np.square(cut).sum())


# ---------------------------------------------------------------- helpers


def tensor_row(sites: Sequence[Tensor], centre: Tensor, out_site: int) -> list[Tensor]:
    """Return all tensors of a chain from left to right, the output core among them."""
    return [*sites[:out_site], centre, *sites[out_site:]]


def check_open(sites: Sequence[Tensor], centre: Tensor, out_site: int, what: str) -> None:
    """Refuse a chain whose ends share a bond.

    Raises:
        ConfigError: They do.
    """
    joined = tensor_row(sites, centre, out_site)[0].shape[0]
    if joined != 1:
        raise ConfigError(f"{what} needs boundary='open', got ends that share a bond of dimension {joined}")


def _numpy(tensor: Tensor) -> Any:
    """Return a copy in float64."""
    return tensor.detach().to("cpu", torch.float64, copy=True).numpy()


@contextmanager
def _decomposed(what: str) -> Iterator[None]:
    """Turn numpy's error, and its warnings about overflow, into one line."""
    try:
        with np.errstate(all="ignore"):
            yield
    except np.linalg.LinAlgError as error:
        raise NonFiniteLossError(f"the {what} of a chain failed, and nothing was changed: {error}") from error
