"""How much an error in a latent costs in the targets: the natural weight of its loss.

A small error d of latent z changes the targets' distribution by the divergence KL = d^T F d / 2, where F is the Fisher
information that the targets have about z. With F_k its diagonal entries, the weight of a squared error of an element of
z is therefore the mean of F_k / 2: then the latent's loss is measured in nats of the targets, whatever the sizes of
both.
"""

import torch
from torch import Tensor
from torch.distributions import Distribution

from kdzoo.core.inference import inference
from kdzoo.graphical_models.distributions import Delta
from kdzoo.graphical_models.families import Normal
from kdzoo.graphical_models.graph import Graph, Values


def latent_weights(teacher: Graph, noise: Values, inputs: Values | None = None) -> dict[str, Tensor]:
    """Return half the mean diagonal of the Fisher information about each normal latent, nats.

    The information is the mean squared score of targets that the teacher draws. A score of z = mu + sigma eps is one of
    eps divided by sigma, with all that follows from z. For a target that is a point, the information of a normal
    variable of variance 1/2 around it is taken, whose divergence is the squared difference.

    Args:
        teacher: stays as it is.
        noise: of n samples; also of targets, so that all of them have values (``noise(n, leaves=True)``).
        inputs: values of the inputs.

    Returns:
        By latent; other families are left out.
    """
    names = [name for name, node in teacher.latents().items() if isinstance(node.family, Normal) and name in noise]
    with inference(teacher), torch.enable_grad():
        followed = {name: value.detach().requires_grad_(name in names) for name, value in noise.items()}
        drawn = {name: teacher.rollout(noise, inputs).values[name].detach() for name in teacher.targets()}
        trace = teacher.rollout(followed, inputs, forced=drawn)
        generator = torch.Generator().manual_seed(0)
        scored = torch.stack(
            [_score(trace.distributions[name], drawn[name], generator) for name in teacher.targets()]
        ).sum()
        if not (names and scored.requires_grad):
            return dict.fromkeys(names, torch.zeros(()))
        scores = torch.autograd.grad(scored, [followed[name] for name in names], allow_unused=True)
    found = {}
    for name, score in zip(names, scores, strict=True):
        scale = trace.distributions[name].stddev.detach()
        found[name] = torch.zeros(()) if score is None else (score / scale).square().mean() / 2
    return found


def _score(distribution: Distribution, drawn: Tensor, generator: torch.Generator) -> Tensor:
    """Return the sum of log-probabilities, or what has the gradient of that of a normal variable around a point."""
    if isinstance(distribution, Delta):
        return (2**0.5 * torch.randn(drawn.shape, generator=generator).to(drawn) * distribution.value).sum()
    return distribution.log_prob(drawn).sum()
