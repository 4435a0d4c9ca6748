"""How much of the first part of a training is over."""

import pytest
from torch import nn

from kdzoo.distillers import Supervised
from kdzoo.distillers.generative.progress import elapsed_share
from tests.distillers.generative.cases import at_step


@pytest.mark.parametrize(
    ("step", "part", "expected"),
    [(0, 0.5, 0.0), (10, 0.5, 0.2), (50, 0.5, 1.0), (90, 0.5, 1.0), (10, 1.0, 0.1), (0, 0.0, 1.0)],
)
def test_the_share_grows_linearly_up_to_one(step, part, expected):
    assert elapsed_share(at_step(Supervised(nn.Linear(2, 2)), step, 100), part) == pytest.approx(expected)


def test_outside_of_training_everything_is_over():
    distiller = at_step(Supervised(nn.Linear(2, 2)), 0, 100)
    assert elapsed_share(distiller.eval(), 0.5) == 1
    assert elapsed_share(Supervised(nn.Linear(2, 2)).train(), 0.5) == 1
