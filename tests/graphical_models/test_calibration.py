"""Weights of latents, against closed forms and finite differences."""

import pytest
import torch
from torch import nn

from kdzoo.graphical_models import LSTM, Bernoulli, Constant, Delta, Graph, Hidden, Latent, Normal, Scan, Target
from kdzoo.graphical_models.calibration import latent_weights
from kdzoo.graphical_models.paired import Pair, node_divergence, rollout_student, rollout_teacher


class Mean(nn.Linear):
    """A linear mean with deviations of 1/2."""

    def forward(self, parent):
        means = super().forward(parent)
        return torch.cat([means, torch.full_like(means, -0.8813735)], -1)  # softplus of it is about ln 2 / 2


def chain(family, net):
    torch.manual_seed(0)
    return Graph(
        [
            Latent("z2", Normal((3,), scale=1.0)),
            Latent("z1", Normal((4,)), Mean(3, 4), "z2"),
            Target("y", family, net, "z1"),
        ]
    ).double()


def test_the_weight_in_a_linear_chain_is_the_mean_square_of_the_jacobian():
    torch.manual_seed(1)
    model = chain(Normal((5,), scale=0.5), nn.Linear(4, 5))
    torch.manual_seed(0)
    result = latent_weights(model, model.noise(20_000, leaves=True))
    lower = model.entries[2].conditional.net.weight.detach()
    upper = lower @ model.entries[1].conditional.net.weight.detach()
    for name, jacobian in (("z1", lower), ("z2", upper)):
        expected = float(jacobian.square().sum(0).mean() / 0.25 / 2)
        assert float(result[name]) == pytest.approx(expected, rel=0.03)


def test_the_weight_for_point_masses_counts_squared_differences():
    torch.manual_seed(1)
    model = chain(Delta((5,)), nn.Linear(4, 5))
    result = latent_weights(model, model.noise(20_000, leaves=True))
    jacobian = model.entries[2].conditional.net.weight.detach()
    assert float(result["z1"]) == pytest.approx(float(jacobian.square().sum(0).mean()), rel=0.03)


class Concatenated(nn.Linear):
    def forward(self, *values):
        return super().forward(torch.cat(values, -1))


def sequence():
    torch.manual_seed(0)
    return Graph(
        [
            Scan(
                [
                    Latent("z", Normal((2,)), Concatenated(4, 4), "state"),
                    Target("x", Normal((3,), scale=0.3), Concatenated(6, 3), ("z", "state")),
                    Hidden("gate_input", nn.Linear(3, 16), "x"),
                ],
                LSTM(4, ("gate_input", "z"), 2, has_gate_input=True),
                5,
            )
        ]
    ).double()


def test_the_weight_in_a_sequence_is_the_cost_of_a_small_error():
    """The surrogate loss of a small error in all latents is about their squared error times the weight."""
    model = sequence()
    noise = {name: value.double() for name, value in model.noise(4000, leaves=True).items()}
    weight = float(latent_weights(model, noise)["z"])
    assert weight > 0.01
    trace = rollout_teacher(model, noise)
    error = 1e-3
    moved = {**noise, "z": noise["z"] + error * torch.randn_like(noise["z"]) / trace.distributions["z"].stddev}
    with torch.no_grad():
        pair = Pair(trace, rollout_student(model, trace, moved))
        cost = float(node_divergence(pair, "x", "kl", "sum").mean())
        squared = float((pair.student.values["z"] - trace.values["z"]).square().sum((1, 2)).mean())
    assert cost / squared == pytest.approx(weight, rel=0.1)


def test_latents_that_reach_the_targets_only_through_bits_have_weight_zero():
    model = Graph(
        [
            Latent("z", Normal((2,), scale=1.0)),
            Latent("bits", Bernoulli((3,)), nn.Linear(2, 3), "z"),
            Target("y", Normal((2,), scale=1.0), nn.Linear(3, 2), "bits"),
        ]
    )
    assert {name: float(value) for name, value in latent_weights(model, model.noise(8, leaves=True)).items()} == {
        "z": 0
    }
    bits = Graph([Latent("b", Bernoulli((2,)), Constant(2)), Target("y", Normal((2,), 1.0), nn.Linear(2, 2), "b")])
    assert latent_weights(bits, bits.noise(8, leaves=True)) == {}
