"""Sets of samples: what their noise depends on, stored sets, and how many observations are used."""

import pytest
import torch
from torch import nn

from kdzoo.graphical_models import Categorical, Graph, Input, Latent, Normal, Target
from kdzoo.kinds import sample_sets
from kdzoo.kinds.sample_sets import StoredSamples, draw_samples, observations, observed_inputs, sample_set


class Joined(nn.Linear):
    """A linear layer of all parents."""

    def forward(self, *parents):
        return super().forward(torch.cat(parents, 1))


def graph(seed=0, conditional=False):
    torch.manual_seed(seed)
    nodes = [Latent("z", Normal((2,), scale=1.0))]
    if conditional:
        nodes.insert(0, Input("label", Categorical((3,)), source="target"))
    parents = ("z", "label") if conditional else "z"
    net = Joined(5 if conditional else 2, 4)
    return Graph([*nodes, Target("y", Normal((4,), scale=0.5), net, parents, source="input")])


def test_samples_depend_on_the_number_and_the_model_only():
    first = draw_samples(graph(), 5, 0)
    torch.manual_seed(7)
    assert torch.equal(draw_samples(graph(), 5, 0), first)
    assert not torch.equal(draw_samples(graph(), 5, 1), first)
    assert not torch.equal(draw_samples(graph(1), 5, 0), first)


def test_models_with_the_same_nodes_have_the_same_noise():
    generator = torch.Generator().manual_seed(3)
    noise = graph(1).noise(5, generator=generator)
    for seed in (0, 1):
        model = graph(seed)
        torch.testing.assert_close(draw_samples(model, 5, 3), model.samples(noise).detach())


def test_samples_are_drawn_in_eval_mode_and_the_model_stays_in_its_mode():
    model = graph()
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 4))
    model.targets()["y"].conditional.net = net
    state = {name: value.clone() for name, value in model.state_dict().items()}
    samples = draw_samples(model.train(), 6, 0)
    assert net.training
    assert not samples.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_given_inputs_are_used_and_others_are_drawn():
    model = graph(conditional=True)
    labels = torch.eye(3)[[0, 1, 2, 0]]
    noise = model.noise(4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        draw_samples(model, 4, 0, {"label": labels}), model.samples(noise, {"label": labels}).detach()
    )
    generator = torch.Generator().manual_seed(0)
    drawn = model.draw_inputs(4, generator=generator)
    expected = model.samples(model.noise(4, generator=generator), drawn)
    torch.testing.assert_close(draw_samples(model, 4, 0), expected.detach())


def test_stored_samples_take_the_place_of_a_model():
    stored = StoredSamples(torch.arange(6.0).reshape(3, 2), -torch.arange(6.0).reshape(3, 2))
    assert torch.equal(sample_set(stored, 2, 0, {}), stored.shared[:2])
    assert torch.equal(sample_set(stored, 9, 1, {}), stored.independent)
    assert torch.equal(stored(torch.zeros(1, 5)), stored.shared[:1])
    assert torch.equal(sample_set(graph(), 3, 1, {}), draw_samples(graph(), 3, 1))


@pytest.fixture
def batches(monkeypatch):
    """Two batches with 4 and 3 samples, of which 5 are used."""
    monkeypatch.setattr(sample_sets, "MAX_SAMPLES", 5)
    inputs, targets = torch.rand(7, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    masks = torch.arange(4) < torch.tensor([1, 2, 3, 4, 1, 2, 3])[:, None]
    return [{"input": inputs[rows], "target": targets[rows], "mask": masks[rows]} for rows in (slice(4), slice(4, 7))]


def test_observations_are_the_first_ones_with_their_numbers_of_steps(batches):
    inputs, lengths = observations(batches)
    assert torch.equal(inputs, torch.cat([batch["input"] for batch in batches])[:5])
    assert lengths.tolist() == [1, 2, 3, 4, 1]
    assert observations([{"input": batch["input"]} for batch in batches])[1] is None


def test_observed_inputs_are_those_of_the_same_observations(batches):
    values = observed_inputs(graph(conditional=True), batches)
    assert values["label"].argmax(1).tolist() == [0, 1, 2, 0, 1]
    assert observed_inputs(graph(), batches) == {}
    assert observed_inputs(StoredSamples(torch.zeros(1, 4), torch.zeros(1, 4)), batches) == {}
