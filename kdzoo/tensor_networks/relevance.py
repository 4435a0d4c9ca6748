"""Which inputs an output depends on at a given input: conditional means of a chain, and the gradient of any model.

A chain is linear in the features of each site. From the derivative with respect to them, and the mean features of the
site under a product measure, the effect of one input is known exactly, without samples: its main effect, with all other
inputs averaged (:func:`main_effect`), or what the output would lose on average if only this input were drawn again
(:func:`conditional_effect`). Both are signed and have the unit of the output.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdzoo.errors import ConfigError
from kdzoo.tensor_networks.features import gram_matrices
from kdzoo.tensor_networks.sobol import Moments, rescaled, scaled


def main_effect(sites: Sequence[Tensor], centre: Tensor, out_site: int, measure: Moments, phi: Tensor) -> Tensor:
    """Return the main effect E[f | x_i] - E[f] of every site at given inputs, in float64.

    Args:
        sites: Core ``[left, d, right]`` of every site, from the left end; open boundaries.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        measure: Moments of the features under a measure with independent inputs.
        phi: Features of the inputs ``[sites, d, samples]``.

    Returns:
        Effects ``[samples, outputs, sites]``.
    """
    # The derivative at the mean features does not depend on the sample, so one pass is enough for all samples.
    mean = measure.mean.double()[..., None]
    effects = derivatives(sites, centre, out_site, mean)[0]
    return torch.einsum("oid,ids->soi", effects, phi.double() - mean)


def conditional_effect(sites: Sequence[Tensor], centre: Tensor, out_site: int, measure: Moments, phi: Tensor) -> Tensor:
    """Return f(x) - E[f | all inputs but x_i] of every site at given inputs.

    Arguments and result are those of :func:`main_effect`.
    """
    effects = derivatives(sites, centre, out_site, phi)
    return torch.einsum("soid,ids->soi", effects, phi.double() - measure.mean.double()[..., None])


def derivatives(sites: Sequence[Tensor], centre: Tensor, out_site: int, phi: Tensor) -> Tensor:
    """Return the derivatives of a chain with respect to its features ``[samples, outputs, sites, d]``, in float64.

    Args:
        sites: Core ``[left, d, right]`` of every site, from the left end; open boundaries.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        phi: Features ``[sites, d, samples]`` at which the derivatives are taken.
    """
    phi, centre = phi.double(), centre.double()
    cores, exponent = rescaled(sites, out_site, gram_matrices(phi))  # or long chains would overflow
    inner, outer = cores[:out_site], [core.permute(2, 1, 0) for core in reversed(cores[out_site:])]
    left, right = _states(inner, phi[:out_site]), _states(outer, phi[out_site:].flip(0))
    from_left = torch.einsum("lor,sr->sol", centre, right[-1])
    from_right = torch.einsum("lor,sl->sor", centre, left[-1])
    by_site = [
        *_derivatives(inner, phi[:out_site], left, from_left),
        *reversed(_derivatives(outer, phi[out_site:].flip(0), right, from_right)),
    ]
    return scaled(torch.stack(by_site, 2), exponent)


def saliency(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the absolute derivative of every output with respect to every input ``[samples, outputs, ...]``.

    Args:
        model: Returns outputs ``[samples, outputs]``, each row from one input only. It is called in eval mode and its
            modes are restored.
        inputs: Inputs ``[samples, ...]``.

    Raises:
        ConfigError: The outputs have no gradient, for example because the model is called over a network.

    References:
        Simonyan, Vedaldi, Zisserman: Deep inside convolutional networks. arXiv:1312.6034, 2013, section 3.
    """
    device = next(iter(model.parameters()), inputs).device
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.enable_grad():
            x = inputs.detach().to(device).clone().requires_grad_()
            outputs = model(x).sum(0)  # rows are independent, so one backward pass per output is enough
            if not outputs.requires_grad:
                raise ConfigError(f"saliency needs a model with gradients, got {type(model).__name__} without")
            slopes = [torch.autograd.grad(output, x, retain_graph=True)[0] for output in outputs]
    finally:
        for module in training:
            module.training = True
    return torch.stack(slopes, 1).abs().to(inputs.device)


def _states(cores: Sequence[Tensor], phi: Tensor) -> list[Tensor]:
    """Return the states ``[samples, bond]`` before every site of a side, from its outer end, and next to the output."""
    states = [phi.new_ones(phi.shape[2], 1)]
    for core, features in zip(cores, phi, strict=True):
        states.append(torch.einsum("sl,ldr,ds->sr", states[-1], core, features))
    return states


def _derivatives(cores: Sequence[Tensor], phi: Tensor, states: list[Tensor], beyond: Tensor) -> list[Tensor]:
    """Return the derivatives ``[samples, outputs, d]`` of every site of a side, from its outer end.

    Args:
        cores: Cores ``[n_in, d, n_out]`` of the side.
        phi: Their features ``[steps, d, samples]``.
        states: Result of :func:`_states`.
        beyond: Derivative with respect to the last state of the side ``[samples, outputs, bond]``.
    """
    by_site = []
    for core, features, state in zip(reversed(cores), phi.flip(0), reversed(states[:-1]), strict=True):
        by_feature = torch.einsum("ldr,sor->sold", core, beyond)
        by_site.append(torch.einsum("sl,sold->sod", state, by_feature))
        beyond = torch.einsum("sold,ds->sol", by_feature, features)
    return by_site[::-1]
