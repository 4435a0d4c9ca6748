"""How much an error in a latent costs in the targets: the natural weight of its loss.

A small error d of latent z changes the targets' distribution by the divergence KL = d^T F d / 2, where F is the Fisher
information that the targets have about z. With F_k its diagonal entries, the weight of a squared error of an element of
z is therefore the mean of F_k / 2: then the latent's loss is measured in nats of the targets, whatever the sizes of
both.
"""

import torch
from torch import Tensor

from kdzoo.graphical.graph import Graph, Values
from kdzoo.inference import inference


def latent_weights(teacher: Graph, noise: Values, inputs: Values | None = None) -> dict[str, Tensor]:
    """Return half the mean diagonal of the Fisher information about each latent that has a gradient, nats.

    The information is the mean squared score of targets that the teacher draws.

    Args:
        teacher: stays as it is.
        noise: of n samples; also of targets, so that all of them have values (``noise(n, leaves=True)``).
        inputs: values of the inputs.
    """
    with inference(teacher), torch.enable_grad():
        followed = {name: value.detach().requires_grad_() for name, value in noise.items()}
        trace = teacher.rollout(followed, inputs)
        names = [name for name in teacher.latents() if name in trace.values and trace.values[name].requires_grad]
        if not names:
            return {}
        targets = teacher.targets()
        drawn = {name: trace.values[name].detach() for name in targets}
        again = teacher.rollout(followed, inputs, forced=drawn)
        scored = [again.distributions[name].log_prob(drawn[name]).sum() for name in targets]
        scores = torch.autograd.grad(
            torch.stack(scored).sum(), [again.values[name] for name in names], allow_unused=True
        )
    return {
        name: torch.zeros(()) if score is None else score.square().mean() / 2
        for name, score in zip(names, scores, strict=True)
    }
