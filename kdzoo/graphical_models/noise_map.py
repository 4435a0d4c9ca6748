"""Noise of a student that has fewer or smaller latents than its teacher.

The noise of all of the teacher's latents without a partner is mapped to that of the student's by one matrix with
orthonormal rows: what N(0, I) becomes is N(0, I) again, so the surrogate loss stays a bound for any such matrix, and
the best one can be learned.
"""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from kdzoo.errors import ConfigError
from kdzoo.graphical_models.families import Normal
from kdzoo.graphical_models.graph import Graph, Values
from kdzoo.graphical_models.nodes import Latent


class NoiseMap(nn.Module):
    """A semi-orthogonal map of the noise of latents without a partner.

    Args:
        teacher: gives the noise.
        student: gets it.
        paired: names of latents whose noise both share.
        learned: whether the matrix, random at the start, is trained; otherwise it takes the first coordinates.

    Raises:
        ConfigError: such a latent is not normal, or the student has more of them than the teacher has.
    """

    def __init__(self, teacher: Graph, student: Graph, paired: list[str], *, learned: bool) -> None:
        super().__init__()
        self.paired = paired
        theirs, own = (_unpaired(graph, paired) for graph in (teacher, student))
        self.theirs = list(theirs)
        self.shapes = {name: node.family.noise_shape for name, node in own.items()}
        self.sizes = [prod(node.family.noise_shape) for node in own.values()]
        given = sum(prod(node.family.noise_shape) for node in theirs.values())
        if sum(self.sizes) > given:
            raise ConfigError(
                f"the student's latents {list(own)} have {sum(self.sizes)} values without a partner, "
                f"the teacher's {list(theirs)} only {given}; allowed: at most as many"
            )
        self.map = nn.Linear(given, sum(self.sizes), bias=False)
        if learned:
            parametrizations.orthogonal(self.map)
        else:
            nn.init.eye_(self.map.weight)
            self.map.requires_grad_(False)

    def forward(self, noise: Values) -> dict[str, Tensor]:
        """Return the student's noise [b, ...] by node, of the teacher's."""
        kept = {name: value for name, value in noise.items() if name not in self.theirs}
        if not self.sizes:
            return kept
        mapped = self.map(torch.cat([noise[name].flatten(1) for name in self.theirs], 1).to(self.map.weight))
        parts = mapped.split(self.sizes, 1)
        return kept | {
            name: part.unflatten(1, shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


def _unpaired(graph: Graph, paired: list[str]) -> dict[str, Latent]:
    found = {name: node for name, node in graph.latents().items() if name not in paired}
    for name, node in found.items():
        if not isinstance(node.family, Normal) or graph.in_sequence(name):
            raise ConfigError(
                f"latent {name!r} has no partner of its shape, and only noise of normal latents outside of sequences "
                f"can be mapped; it is {type(node.family).__name__}"
            )
    return found
