"""Spectral normalisation of a layer: its weight is divided by an estimate of its largest singular value.

torch's ``spectral_norm`` iterates whenever the layer is called in training mode, so that its state would depend on the
number of micro-batches. Here one iteration follows each optimizer step (:mod:`kdzoo.core.step_state`).
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

# The singular vectors have to be right from the first step on; later one iteration a step follows the weights.
FIRST_ITERATIONS = 15


class SpectralNorm(nn.Module):
    """A linear or convolutional layer whose weight, as a matrix ``[out, in * ...]``, has about the spectral norm 1.

    Args:
        layer: The layer, which has a ``weight``.

    Attributes:
        left: Estimate of the first left singular vector, ``[out]``.
        right: Estimate of the first right singular vector, ``[in * ...]``.

    Example:
        >>> layer = SpectralNorm(nn.Linear(3, 2, bias=False))
        >>> bool(layer(torch.ones(1, 3)).norm() <= 3**0.5 * 1.01)
        True

    References:
        Miyato, Kataoka, Koyama, Yoshida: Spectral normalization for generative adversarial networks. ICLR 2018,
        algorithm 1.
    """

    left: Tensor
    right: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer
        matrix = layer.weight.detach().flatten(1)
        # The start must not be orthogonal to the singular vector; a generator of its own keeps other draws as they are.
        left = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0)).to(matrix)
        self.register_buffer("left", left)
        self.register_buffer("right", matrix.new_zeros(matrix.shape[1]))
        for _ in range(FIRST_ITERATIONS):
            self.after_step()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's output with the normalised weight."""
        weight = self.layer.weight
        largest = torch.dot(self.left, weight.flatten(1) @ self.right)
        return functional_call(self.layer, {"weight": weight / largest}, (inputs,))

    @torch.no_grad()
    def after_step(self) -> None:
        """Make one power iteration."""
        matrix = self.layer.weight.flatten(1)
        self.right.copy_(nn.functional.normalize(self.left @ matrix, dim=0))
        self.left.copy_(nn.functional.normalize(matrix @ self.right, dim=0))
