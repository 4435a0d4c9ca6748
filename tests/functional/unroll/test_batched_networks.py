"""Many networks at once: values and derivatives of a network are those of each one each."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from kdzoo.functional.unroll import unroll, vmap_networks
from tests.functional.unroll.cases import cross_entropy, normal, relative_error


def convnet(**options):
    conv = nn.Conv2d(2, 3, 3, **options)
    out = conv(torch.zeros(1, 2, 9, 8)).shape[1:]
    pooled = 3 * (out[1] // 2) * (out[2] // 2)
    return nn.Sequential(conv, nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(pooled, 3))


NETWORKS = {
    "plain": convnet,
    "no bias": lambda: convnet(bias=False),
    "stride": lambda: convnet(stride=(2, 1)),
    "padding": lambda: convnet(padding=(2, 1)),
    "same": lambda: convnet(padding="same", dilation=2),
    "valid": lambda: convnet(padding="valid"),
    "dilation": lambda: convnet(dilation=(1, 2)),
    "even and same": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 2, padding="same"), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 72, 3)
    ),
    "groups": lambda: nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 42, 3)),
    "maximum": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.Softplus(), nn.Conv2d(4, 3, 2), nn.AvgPool2d(2), nn.Flatten()
    ),
    "instance norm": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.GroupNorm(3, 3), nn.SiLU(), nn.MaxPool2d(3, stride=2), nn.Flatten(), nn.Linear(18, 3)
    ),
    "wide patches": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, (5, 4)), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)
    ),
}


def one_network(module):
    """Return a function of one row of weights and inputs, and the number of weights."""
    shapes = {name: parameter.shape for name, parameter in module.double().requires_grad_(False).named_parameters()}

    def logits(weights, images):
        parts = weights.split([shape.numel() for shape in shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return functional_call(module, named, (images,))

    return logits, sum(shape.numel() for shape in shapes.values())


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_values_and_derivatives_are_those_of_each_network(name, count) -> None:
    network, size = one_network(NETWORKS[name]())
    weights, images = 0.3 * normal(count, size), normal(4, 2, 9, 8, seed=1)
    adjoint, along = normal(count, 4, 3, seed=2), normal(count, size, seed=3)

    def each(weights, images):
        return torch.stack([network(row, images) for row in weights])

    results = []
    for together in (vmap_networks(network), each):
        w, x = weights.clone().requires_grad_(), images.clone().requires_grad_()
        logits = together(w, x)
        first = torch.autograd.grad((logits.tanh() * adjoint).sum(), (w, x), create_graph=True)
        second = torch.autograd.grad((first[0] * along).sum(), (w, x))
        results.append([logits, *first, *second])
    assert relative_error(*results) < 1e-10


@pytest.mark.parametrize("engine", ["full", "segments", "reverse", "jvp"])
@pytest.mark.parametrize("name", ["padding", "maximum"])
def test_inner_training_of_many_is_that_of_each(name, engine) -> None:
    network, size = one_network(NETWORKS[name]())
    several = vmap_networks(network)

    def loss(weights, images, labels):
        return cross_entropy(several(weights, images), labels)

    weights, images = 0.3 * normal(3, size), normal(4, 2, 9, 8, seed=1).requires_grad_()
    labels, sizes = normal(4, 3, seed=2).softmax(1), torch.full((5,), 0.1, dtype=torch.float64).requires_grad_()
    adjoint = normal(3, size, seed=3)
    end = unroll(weights, images, labels, sizes, loss=loss, engine=engine)
    together = torch.autograd.grad(end, (images, sizes), adjoint)
    each = []
    for row, row_adjoint in zip(weights, adjoint, strict=True):
        own = unroll(row[None], images, labels, sizes, loss=loss, engine="full")
        each.append(torch.autograd.grad(own, (images, sizes), row_adjoint[None]))
    assert relative_error(together, [sum(parts) for parts in zip(*each, strict=True)]) < 1e-10
