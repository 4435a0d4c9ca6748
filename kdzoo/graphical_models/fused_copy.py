"""A copy of a teacher whose rollouts cost less: batch norms are fused into convolutions, matrix products use bfloat16.

The teacher's forward pass is 47 to 80 % of a distillation step of the convolutional HVAE on a CPU, so it is the part
worth making cheaper. ``docs/benchmarks.md`` states what each of the two measures saves.
"""

import copy

import torch
from torch import Tensor, nn

from kdzoo.core.abilities import FoldsNorms
from kdzoo.graphical_models.graph import Graph
from kdzoo.graphical_models.nodes import Conditional


class Bfloat16Autocast(nn.Module):
    """A network that runs under bfloat16 autocast and returns the dtype of its first input.

    Args:
        net: Network that is called with one tensor or more.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *values: Tensor) -> Tensor:
        """Return the network's result in the dtype of the first value."""
        first = values[0]
        with torch.autocast(first.device.type, torch.bfloat16):
            return self.net(*values).to(first.dtype)


def fused_copy(teacher: Graph, *, bfloat16: bool) -> Graph:
    """Return a copy in eval mode for rollouts without gradients; the teacher itself does not change.

    Models that implement :class:`kdzoo.core.abilities.FoldsNorms` have their batch norms folded. Noise, values and
    distributions keep their dtype: only the networks of nodes with parents compute in bfloat16.

    Args:
        teacher: The model to copy.
        bfloat16: Whether the networks of the copy run in bfloat16.
    """
    # The first rollout may happen in a validation under inference mode. Tensors created there could not be used in
    # the training step afterwards, and the copy is used for both.
    with torch.inference_mode(False):
        twin: Graph = teacher.fold_norms() if isinstance(teacher, FoldsNorms) else copy.deepcopy(teacher)
    for module in list(twin.modules()) if bfloat16 else []:
        # A network without parents is a constant: there is no matrix product to speed up.
        if isinstance(module, Conditional) and module.net is not None and module.parents:
            module.net = Bfloat16Autocast(module.net)
    return twin.eval()


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16 matrix products, which are slow without them."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # torch.cpu.get_capabilities is newer than the oldest torch that this package supports, and a version comparison
        # would be wrong for nightly builds: this is the one place that asks torch itself.
        get_capabilities = getattr(torch.cpu, "get_capabilities", None)
        capabilities = {} if get_capabilities is None else get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return False
