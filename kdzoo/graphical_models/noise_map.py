"""Noise for a student that has fewer or smaller latents than its teacher.

The noise of all of the teacher's latents without a partner is mapped to that of the student's by one matrix P with
orthonormal rows. P eps is distributed as N(0, I) if eps is, so the surrogate loss is a bound for any such matrix, and
the matrix can be learned: it selects the directions of the teacher's noise that matter most for the targets.
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
        teacher: Model whose noise is mapped.
        student: Model that receives the mapped noise.
        paired: Names of the latents whose noise both models share unchanged.
        learned: Whether the matrix is trained from a random start. Otherwise it selects the first coordinates.

    Raises:
        ConfigError: If an unpaired latent is not normal or is in a sequence, or the student has more values in them
            than the teacher.
    """

    def __init__(self, teacher: Graph, student: Graph, paired: list[str], *, learned: bool) -> None:
        super().__init__()
        self.paired = paired
        teacher_latents, student_latents = (_unpaired_latents(graph, paired) for graph in (teacher, student))
        self.teacher_names = list(teacher_latents)
        self.shapes = {name: node.family.noise_shape for name, node in student_latents.items()}
        self.sizes = [prod(shape) for shape in self.shapes.values()]
        available = sum(prod(node.family.noise_shape) for node in teacher_latents.values())
        if sum(self.sizes) > available:
            raise ConfigError(
                f"the student's latents {list(student_latents)} have {sum(self.sizes)} values without a partner, "
                f"the teacher's {list(teacher_latents)} only {available}; allowed: at most as many"
            )
        self.map = nn.Linear(available, sum(self.sizes), bias=False)
        if learned:
            # A parametrisation by unconstrained parameters, so that any optimizer keeps the rows orthonormal.
            parametrizations.orthogonal(self.map)
        else:
            nn.init.eye_(self.map.weight)
            self.map.requires_grad_(False)

    def forward(self, noise: Values) -> dict[str, Tensor]:
        """Return the student's noise ``[b, ...]`` by node, given the teacher's."""
        shared = {name: value for name, value in noise.items() if name not in self.teacher_names}
        if not self.sizes:
            return shared
        mapped = self.map(torch.cat([noise[name].flatten(1) for name in self.teacher_names], 1).to(self.map.weight))
        columns = mapped.split(self.sizes, 1)
        return shared | {
            name: column.unflatten(1, shape) for (name, shape), column in zip(self.shapes.items(), columns, strict=True)
        }


def _unpaired_latents(graph: Graph, paired: list[str]) -> dict[str, Latent]:
    """Return the latents without a partner by name; only normal ones outside sequences can be mapped."""
    unpaired = {name: node for name, node in graph.latents().items() if name not in paired}
    for name, node in unpaired.items():
        # Uniform noise does not stay uniform under a linear map, and steps of a sequence have no fixed number.
        if not isinstance(node.family, Normal) or graph.in_sequence(name):
            raise ConfigError(
                f"latent {name!r} has no partner of its shape, and only noise of normal latents outside of sequences "
                f"can be mapped; it is {type(node.family).__name__}"
            )
    return unpaired
