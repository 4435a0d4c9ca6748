"""The divergences of nodes: names, defaults for latents, reductions, sequences, and the bound."""

import pytest
import torch

from kdzoo.distillers.generative.node_divergences import NodeDivergences
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.paired import node_divergence, paired_rollout
from kdzoo.models import StrokeVRNN
from tests.distillers.generative.cases import binary_chain, normal_chain


def rollout(build):
    teacher, student = build(0), build(1)
    return paired_rollout(teacher, student, teacher.noise(6)), student


@pytest.mark.parametrize(
    ("build", "kind"), [(normal_chain, "w2"), (binary_chain, "kl")], ids=["continuous", "discrete"]
)
def test_targets_come_first_and_latents_have_the_divergence_of_their_family(build, kind):
    pair, student = rollout(build)
    terms = NodeDivergences()(pair, student)
    assert next(iter(terms)) == "y"
    assert torch.equal(terms["y"], node_divergence(pair, "y", "kl", "sum"))
    assert torch.equal(terms["z1"], node_divergence(pair, "z1", kind, "sum"))


def test_latents_without_parameters_are_left_out():
    pair, student = rollout(normal_chain)
    assert list(NodeDivergences()(pair, student)) == ["y", "z1"]
    assert list(NodeDivergences()(pair, student, latents=[])) == ["y"]
    assert list(NodeDivergences()(pair, student, latents=["z2"])) == ["y", "z2"]


def test_the_reduction_is_that_of_latents_only():
    pair, student = rollout(normal_chain)
    sums, means = (NodeDivergences("mmd", "kl", reduction)(pair, student) for reduction in ("sum", "mean"))
    assert torch.equal(sums["y"], means["y"])
    torch.testing.assert_close(sums["z1"], 4 * means["z1"])
    assert torch.equal(sums["y"], node_divergence(pair, "y", "mmd", "sum"))
    assert torch.equal(sums["z1"], node_divergence(pair, "z1", "kl", "sum"))


def test_steps_after_the_end_of_a_sequence_do_not_count():
    torch.manual_seed(0)
    teacher, student = (StrokeVRNN(in_shape=(5, 3), width=4, hidden=6) for _ in range(2))
    pair = paired_rollout(teacher, student, teacher.noise(3))
    lengths = torch.tensor([5, 2, 0])
    terms = NodeDivergences()(pair, student, lengths=lengths)
    expected = NodeDivergences()(pair, student)
    for name, value in terms.items():
        torch.testing.assert_close(value[0], expected[name][0])
        assert 0 < float(value[1].detach()) < float(expected[name][1].detach())
        assert float(value[2].detach()) == 0


def test_only_divergences_of_probabilities_have_a_bound():
    student = binary_chain()
    for divergence in ("kl", "w2", "mmd"):
        assert NodeDivergences(divergence).missing_bound(student) == ""
    assert NodeDivergences("logits").missing_bound(student) == "divergence=logits of targets y"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"divergence": "js"}, "^divergence must be one of kl, w2, mmd, logits, got 'js'$"),
        ({"latent_divergence": "js"}, "^latent_divergence must be one of auto, kl, w2, mmd, logits, got 'js'$"),
        ({"reduction": "max"}, "^reduction must be one of sum, mean, got 'max'$"),
    ],
    ids=["targets", "latents", "reduction"],
)
def test_an_unknown_name_raises(options, message):
    with pytest.raises(ConfigError, match=message):
        NodeDivergences(**options)


def test_a_divergence_that_a_family_lacks_raises_with_the_node():
    pair, student = rollout(normal_chain)
    with pytest.raises(ConfigError, match="node 'z1': there is no logits between"):
        NodeDivergences(latent_divergence="logits")(pair, student)
