"""Natural weights of the losses of latents: how much an error in a latent costs in the targets.

A small error d of a latent z changes the distribution of the targets by the divergence KL = d^T F d / 2, where F is the
Fisher information that the targets have about z. With its diagonal entries F_k, the weight of a squared error of one
element of z is therefore the mean of F_k / 2. With this weight the latent's loss counts in nats of the targets, for any
number of dimensions of both. A fixed weight cannot do that: with the settings of Chen et al. 2023 (a sum over pixels, a
mean over latent dimensions, lambda = 0.1) the latents contribute at most a thousandth of the total loss.
"""

import torch
from torch import Tensor
from torch.distributions import Distribution

from kdzoo.core.inference import inference
from kdzoo.graphical_models.distributions import Delta
from kdzoo.graphical_models.families import Normal
from kdzoo.graphical_models.graph import Graph, Values


def latent_weights(teacher: Graph, noise: Values, inputs: Values | None = None) -> dict[str, Tensor]:
    """Return half the mean diagonal of the Fisher information about each normal latent, in nats per squared unit.

    The information is the mean squared score (gradient of the log density) of targets that the teacher draws. The score
    with respect to z = mu + sigma eps is the one with respect to eps divided by sigma; it includes all effects of z on
    later latents. A target that is a point mass has no density; a normal variable of variance 1/2 replaces it, whose
    KL is the squared difference.

    Args:
        teacher: The model, which does not change.
        noise: Noise of n samples, also of leaves, so that all targets have values (``noise(n, leaves=True)``).
        inputs: Values of the inputs.

    Returns:
        Weights by name of the latent; latents of other families are left out.
    """
    names = [name for name, node in teacher.latents().items() if isinstance(node.family, Normal) and name in noise]
    with inference(teacher), torch.enable_grad():
        tracked = {name: value.detach().requires_grad_(name in names) for name, value in noise.items()}
        # Two rollouts: the targets must be constants in the log density, not functions of the tracked noise.
        targets = {name: teacher.rollout(noise, inputs).values[name].detach() for name in teacher.targets()}
        trace = teacher.rollout(tracked, inputs, forced=targets)
        generator = torch.Generator().manual_seed(0)
        log_density = torch.stack(
            [_log_density(trace.distributions[name], targets[name], generator) for name in teacher.targets()]
        ).sum()
        # Latents that reach the targets only through bits have no gradient.
        if not (names and log_density.requires_grad):
            return dict.fromkeys(names, torch.zeros(()))
        scores = torch.autograd.grad(log_density, [tracked[name] for name in names], allow_unused=True)
    weights = {}
    for name, score in zip(names, scores, strict=True):
        scale = trace.distributions[name].stddev.detach()
        weights[name] = torch.zeros(()) if score is None else (score / scale).square().mean() / 2
    return weights


def _log_density(distribution: Distribution, value: Tensor, generator: torch.Generator) -> Tensor:
    """Return the summed log-probability of a value, or an expression with its gradient for a point mass.

    The gradient of log N(y; m, 1/2) with respect to m is 2 (y - m) = sqrt(2) eps with standard normal eps.
    """
    if isinstance(distribution, Delta):
        return (2**0.5 * torch.randn(value.shape, generator=generator).to(value) * distribution.value).sum()
    return distribution.log_prob(value).sum()
