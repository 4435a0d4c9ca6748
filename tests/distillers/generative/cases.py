"""Small graphs and batches that the tests of generative methods share."""

from types import SimpleNamespace

import torch
from torch import nn

from kdzoo.distillers.generative.batch_noise import pack_noise
from kdzoo.graphical_models import Bernoulli, Categorical, Constant, Graph, Input, Latent, Normal, Target


class Joined(nn.Linear):
    """A linear layer of all parents."""

    def forward(self, *parents):
        return super().forward(torch.cat(parents, 1))


def normal_chain(seed=0, z1=4, z2=3):
    """Return normal latents z2 -> z1 -> y, all affine."""
    torch.manual_seed(seed)
    return Graph(
        [
            Latent("z2", Normal((z2,), scale=1.0)),
            Latent("z1", Normal((z1,)), nn.Linear(z2, 2 * z1), "z2"),
            Target("y", Normal((5,), scale=0.5), nn.Linear(z1, 5), "z1", source="input"),
        ]
    )


def binary_chain(seed=0):
    """Return bits z2 -> z1 -> y."""
    torch.manual_seed(seed)
    top = Constant(2)
    top.value.data = torch.randn(2)  # at equal probabilities of both models the expectation has a kink
    return Graph(
        [
            Latent("z2", Bernoulli((2,)), top),
            Latent("z1", Bernoulli((2,)), nn.Linear(2, 2), "z2"),
            Target("y", Bernoulli((3,)), nn.Linear(2, 3), "z1", source="input"),
        ]
    )


def conditional(seed=0):
    """Return bits given a normal latent and the label."""
    torch.manual_seed(seed)
    return Graph(
        [
            Input("label", Categorical((3,)), source="target"),
            Latent("z", Normal((2,)), nn.Linear(3, 4, bias=False), "label"),
            Target("y", Bernoulli((4,)), Joined(5, 4), ("z", "label"), source="input"),
        ]
    )


def noise_batch(noise):
    """Return a batch of noise without samples."""
    return {"input": torch.zeros(len(next(iter(noise.values()))), 0), **pack_noise(noise)}


def at_step(distiller, step, steps):
    """Return a distiller in the middle of a training, without a trainer."""
    distiller._trainer = SimpleNamespace(global_step=step, estimated_stepping_batches=steps)
    return distiller.train()
