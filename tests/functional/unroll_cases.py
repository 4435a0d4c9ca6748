"""What the tests of inner trainings share: small networks as inner losses, data, derivatives."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from kdzoo.functional.unroll import SGD, Adam, Momentum, unroll

OPTIMIZERS = {"sgd": SGD(), "momentum": Momentum(0.8), "adam": Adam(betas=(0.8, 0.95), eps=1e-2)}
NAMES = ("images", "labels", "step sizes", "weights")


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 3)
    )


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3))


def kinked() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3))


NETWORKS = {"convnet": convnet, "mlp": mlp, "kinked": kinked}


class Network:
    """A module as a function of its weights, all in one row."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.requires_grad_(False)
        self.shapes = {name: one.shape for name, one in module.named_parameters()}
        self.n_weights = sum(shape.numel() for shape in self.shapes.values())

    def logits(self, weights: Tensor, images: Tensor) -> Tensor:
        parts = weights.split([shape.numel() for shape in self.shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        return functional_call(self.module, named, (images,))

    def loss(self, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(vmap(self.logits, (0, None))(weights, images), labels)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum over the networks of the mean over the images."""
    return -(labels * logits.log_softmax(-1)).sum(-1).mean(-1).sum()


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def case(name: str, steps: int, adam: bool = False, count: int = 2, dtype: torch.dtype = torch.float64):
    """Return the loss and the arguments of `unroll`, of which everything requires grad."""
    network = Network(NETWORKS[name]().to(dtype))
    sizes = (0.01 if adam else 0.1) * (1 + torch.arange(steps, dtype=dtype) % 3)
    labels = normal(5, 3, seed=2, dtype=dtype).softmax(1)
    weights, images = 0.4 * normal(count, network.n_weights, seed=3, dtype=dtype), normal(5, 1, 6, 6, dtype=dtype)
    return network.loss, [one.requires_grad_() for one in (weights, images, labels, sizes)]


def derivatives(end: Tensor, weights: Tensor, images: Tensor, labels: Tensor, sizes: Tensor, adjoint: Tensor):
    """Return the derivatives of <end, adjoint> in the order of `NAMES`."""
    return torch.autograd.grad(end, (images, labels, sizes, weights), adjoint)


def unrolled(loss, arguments, adjoint: Tensor | None = None, **options):
    """Return the final weights and the derivatives of their inner product with an adjoint."""
    end = unroll(*arguments, loss=loss, **options)
    adjoint = normal(*end.shape, seed=4, dtype=end.dtype) if adjoint is None else adjoint
    return end.detach(), derivatives(end, *arguments, adjoint)


def apart(found, expected) -> float:
    """Return the largest difference, each of its own tensor's largest number."""
    return max(
        float((a - b).abs().max() / b.abs().max().clamp_min(1e-300)) for a, b in zip(found, expected, strict=True)
    )
