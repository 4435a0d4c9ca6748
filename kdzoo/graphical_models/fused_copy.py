"""A copy of a teacher whose roll-outs cost less: norms inside of the convolutions, products of matrices in bfloat16."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.graphical_models.graph import Graph
from kdzoo.graphical_models.nodes import Conditional


class Bfloat16(nn.Module):
    """A net under bfloat16 autocast, which returns the dtype of its first input.

    Args:
        net: called with one tensor or more.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *values: Tensor) -> Tensor:
        """Return the net's result."""
        first = values[0]
        with torch.autocast(first.device.type, torch.bfloat16):
            return self.net(*values).to(first.dtype)


def faster(teacher: Graph, *, bfloat16: bool) -> Graph:
    """Return a copy in eval mode for roll-outs without gradients; the teacher stays as it is.

    Models that offer ``folded()`` have their norms folded. Noise, values and distributions keep their dtype: only what
    happens inside of the nets of nodes with parents is in bfloat16.

    Args:
        teacher: the model.
        bfloat16: whether its nets run in bfloat16.
    """
    with torch.inference_mode(False):  # the copy outlives a validation, in which new tensors would be of inference
        folded = getattr(teacher, "folded", None)
        twin: Graph = copy.deepcopy(teacher) if folded is None else folded()
    for module in list(twin.modules()) if bfloat16 else []:
        if isinstance(module, Conditional) and module.net is not None and module.parents:
            module.net = Bfloat16(module.net)
    return twin.eval()


def gains_from_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for products of bfloat16 matrices (elsewhere they are slower)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        able: dict[str, Any] = getattr(
            torch.cpu, "get_capabilities", dict
        )()  # younger than the oldest torch that is allowed
        return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    return False
