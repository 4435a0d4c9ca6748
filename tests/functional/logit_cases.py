"""What the tests of losses on logits share: random logits, strategies for hypothesis, the losses by name."""

import math

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from kdzoo.functional import centred_mse, decoupled_kl, hard_target_ce, soft_target_kl

INF = math.inf
many = settings(max_examples=300, deadline=None, derandomize=True)
some = settings(max_examples=100, deadline=None, derandomize=True)


def normal(*shape: int, scale: float = 3.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def tkd(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    return soft_target_kl(student, teacher, temperature=temperature)


def both_parts(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    return torch.stack(decoupled_kl(student, teacher, target, temperature=4.0), -1)


@st.composite
def pairs(draw, elements=None, dtype=np.float32, least_classes: int = 1) -> tuple[Tensor, Tensor]:
    """Student and teacher logits (n, c), |logits| <= 1e4, now and then masked in both or in the teacher."""
    elements = st.floats(-1e4, 1e4, width=32) if elements is None else elements
    shape = draw(st.tuples(st.integers(1, 3), st.integers(least_classes, 6)))
    student, teacher = draw(hnp.arrays(dtype, (2, *shape), elements=elements))
    if draw(st.booleans()):
        student = np.where(draw(hnp.arrays(bool, shape)), teacher, student)
    masked = draw(hnp.arrays(np.int8, shape, elements=st.sampled_from([0, 0, 0, 0, 1, 2])))
    masked[:, 0] = 0
    student = np.where(masked == 1, dtype(-np.inf), student)
    teacher = np.where(masked > 0, dtype(-np.inf), teacher)
    return torch.from_numpy(student), torch.from_numpy(teacher)


temperatures = st.floats(-2, 4).map(lambda exponent: 10.0**exponent)
sixty_fourths = st.integers(-640, 640).map(lambda k: k / 64)  # sums and differences of these are exact


LOSSES = {
    "soft_target_kl": lambda s, t, y: tkd(s, t),
    "hard_target_ce": lambda s, t, y: hard_target_ce(s, y),
    "centred_mse": lambda s, t, y: centred_mse(s, t),
    "decoupled_kl": lambda s, t, y: both_parts(s, t, y).sum(-1),
}
