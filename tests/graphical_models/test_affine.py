"""Linear normal graphs, against their matrices and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.graphical_models import STATE, Bernoulli, Delta, Graph, Latent, Normal, Scan, Target
from kdzoo.graphical_models.affine import affine_maps, check_normal, compared_families, gaussian_marginal
from kdzoo.graphical_models.marginal import log_marginal
from tests.graphical_models.cases import Last, bits, curved, linear, random, straight


def test_the_moments_of_a_linear_graph_are_those_of_its_matrices():
    torch.manual_seed(0)
    graph = random(linear())
    x = torch.randn(2, 2, dtype=torch.double)
    nets = {name: node.conditional.net for name, node in graph.random_nodes().items()}
    weights = {name: nets[name].weight.detach().numpy() for name in ("y1", "h", "y2")}
    biases = {name: nets[name].bias.detach().numpy() for name in ("y1", "h", "y2")}
    mean_z = nets["z"].value.detach()[:3].numpy()
    scale_z = (nn.functional.softplus(nets["z"].value.detach()[3:]) / math.log(2) + 1e-6).numpy()
    of_x, of_z = weights["y1"][:, :2], weights["y1"][:, 2:]
    later = weights["y2"] @ weights["h"]
    from_noise = np.block([of_z @ np.diag(scale_z), 0.5 * np.eye(2), np.zeros((2, 3))])
    z_from_noise = np.block([np.diag(scale_z), np.zeros((3, 5))])
    second = later @ np.vstack([z_from_noise, from_noise]) + np.block([np.zeros((3, 5)), 0.7 * np.eye(3)])
    matrix = np.vstack([from_noise, second])
    result = gaussian_marginal(graph, {"x": x})
    for i in range(2):
        first = of_x @ x[i].numpy() + of_z @ mean_z + biases["y1"]
        mean = np.concatenate([first, later @ np.concatenate([mean_z, first]) + weights["y2"] @ biases["h"]])
        mean[2:] += biases["y2"]
        np.testing.assert_allclose(result.mean[i].detach(), mean, atol=1e-12)
        np.testing.assert_allclose(result.covariance_matrix[i].detach(), matrix @ matrix.T, atol=1e-12)
        y = torch.randn(1, 5, dtype=torch.double)
        density = log_marginal(graph, {"y1": y[:, :2], "y2": y[:, 2:]}, {"x": x[i : i + 1]})
        expected = multivariate_normal(mean, matrix @ matrix.T).logpdf(y[0])
        assert density.item() == pytest.approx(expected, rel=1e-9)


def test_a_linear_sequence_is_jointly_normal():
    nodes = [
        Latent("z", Normal((1,), scale=1.0), nn.Linear(1, 1, bias=False), STATE),
        Target("y", Normal((1,), scale=0.5), nn.Linear(1, 1, bias=False), "z"),
    ]
    graph = Graph([Scan(nodes, Last("z", 1), 5)]).double()
    nn.init.constant_(nodes[0].conditional.net.weight, 0.8)
    nn.init.constant_(nodes[1].conditional.net.weight, 3.0)
    from_noise = np.array([[0.8 ** (i - j) if i >= j else 0 for j in range(5)] for i in range(5)])
    expected = 9 * from_noise @ from_noise.T + 0.25 * np.eye(5)
    np.testing.assert_allclose(gaussian_marginal(graph).covariance_matrix[0].detach(), expected, atol=1e-12)


def test_an_affine_map_is_the_offset_and_the_matrix_of_a_function_of_the_noise():
    graph = random(straight())
    matrix = torch.tensor([[1.0, 2.0, 0.0, -3.0], [0.5, 0.0, 4.0, 1.0]], dtype=torch.double)
    inputs = {"x": torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]], dtype=torch.double)}

    def compute(noise, repeated):
        return {"value": torch.cat([noise["z"], noise["y"]], 1) @ matrix.T + repeated["x"]}

    offset, result = affine_maps(compute, graph, inputs)["value"]
    assert torch.equal(offset, inputs["x"])
    torch.testing.assert_close(result, matrix.expand(3, 2, 4))


@pytest.mark.parametrize("power", [2, 3])
def test_a_function_that_is_not_affine_is_refused(power):
    with pytest.raises(ConfigError, match=r"^node 'value' must be an affine function of the noise, but is off by"):
        affine_maps(lambda noise, inputs: {"value": noise["z"] ** power}, straight(), {})


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ConfigError, match=r"^node 'value' must be an affine function of the noise, but is off by nan$"):
        affine_maps(lambda noise, inputs: {"value": noise["z"] * torch.nan}, straight(), {})


def test_a_network_that_is_not_affine_has_no_normal_marginal():
    torch.manual_seed(0)
    with pytest.raises(ConfigError, match=r"^node 'y' must be an affine function of the noise"):
        gaussian_marginal(curved())


def test_point_masses_are_compared_only_if_they_are_targets():
    families = compared_families(linear())
    assert list(families) == ["z", "y1", "y2"]
    graph = Graph([Latent("z", Normal((2,), scale=1.0)), Target("y", Delta((2,)), nn.Linear(2, 2), "z")])
    assert list(compared_families(graph)) == ["z", "y"]


def test_only_normal_nodes_make_a_linear_normal_graph():
    check_normal(linear())
    with pytest.raises(ConfigError, match=r"^node 'z': a linear normal graph has only Normal nodes, got Bernoulli"):
        check_normal(bits(2))
    assert isinstance(bits(2).latents()["z"].family, Bernoulli)
