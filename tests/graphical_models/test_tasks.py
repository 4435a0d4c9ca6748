"""Tasks: what a rollout computes for each sort of node, from what, and in which order."""

import pytest
import torch
from torch import nn

from kdzoo.graphical_models import Bernoulli, Constant, Delta, Hidden, Input, Latent, Normal, Target
from kdzoo.graphical_models.tasks import RolloutOptions, hard_sample, node_tasks

LATENT = Latent("z", Normal((2,)), nn.Linear(3, 4), "x", posterior=nn.Linear(5, 4), posterior_parents="y")
MERGED = Latent("z", Normal((2,)), nn.Linear(3, 4), "x", posterior=nn.Linear(5, 4), posterior_parents="y", merged=True)
NOISY = frozenset({"z"})


def described(node, **options):
    """Return what the tasks of a node need and provide."""
    return [(task.needs, task.provides) for task in node_tasks(node, RolloutOptions(**options))]


PRIOR = (("x",), "z|prior")
CASES = {
    "input": (Input("x", Normal((1,))), {}, []),
    "hidden": (Hidden("h", nn.Identity(), "x"), {}, [(("x",), "h")]),
    "without noise": (LATENT, {}, [PRIOR]),
    "with noise": (LATENT, {"noisy": NOISY}, [PRIOR, (("z|prior", "z|noise"), "z")]),
    "forced": (LATENT, {"noisy": NOISY, "forced": frozenset({"z"})}, [PRIOR]),
    "inferred": (
        LATENT,
        {"noisy": NOISY, "infer": True},
        [PRIOR, (("y",), "z|posterior"), (("z|posterior", "z|noise"), "z")],
    ),
    "merged": (
        MERGED,
        {"noisy": NOISY, "infer": True},
        [PRIOR, (("z|prior", "y"), "z|posterior"), (("z|posterior", "z|noise"), "z")],
    ),
    "mixed": (
        LATENT,
        {"noisy": NOISY, "mixed": NOISY},
        [PRIOR, (("z|prior", "z|noise", "z|other", "z|is_other"), "z")],
    ),
    "point mass": (Latent("z", Delta((2,)), nn.Linear(3, 2), "x"), {}, [PRIOR, (("z|prior",), "z")]),
    "constant": (Target("z", Bernoulli((2,)), Constant(2)), {}, [((), "z|prior")]),
}


@pytest.mark.parametrize("case", CASES)
def test_tasks_state_what_they_need_and_provide(case):
    node, options, expected = CASES[case]
    assert described(node, **options) == expected


def test_a_value_is_what_the_sampler_returns_for_the_networks_output():
    def sampler(family, raw, noise):
        return raw[:, : family.shape[0]] + 10 * noise

    value_task = node_tasks(LATENT, RolloutOptions(noisy=NOISY, sampler=sampler))[-1]
    raw, noise = torch.arange(8.0).reshape(2, 4), torch.ones(2, 2)
    assert value_task.run([raw, noise], 2, raw).tolist() == [[10.0, 11.0], [14.0, 15.0]]


def test_hard_samples_are_those_of_the_family():
    family, raw, noise = Bernoulli((3,)), torch.tensor([[-1.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.4, 0.6]])
    assert hard_sample(family, raw, noise).tolist() == [[0.0, 1.0, 1.0]]


def test_mixed_samples_take_the_value_of_the_other_model():
    task = node_tasks(LATENT, RolloutOptions(noisy=NOISY, mixed=NOISY))[-1]
    raw, noise, other = torch.zeros(3, 4), torch.ones(3, 2), torch.full((3, 2), 7.0)
    values = task.run([raw, noise, other, torch.tensor([True, False, True])], 3, raw)
    own = LATENT.family.sample(raw, noise)
    assert torch.equal(values[[0, 2]], other[[0, 2]])
    assert torch.equal(values[1], own[1])


def test_the_raw_parameters_of_a_merged_posterior_are_those_of_prior_and_likelihood():
    task = node_tasks(MERGED, RolloutOptions(noisy=NOISY, infer=True))[1]
    prior, observed = torch.randn(6, 4), torch.randn(6, 5)
    merged = task.run([prior, observed], 6, prior)
    assert torch.equal(merged, torch.cat([prior, MERGED.posterior.net(observed)], 1))
