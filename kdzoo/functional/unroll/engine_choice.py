"""Which engine suits a loss: what the graph of one of its steps keeps, against a budget."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kdzoo.core.validation import integer
from kdzoo.functional.unroll.engines import WAYS, half_root, root
from kdzoo.functional.unroll.inner_loop import Descent, InnerLoss
from kdzoo.functional.unroll.optimizers import Optimizer

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Choice:
    """An engine and one sentence that says why."""

    engine: str
    reason: str


def choose(
    loss: InnerLoss,
    weights: Float[Tensor, "K P"],
    images: Float[Tensor, " M *d"],
    labels: Float[Tensor, "M C"],
    n_steps: int,
    optimizer: Optimizer,
    budget_bytes: int = 1024 * MEBIBYTE,
) -> Choice:
    """Choose the fastest engine whose graphs and states fit into a budget; the leanest if none does.

    One step is taken with its graph, and the memory that the graph keeps is measured. ``jvp`` is never chosen: it is no
    leaner than ``reverse``, and not every operation has a derivative in forward mode.

    Args:
        loss: The inner loss.
        weights: K initialisations of P weights.
        images: Images (M, ...).
        labels: Soft labels (M, C).
        n_steps: The number N of inner steps that are differentiated.
        optimizer: The inner optimiser.
        budget_bytes: What may be kept for the way back.
    """
    n_steps, budget_bytes = integer("n_steps", n_steps), integer("budget_bytes", budget_bytes)
    step, state = kept_by_step(loss, weights, images, labels, optimizer)
    need = {"full": n_steps * step}
    for engine, graphs, states in (("segments", half_root(n_steps), 0), ("reverse", 1, root(n_steps))):
        marks = -(-n_steps // WAYS[engine].stretch(n_steps))
        need[engine] = graphs * step + (marks + states) * state
    engine = next((engine for engine, size in need.items() if size <= budget_bytes), "reverse")
    told = ", ".join(f"{mebibytes(size)} by {name}" for name, size in need.items())
    return Choice(
        engine,
        f"{engine}: the graph of a step keeps {mebibytes(step)} and a state {mebibytes(state)}, so that {n_steps} "
        f"steps keep {told}, of {mebibytes(budget_bytes)} allowed",
    )


def kept_by_step(
    loss: InnerLoss, weights: Tensor, images: Tensor, labels: Tensor, optimizer: Optimizer
) -> tuple[int, int]:
    """Return the bytes that the graph of one step keeps, and those of a state."""
    given = {storage(one) for one in (weights, images, labels)}
    kept: dict[int, Tensor] = {}

    def pack(value: Tensor) -> Tensor:
        kept[storage(value)] = value
        return value

    start = weights.detach().requires_grad_()
    images, labels = (one.detach().requires_grad_() for one in (images, labels))
    with (
        torch.autocast(weights.device.type, enabled=False),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value),
    ):
        state = Descent(loss, optimizer).graph(
            optimizer.start(start), images, labels, weights.new_zeros(1).requires_grad_(), 0
        )
    total = sum(value.untyped_storage().nbytes() for place, value in kept.items() if place not in given)
    return total, sum(part.nbytes for part in state)


def storage(value: Tensor) -> int:
    """Return the address of the memory behind a tensor."""
    return value.untyped_storage().data_ptr()


def mebibytes(size: int | float) -> str:
    """Return a size in MiB, with three digits or whole.

    Example:
        >>> mebibytes(2**30), mebibytes(12345)
        ('1,024 MiB', '0.0118 MiB')
    """
    amount = size / MEBIBYTE
    return f"{amount:,.0f} MiB" if amount >= 100 else f"{amount:.3g} MiB"
