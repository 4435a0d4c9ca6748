"""Small image models with many sets of weights in one call of ``torch.func.vmap``, and second derivatives through them.

Dataset distillation trains many networks at once and differentiates through their gradients.
"""

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from kdzoo.models import MLP, ConvNet, LeNet

SMALL = {"channels": [8], "kernel_size": 5, "padding": "valid", "activation": "tanh", "pooling": "avg", "hidden": 16}
NETWORKS = {
    "regression": (MLP, {"hidden": []}),
    "mlp": (MLP, {"hidden": [20]}),
    "small convnet": (ConvNet, SMALL),
    "convnet-3": (ConvNet, {"channels": [6, 6, 6], "pooling": "avg", "norm": "instance"}),
    "max pool and norm": (ConvNet, {"channels": [4, 5], "norm": "instance", "hidden": 7}),
    "lenet": (LeNet, {}),
}
IN_SHAPE, CLASSES, NETS, IMAGES = (2, 13, 12), 3, 3, 4


@pytest.fixture(params=NETWORKS)
def models(request):
    torch.manual_seed(0)
    build, options = NETWORKS[request.param]
    return [build(in_shape=IN_SHAPE, num_classes=CLASSES, **options).double() for _ in range(NETS)]


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.randn(IMAGES, *IN_SHAPE, dtype=torch.float64, requires_grad=True)


def stacked_logits(models, weights, images):
    return vmap(lambda single: functional_call(models[0], single, (images,)))(weights)


def loss(logits):
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)) % CLASSES)


def loss_after_a_step(models, images, other):
    """Return the losses, summed, that all networks have on other images after one step on these."""
    weights = stack_module_state(models)[0]
    inner = vmap(loss)(stacked_logits(models, weights, images)).sum()
    gradients = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
    moved = {name: w - 0.1 * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
    return vmap(loss)(stacked_logits(models, moved, other)).sum()


def single_loss_after_a_step(model, images, other):
    """Return the same for one network, without torch.func.vmap."""
    weights = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss(model(images)), list(weights.values()), create_graph=True)
    moved = {name: w - 0.1 * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
    return loss(functional_call(model, moved, (other,)))


def test_batched_networks_return_the_logits_of_each(models, images):
    logits = stacked_logits(models, stack_module_state(models)[0], images)
    torch.testing.assert_close(logits, torch.stack([model(images) for model in models]))


def test_the_gradient_through_a_step_is_that_of_each_network(models, images):
    other = torch.randn_like(images)
    (stacked,) = torch.autograd.grad(loss_after_a_step(models, images, other), images)
    (looped,) = torch.autograd.grad(sum(single_loss_after_a_step(model, images, other) for model in models), images)
    assert looped.abs().max() > 1e-6
    torch.testing.assert_close(stacked, looped, rtol=1e-9, atol=1e-14)


def test_the_gradient_through_a_step_is_the_slope(models, images):
    other, direction, h = torch.randn_like(images), torch.randn_like(images), 1e-6
    (gradient,) = torch.autograd.grad(loss_after_a_step(models, images, other), images)
    ahead, behind = (loss_after_a_step(models, images + t * direction, other).item() for t in (h, -h))
    assert (gradient * direction).sum().item() == pytest.approx((ahead - behind) / (2 * h), rel=1e-4, abs=1e-8)


def test_forward_over_reverse_is_reverse_over_reverse(models, images):
    """The product of the Hessian with a direction, by both orders of differentiation."""
    weights = stack_module_state(models)[0]
    direction = {name: torch.randn_like(w) for name, w in weights.items()}

    def inner(weights):
        return vmap(loss)(stacked_logits(models, weights, images.detach())).sum()

    _, forward = torch.func.jvp(torch.func.grad(inner), (weights,), (direction,))
    gradients = torch.autograd.grad(inner(weights), list(weights.values()), create_graph=True)
    along = sum((g * d).sum() for g, d in zip(gradients, direction.values(), strict=True))
    backward = torch.autograd.grad(along, list(weights.values()))
    for product, expected in zip(forward.values(), backward, strict=True):
        torch.testing.assert_close(product, expected, rtol=1e-8, atol=1e-12)
