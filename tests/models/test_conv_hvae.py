import copy
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from kdzoo.errors import ConfigError
from kdzoo.graphical_models.paired import node_divergence, paired_rollout
from kdzoo.models import ConvHVAE
from kdzoo.models.conv_hvae import Block, Stage
from kdzoo.storage.checkpoint import load_student, save_model
from tests.models.packaged import packaged

CONF = Path(__file__).parents[2] / "conf"
SMALL = {"in_shape": (3, 32, 32), "width": 4}
CONDITIONAL = {**SMALL, "num_classes": 2, "conditional": True}
BOTH = pytest.mark.parametrize("options", [SMALL, CONDITIONAL], ids=["alone", "conditional"])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def count(model):
    return sum(p.numel() for p in model.parameters())


def generative_count(model):
    inferring = sum(p.numel() for name, p in model.named_parameters() if ".posterior." in name)
    return count(model) - count(model.recognition) - inferring


def batch(n=8):
    return {"input": torch.rand(n, 3, 32, 32), "target": torch.arange(n) % 2}


def used(model):
    """Give the norms statistics and weights other than those they begin with."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval()


# ---------------------------------------------------------------- sizes


# The millions are those of the paper's table 1, of which 6.60, 0.44, 0.12, 0.04 and 5.39, 0.10, 0.03, 0.01 are printed.
@pytest.mark.parametrize(
    ("side", "width", "millions", "generative"),
    [
        (64, 128, "6.601", "2.944"),
        (64, 32, "0.443", "0.208"),
        (64, 16, "0.121", "0.060"),
        (64, 8, "0.035", "0.019"),
        (32, 128, "5.386", "2.337"),
        (32, 16, "0.102", "0.050"),
        (32, 8, "0.030", "0.016"),
        (32, 4, "0.010", "0.006"),
    ],
    ids=[
        *("celeba_teacher", "celeba_wide", "celeba_middle", "celeba_narrow"),
        *("teacher", "wide", "middle", "narrow"),
    ],
)
def test_parameter_counts_are_those_of_the_paper(side, width, millions, generative):
    model = ConvHVAE(in_shape=(3, side, side), width=width, scale=None)
    assert (f"{count(model) / 1e6:.3f}", f"{generative_count(model) / 1e6:.3f}") == (millions, generative)
    assert count(ConvHVAE(in_shape=(3, side, side), width=width)) == count(model) - 3 * width


def test_the_narrowest_has_10_104_parameters():
    assert count(ConvHVAE(in_shape=(3, 32, 32), width=4, scale=None)) == 10_104


def test_parameter_count_of_the_conditional_model_for_continual_learning():
    model = ConvHVAE(in_shape=(3, 32, 32), width=64, scale=None, num_classes=2, conditional=True)
    assert f"{count(model) / 1e6:.3f}" == "1.360"


@pytest.mark.parametrize(
    ("side", "sides"),
    [(32, [1, 2, 4, 8, 16]), (64, [1, 4, 8, 16, 32]), (128, [1, 8, 16, 32, 64])],
    ids=["small", "celeba", "large"],
)
def test_noise_has_the_shapes_of_the_latents(side, sides):
    model = ConvHVAE(in_shape=(1, side, side), width=2)
    shapes = [tuple(value.shape) for value in model.noise(2, leaves=True).values()]
    assert shapes == [*((2, 16, one, one) for one in sides), (2, 1, side, side)]
    trace = model.rollout(model.noise(2))
    assert [tuple(raw.shape) for raw in trace.raw.values()] == [
        *((2, 32, one, one) for one in sides),
        (2, 1, side, side),
    ]


def test_the_image_has_a_fixed_deviation_or_one_for_each_pixel():
    fixed, free = ConvHVAE(**SMALL), ConvHVAE(**SMALL, scale=None)
    one, other = (model.rollout(model.noise(4)).distributions["image"] for model in (fixed, free))
    assert one.variance.unique().tolist() == pytest.approx([0.05])
    assert one.mean.min() < 0
    assert other.mean.shape == other.stddev.shape == (4, 3, 32, 32)
    assert other.variance.unique().numel() > 1000


# ---------------------------------------------------------------- parts


def norm(x, module):
    return F.batch_norm(x, module.running_mean, module.running_var, module.weight, module.bias)


@pytest.mark.parametrize("resize", ["half", "same", "double"])
@pytest.mark.parametrize("n_in", [3, 5], ids=["wider", "as_wide"])
def test_a_block_is_the_formula_with_the_doubling_before_both_paths(resize, n_in):
    block, x = used(Block(n_in, 5, resize)), torch.randn(2, n_in, 6, 6)
    stride = 2 if resize == "half" else 1
    if resize == "double":
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    skip = x
    if resize != "same" or n_in == 3:
        skip = torch.einsum("oi,nihw->nohw", block.skip.weight[:, :, 0, 0], x[:, :, ::stride, ::stride])
    h = norm(F.conv2d(x, block.conv1.weight, stride=stride, padding=1), block.norm1).clamp_min(0)
    h = norm(F.conv2d(h, block.conv2.weight, padding=1), block.norm2)
    given = x[:, :, ::2, ::2] if resize == "double" else x
    torch.testing.assert_close(block(given), (h + skip).clamp_min(0))


def test_a_stage_has_two_blocks_for_each_change_of_size():
    stage = Stage(3, 4, ["half", "half"], n_out=7)
    assert [tuple(block.conv1.weight.shape[:2]) for block in stage.blocks] == [(4, 3), (4, 4), (4, 4), (4, 4)]
    assert [block.conv1.stride[0] for block in stage.blocks] == [2, 1, 2, 1]
    assert stage(torch.zeros(2, 3, 16, 16)).shape == (2, 7, 4, 4)


def test_a_condition_is_joined_to_every_pixel():
    stage, x = Stage(3, 4, ["half"], classes=2).eval(), torch.randn(2, 3, 8, 8)
    label = torch.eye(2)
    planes = label[:, :, None, None].expand(2, 2, 8, 8)
    assert torch.equal(stage(x, label), stage.blocks(torch.cat([x, planes], 1)))


def test_the_condition_reaches_every_node():
    model = ConvHVAE(**CONDITIONAL).eval()
    values = {name: value.expand(2, -1, -1, -1) for name, value in model.noise(1).items()}
    trace = model.rollout({}, {"label": torch.eye(2)}, forced=values)
    for name, distribution in trace.distributions.items():
        assert (distribution.mean[0] - distribution.mean[1]).abs().max() > 0, name


# ---------------------------------------------------------------- training


@BOTH
def test_the_bound_reaches_every_parameter(options):
    model = ConvHVAE(**{**options, "width": 8})
    sum(model.negative_elbo(batch(), model.elbo_noise(8)).values()).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_fifty_steps_lower_the_bound():
    model, data = ConvHVAE(in_shape=(3, 32, 32), width=2), batch(4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    bounds = []
    for _ in range(50):
        loss = sum(model.negative_elbo(data, model.elbo_noise(4)).values()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bounds.append(loss.item())
    assert all(map(math.isfinite, bounds))
    assert sum(bounds[-5:]) / 5 < 0.5 * bounds[0]


# ---------------------------------------------------------------- as teacher and student


@BOTH
def test_divergences_are_zero_for_a_copy_and_positive_for_a_narrower_model(options):
    model, other = used(ConvHVAE(**options).double()), ConvHVAE(**{**options, "width": 2}).double()
    noise, inputs = model.noise(6), {name: value.double() for name, value in model.draw_inputs(6).items()}
    same = paired_rollout(model, copy.deepcopy(model), noise, inputs)
    pair = paired_rollout(model, other, noise, inputs)
    for name, node in model.random_nodes().items():
        assert node_divergence(same, name, "kl", "sum").abs().max() == 0
        assert bool(node_divergence(pair, name, "kl", "sum").min() > 0) == node.is_learned


def test_distillation_does_not_change_the_teachers_statistics():
    teacher, student = ConvHVAE(**SMALL), ConvHVAE(**SMALL)
    before = copy.deepcopy(teacher.state_dict())
    node_divergence(paired_rollout(teacher, student, teacher.noise(6)), "image", "kl", "sum").sum().backward()
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


@BOTH
def test_a_copy_with_folded_norms_gives_the_same_values(options):
    model = used(ConvHVAE(**options))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # keep values near 1, as in a trained model
            nn.init.uniform_(module.weight, 0.5, 1)
    before, folded = copy.deepcopy(model.state_dict()), model.train().fold_norms()
    assert model.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    noise, image, label = model.noise(4), torch.rand(4, 3, 32, 32), torch.eye(2).repeat(2, 1)
    inputs = {"label": label} if options is CONDITIONAL else {}
    trace, fast = (each.rollout(noise, inputs, forced={"image": image}, infer=True) for each in (model.eval(), folded))
    for name, raw in trace.raw.items():
        torch.testing.assert_close(fast.raw[name], raw, rtol=1e-5, atol=1e-5)
    for name, posterior in trace.posteriors.items():
        torch.testing.assert_close(fast.posteriors[name].mean, posterior.mean, rtol=1e-5, atol=1e-5)


@BOTH
def test_an_exported_model_gives_the_same_values(options, tmp_path):
    model = used(ConvHVAE(**options))
    save_model(model, {"_target_": "kdzoo.models.ConvHVAE", **options, "in_shape": [3, 32, 32]}, tmp_path)
    twin = load_student(tmp_path)
    noise, inputs = model.noise(3), model.draw_inputs(3)
    one, other = (each.rollout(noise, inputs).raw for each in (model, twin))
    assert all(torch.equal(one[name], other[name]) for name in model.random_nodes())


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(("group", "width"), [("student", 16), ("teacher", 128)], ids=["student", "teacher"])
def test_the_packaged_configurations_build_models_of_the_right_size(group, width):
    node = packaged(group, "conv_hvae")
    assert node.pop("_target_") == "kdzoo.models.ConvHVAE"
    assert node == {"width": width, "scale": math.sqrt(0.05), "conditional": False}
    expected = {16: 101_664, 128: 5_386_496}[width] - 3 * width
    assert count(ConvHVAE(in_shape=[3, 32, 32], num_classes=10, **node)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"scale": -1.0}, "scale must be finite and > 0, got -1.0"),
        ({"in_shape": (32, 32)}, "in_shape (channels, height, width) must be 3 integers >= 1, got (32, 32)"),
        ({"in_shape": (1, 28, 28)}, "in_shape must be square with a side of 32, 64, 128, ... pixels, got 28 x 28"),
        ({"in_shape": (1, 16, 16)}, "in_shape must be square with a side of 32, 64, 128, ... pixels, got 16 x 16"),
        ({"in_shape": (1, 32, 64)}, "in_shape must be square with a side of 32, 64, 128, ... pixels, got 32 x 64"),
        ({"conditional": True}, "num_classes must be an integer >= 1 where conditional is true, got None"),
    ],
    ids=["width", "scale", "flat", "digits", "small", "oblong", "without_classes"],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        ConvHVAE(**{**SMALL, **options})
