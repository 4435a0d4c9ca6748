"""Small networks as inner losses, data and derivatives, shared by the tests of inner trainings."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d

from kdzoo.functional.unroll import SGD, Adam, Momentum, unroll

OPTIMIZERS = {"sgd": SGD(), "momentum": Momentum(0.8), "adam": Adam(betas=(0.8, 0.95), eps=1e-2)}
NAMES = ("images", "labels", "step sizes", "weights")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum over the networks of the mean over the images."""
    return -(labels * logits.log_softmax(-1)).sum(-1).mean(-1).sum()


def convnet(weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Convolution of two 3 x 3 kernels, tanh, average pooling, linear; K networks of 44 weights on 6 x 6 pixels."""
    kernels, biases, matrix = weights.split([18, 2, 24], 1)
    maps = conv2d(images, kernels.reshape(-1, 1, 3, 3), biases.reshape(-1)).tanh()
    hidden = avg_pool2d(maps, 2).view(len(images), len(weights), 8).transpose(0, 1)
    return cross_entropy(hidden @ matrix.view(-1, 8, 3), labels)


def mlp(weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Linear, tanh, linear; K networks of 160 weights on 36 pixels."""
    first, biases, second = weights.split([144, 4, 12], 1)
    hidden = torch.baddbmm(biases[:, None], images.flatten(1).expand(len(weights), -1, -1), first.view(-1, 36, 4))
    return cross_entropy(hidden.tanh() @ second.view(-1, 4, 3), labels)


def kinked(weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Convolution of two 3 x 3 kernels, ReLU, maximum pooling, linear; K networks of 44 weights."""
    kernels, biases, matrix = weights.split([18, 2, 24], 1)
    maps = conv2d(images, kernels.reshape(-1, 1, 3, 3), biases.reshape(-1)).relu()
    hidden = max_pool2d(maps, 2).view(len(images), len(weights), 8).transpose(0, 1)
    return cross_entropy(hidden @ matrix.view(-1, 8, 3), labels)


NETWORKS = {"convnet": (convnet, 44), "mlp": (mlp, 160), "kinked": (kinked, 44)}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def case(name: str, steps: int, adam: bool = False, count: int = 2, dtype: torch.dtype = torch.float64):
    """Return the loss and the tensor arguments of `unroll`, all of which require grad."""
    loss, n_weights = NETWORKS[name]
    sizes = (0.01 if adam else 0.1) * (1 + torch.arange(steps, dtype=dtype) % 3)
    labels, images = normal(5, 3, seed=2, dtype=dtype).softmax(1), normal(5, 1, 6, 6, dtype=dtype)
    weights = 0.4 * normal(count, n_weights, seed=3, dtype=dtype)
    return loss, [tensor.requires_grad_() for tensor in (weights, images, labels, sizes)]


def derivatives(end: Tensor, weights: Tensor, images: Tensor, labels: Tensor, sizes: Tensor, adjoint: Tensor):
    """Return the derivatives of <end, adjoint> in the order of `NAMES`."""
    return torch.autograd.grad(end, (images, labels, sizes, weights), adjoint)


def unrolled(loss, arguments, adjoint: Tensor | None = None, **options):
    """Return the final weights and the derivatives of their inner product with an adjoint."""
    end = unroll(*arguments, loss=loss, **options)
    adjoint = normal(*end.shape, seed=4, dtype=end.dtype) if adjoint is None else adjoint
    return end.detach(), derivatives(end, *arguments, adjoint)


def relative_error(tensors, expected) -> float:
    """Return the largest error, relative to the largest number of the expected tensor."""
    with torch.no_grad():
        errors = [(a - b).abs().max() / b.abs().max().clamp_min(1e-300) for a, b in zip(tensors, expected, strict=True)]
    return float(max(errors))


class OnceDifferentiableSquare(torch.autograd.Function):
    """Square, whose derivative cannot be differentiated."""

    @staticmethod
    def forward(ctx, value):
        ctx.save_for_backward(value)
        return value.square()

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope


def once_differentiable_loss(weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """A loss whose operation forbids second derivatives."""
    return (OnceDifferentiableSquare.apply(weights) * images.sum()).exp().sum() * labels.sum()


def ctc_loss(weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """A loss for which PyTorch has no second derivative."""
    log_probs = (weights.view(1, 4, 3).transpose(0, 1) * images.sum() * labels.sum()).log_softmax(-1)
    return torch.nn.functional.ctc_loss(log_probs, torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2]))
