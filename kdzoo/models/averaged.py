"""A network that learns with its present weights and is used with their exponential moving average."""

from typing import Any

from torch import Tensor, nn

from kdzoo.core.weight_average import WeightAverage


class AveragedNetwork(nn.Module):
    """A network in training mode, and the moving average of its weights in eval mode.

    Samples of adversarial and diffusion models change from step to step; those of averaged weights are better and
    change slowly. A frozen teacher is in eval mode, as is an exported student.

    Args:
        network: The network.
        decay: Weight of the old average in each step, in [0, 1); 0 uses the present weights.

    Raises:
        ConfigError: ``decay`` is out of its range.

    References:
        Yazici, Foo, Winkler, Yap, Piliouras, Chandrasekhar: The unusual effectiveness of averaging in GAN training.
        ICLR 2019.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network = network
        self.average = WeightAverage(network, decay)

    def forward(self, *inputs: Any) -> Tensor:
        """Return the output of the network or, in eval mode, of its average."""
        return (self.network if self.training else self.average)(*inputs)
