"""The teacher of a synthetic set: a network that is trained on the whole data set."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from kdzoo.dataset_distillation.synthetic_set import validate_inner_networks


class FullDataNetwork(nn.Module):
    """A network of the first inner network's architecture and initial weights, to be trained on the whole data set.

    Its accuracy is the upper reference for the networks of the same architecture that are trained on the set.

    Args:
        inner_network: Inner networks by name, as given to the synthetic set; the first one is used.

    Raises:
        ConfigError: There is no inner network.

    Example:
        >>> import torch
        >>> from kdzoo.dataset_distillation import InnerNetwork
        >>> network = FullDataNetwork(inner_network={"linear": InnerNetwork(nn.Linear(4, 3))})
        >>> network(torch.zeros(2, 4)).shape, sum(p.requires_grad for p in network.parameters())
        (torch.Size([2, 3]), 2)
    """

    def __init__(self, *, inner_network: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        first = next(iter(validate_inner_networks(inner_network).values()))
        self.network = copy.deepcopy(first.model).requires_grad_(True)
        # Drawn from the distribution, not from the pool: the networks of a pool are trained on the data already.
        source = first.initial if first.fixed is None else first
        # strict=False: a state of the inner network holds parameters only, the model may have buffers as well.
        self.network.load_state_dict(first.state(source.sample(1)[0]), strict=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits ``[batch, classes]`` of inputs ``[batch, *in_shape]``."""
        return self.network(input)
