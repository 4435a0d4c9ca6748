"""Choice of the engine for an inner loss: the measured memory of one step against a budget."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.core.validation import integer
from kdzoo.functional.unroll.engines import CHECKPOINTING, ceil_sqrt, half_ceil_sqrt
from kdzoo.functional.unroll.inner_loop import InnerLoop, InnerLoss
from kdzoo.functional.unroll.optimizers import Optimizer

MEBIBYTE = 2**20


@dataclass(frozen=True)
class EngineChoice:
    """An engine and one sentence that says why it was chosen.

    Attributes:
        engine: Name of the engine.
        reason: The sentence, with the measured sizes.
    """

    engine: str
    reason: str


def choose_engine(
    loss: InnerLoss,
    weights: Float[Tensor, "K P"],
    images: Float[Tensor, " M *d"],
    labels: Float[Tensor, "M C"],
    n_steps: int,
    optimizer: Optimizer,
    budget_bytes: int = 1024 * MEBIBYTE,
) -> EngineChoice:
    """Choose the fastest engine whose graphs and states fit into a budget, or the one with least memory if none does.

    One step is taken with its graph, and the memory that the graph keeps is measured. ``jvp`` is never chosen: it
    needs no less memory than ``reverse``, and not every operation has a derivative in forward mode.

    Args:
        loss: The inner loss.
        weights: Initial weights of K networks with P weights each.
        images: Images ``[M, ...]``.
        labels: Soft labels ``[M, C]``.
        n_steps: Number of inner steps that are differentiated, >= 1.
        optimizer: The inner optimizer.
        budget_bytes: Memory that may be kept for the backward pass, in bytes, >= 1.

    Raises:
        ConfigError: If an argument is outside its range.
    """
    n_steps, budget_bytes = integer("n_steps", n_steps), integer("budget_bytes", budget_bytes)
    graph_bytes, state_bytes = step_memory(loss, weights, images, labels, optimizer)
    # From fastest to slowest: the gradient of a step is computed once by ``full``, at most twice by ``segments``,
    # and up to three times by ``reverse``, which repeats the steps without a graph before it goes back through each.
    needed = {"full": n_steps * graph_bytes}
    for engine, graphs, states in (("segments", half_ceil_sqrt(n_steps), 0), ("reverse", 1, ceil_sqrt(n_steps))):
        checkpoints = -(-n_steps // CHECKPOINTING[engine].segment_length(n_steps))
        needed[engine] = graphs * graph_bytes + (checkpoints + states) * state_bytes
    engine = next((engine for engine, size in needed.items() if size <= budget_bytes), "reverse")
    sizes = ", ".join(f"{format_mebibytes(size)} by {name}" for name, size in needed.items())
    return EngineChoice(
        engine,
        f"{engine}: the graph of a step keeps {format_mebibytes(graph_bytes)} and a state "
        f"{format_mebibytes(state_bytes)}, so that {n_steps} steps keep {sizes}, "
        f"of {format_mebibytes(budget_bytes)} allowed",
    )


def step_memory(
    loss: InnerLoss, weights: Tensor, images: Tensor, labels: Tensor, optimizer: Optimizer
) -> tuple[int, int]:
    """Return the bytes that the graph of one step keeps, and the bytes of a state.

    Args:
        loss: The inner loss.
        weights: Initial weights ``[K, P]``.
        images: Images ``[M, ...]``.
        labels: Soft labels ``[M, C]``.
        optimizer: The inner optimizer.
    """
    # The arguments exist anyway, and several saved tensors may be views of one storage: each counts once.
    arguments = {storage_address(tensor) for tensor in (weights, images, labels)}
    saved: dict[int, Tensor] = {}

    def pack(value: Tensor) -> Tensor:
        saved[storage_address(value)] = value
        return value

    initial = weights.detach().requires_grad_()
    images, labels = (tensor.detach().requires_grad_() for tensor in (images, labels))
    with (
        torch.autocast(weights.device.type, enabled=False),  # as in ``unroll``
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value),
    ):
        # A step of size 0 has the graph of any other step, and cannot diverge.
        no_step = weights.new_zeros(1).requires_grad_()
        state = InnerLoop(loss, optimizer).steps_with_graph(
            optimizer.init_state(initial), images, labels, no_step, first=0
        )
    graph_bytes = sum(value.untyped_storage().nbytes() for address, value in saved.items() if address not in arguments)
    return graph_bytes, sum(tensor.nbytes for tensor in state)


def storage_address(value: Tensor) -> int:
    """Return the address of the memory behind a tensor."""
    return value.untyped_storage().data_ptr()


def format_mebibytes(size: int | float) -> str:
    """Return a size in bytes as MiB, with three significant digits or as a whole number.

    Example:
        >>> format_mebibytes(2**30), format_mebibytes(12345)
        ('1,024 MiB', '0.0118 MiB')
    """
    mebibytes = size / MEBIBYTE
    return f"{mebibytes:,.0f} MiB" if mebibytes >= 100 else f"{mebibytes:.3g} MiB"
