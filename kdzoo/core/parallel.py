"""Data parallelism: rows gathered from all ranks, and methods that replace parameters of their student."""

from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor


def is_distributed() -> bool:
    """Return whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows ``[n, ...]`` of all ranks, in the order of the ranks, without gradient.

    Ranks may have different numbers of rows. Every rank takes a contiguous share of a global batch, so the result is in
    the order of that batch.
    """
    if not is_distributed():
        return rows
    counts = [torch.zeros((), dtype=torch.long, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor(len(rows), device=rows.device))
    sizes = [int(count) for count in counts]
    # all_gather needs equal shapes: shorter shares are padded, and the padding is cut off again.
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(gathered, padded)
    return torch.cat([share[:size] for share, size in zip(gathered, sizes, strict=True)])


def wrap_again(distiller: Any) -> None:
    """Register the new parameters of a distiller in training with data parallelism, and broadcast their values."""
    strategy = distiller.trainer.strategy
    if isinstance(strategy, DDPStrategy):
        strategy.model = distiller
        strategy.configure_ddp()
