"""Nodes: what conditionals return, what latents infer with, and which declarations are refused."""

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Bernoulli, Constant, Hidden, Input, Latent, Normal, Target
from kdzoo.graphical_models.families import MergedNormal
from kdzoo.graphical_models.nodes import Conditional

BIT = Bernoulli((1,))


class Sum(nn.Module):
    def forward(self, first, second):
        return first - 2 * second


def test_a_conditional_passes_the_parents_in_their_order():
    first, second = torch.tensor([[1.0]]), torch.tensor([[10.0]])
    conditional = Conditional(Sum(), ("a", "b"))
    assert conditional.parents == ("a", "b")
    assert conditional([first, second], 1, torch.zeros(())).tolist() == [[-19.0]]


def test_one_parent_can_be_named_without_a_tuple():
    assert Conditional(nn.Linear(2, 1), "z").parents == ("z",)


def test_a_conditional_without_a_network_is_zero_in_the_dtype_of_the_model():
    value = Conditional(None, (), (2, 3))([], 4, torch.zeros((), dtype=torch.double))
    assert value.dtype == torch.double
    assert torch.equal(value, torch.zeros(4, 2, 3, dtype=torch.double))


def test_a_constant_is_shared_by_all_samples_and_starts_at_zero():
    constant = Constant(3)
    conditional = Conditional(constant)
    values = conditional([], 5, torch.zeros(()))
    assert torch.equal(values, torch.zeros(5, 3))
    values.sum().backward()
    assert constant.value.grad.tolist() == [5.0, 5.0, 5.0]


def test_only_nodes_with_a_network_are_learned():
    assert not Latent("z", Normal((2,), scale=1.0)).is_learned
    assert Latent("z", Normal((2,)), Constant(4)).is_learned


def test_a_fixed_distribution_has_the_raw_shape_of_its_family():
    node = Target("y", Normal((2,)))
    assert node.conditional([], 3, torch.zeros(())).shape == (3, 4)


def test_a_merged_latent_infers_by_the_product_of_both_densities():
    plain = Latent("z", Normal((2,)), Constant(4), posterior=nn.Linear(3, 4), posterior_parents="y")
    merged = Latent("z", Normal((2,)), Constant(4), posterior=nn.Linear(3, 4), posterior_parents="y", merged=True)
    assert plain.posterior_family is plain.family
    assert merged.posterior_family == MergedNormal((2,))
    assert merged.posterior.parents == ("y",)


def test_observed_nodes_have_the_keys_of_common_batches_by_default():
    assert Input("x", BIT).source == "input"
    assert Target("y", BIT).source == "target"


REFUSED = {
    "name with a dot": (lambda: Latent("a.b", BIT), r"^name of a node must be a word .*, got 'a\.b'$"),
    "name of the state": (lambda: Latent("state", BIT), r"^name of a node must be a word .*, got 'state'$"),
    "no name": (lambda: Latent("", BIT), r"^name of a node must be a word .*, got ''$"),
    "no net": (lambda: Latent("z", BIT, None, "x"), r"^net must be a module for parents \['x'\], got None$"),
    "merged bits": (
        lambda: Latent("z", BIT, posterior=nn.Linear(1, 1), posterior_parents="y", merged=True),
        r"^node 'z': merged needs a normal family with a free scale and a posterior$",
    ),
    "merged without posterior": (
        lambda: Latent("z", Normal((1,)), merged=True),
        r"^node 'z': merged needs a normal family with a free scale and a posterior$",
    ),
    "name with a separator": (lambda: Hidden("a|b", nn.Identity(), "x"), r"got 'a\|b'$"),
    "no shape": (lambda: Conditional(None), r"^net must be a module for parents \[\], got None$"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_declarations_are_refused(case):
    declare, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        declare()
