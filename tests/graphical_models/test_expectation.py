"""Exact expectations of divergences, against means over drawn noise."""

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Bernoulli, Categorical, Constant, Graph, Latent, Normal, Target
from kdzoo.graphical_models.expectation import expected_divergences
from kdzoo.graphical_models.paired import node_divergence, paired_rollout
from tests.graphical_models.cases import Curved, bits, classes, curved, deviating, linear, pair_of, random, straight


@pytest.mark.parametrize("latents_from", ["student", "teacher"])
@pytest.mark.parametrize("model", [linear, classes], ids=["linear", "classes"])
def test_expected_divergences_are_the_means_over_drawn_noise(model, latents_from):
    torch.manual_seed(0)
    teacher, student, n = random(model(), 0.7), random(model(), 0.7), 20_000
    x = torch.randn(2, 2, dtype=torch.double)
    with torch.no_grad():
        exact = expected_divergences(teacher, student, {"x": x}, latents_from=latents_from)
        noise = teacher.noise(n)
        pair = paired_rollout(teacher, student, noise, {"x": x[1:].expand(n, 2)}, latents_from=latents_from)
    assert exact.keys() == {name for name, node in teacher.random_nodes().items() if node.family.is_random}
    for name, value in exact.items():
        values = node_divergence(pair, name, "kl", "sum").detach()
        assert abs(float(values.mean() - value[1])) <= 4 * float(values.std()) / n**0.5 + 1e-12


def test_the_expected_divergences_of_bits_before_normal_targets_are_exact_too():
    torch.manual_seed(0)

    def model():
        nodes = [Latent("z", Bernoulli((2,)), Constant(2)), Target("y", Normal((3,), scale=0.5), Curved(2, 3), "z")]
        return random(Graph(nodes))

    teacher, student, n = model(), model(), 20_000
    with torch.no_grad():
        exact = expected_divergences(teacher, student)["y"]
        values = node_divergence(paired_rollout(teacher, student, teacher.noise(n)), "y", "kl", "sum")
    assert abs(float(values.mean() - exact)) <= 4 * float(values.std()) / n**0.5


def test_expected_divergences_that_cannot_be_computed_are_refused():
    gumbel = pair_of(Categorical((3,), gumbel=True), Bernoulli((2,)), nn.Linear(3, 2))
    with pytest.raises(ConfigError, match=r"^node 'z': its values must be Bernoulli or Categorical without gumbel"):
        expected_divergences(gumbel, gumbel)
    with pytest.raises(ConfigError, match=r"^nodes z have more than"):
        expected_divergences(bits(9), bits(9))
    with pytest.raises(ConfigError, match=r"^latents_from must be one of student, teacher, got 'both'$"):
        expected_divergences(bits(2), bits(2), latents_from="both")
    torch.manual_seed(0)
    with pytest.raises(ConfigError, match=r"^node 'y' must have a deviation that depends on nothing random$"):
        expected_divergences(deviating(), straight())
    with pytest.raises(ConfigError, match=r"^node 'y' must be an affine function of the noise"):
        expected_divergences(curved(), curved())
