"""Fused copies of teachers: values, dtypes, the unchanged teacher, and devices with fast bfloat16."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdzoo.graphical_models import Bernoulli, Constant, Graph, Latent, Normal, Target
from kdzoo.graphical_models.fused_copy import fused_copy, has_fast_bfloat16
from kdzoo.graphical_models.paired import rollout_teacher
from kdzoo.models import ConvHVAE, StrokeVRNN


class Normed(Graph):
    """A model with a norm that it can fold."""

    def __init__(self):
        super().__init__(
            [
                Latent("top", Normal((2,)), Constant(4)),
                Latent("z", Normal((3,)), nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6)), "top"),
                Target("y", Bernoulli((4,)), nn.Linear(3, 4), "z", source="input"),
            ]
        )

    def fold_norms(self):
        twin = copy.deepcopy(self).eval()
        linear, norm = twin.entries[1].conditional.net
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        linear.weight.data *= scale[:, None].detach()
        linear.bias.data = ((linear.bias - norm.running_mean) * scale + norm.bias).detach()
        twin.entries[1].conditional.net = linear
        return twin


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    model = Normed()
    with torch.no_grad():
        for _ in range(20):
            model.rollout(model.noise(64))  # gives the norm its statistics
    return model


@pytest.mark.parametrize("bfloat16", [False, True], ids=["folded", "bfloat16"])
def test_a_copy_returns_nearly_the_same_values_in_the_same_dtype(teacher, bfloat16):
    teacher.eval()
    twin, noise = fused_copy(teacher, bfloat16=bfloat16), teacher.noise(50, leaves=True)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in twin.modules())
    expected, result = rollout_teacher(teacher, noise), rollout_teacher(twin, noise)
    assert {value.dtype for value in [*result.values.values(), *result.raw.values()]} == {torch.float32}
    tolerance = 0.03 if bfloat16 else 1e-5
    for name, raw in expected.raw.items():
        torch.testing.assert_close(result.raw[name], raw, atol=tolerance, rtol=tolerance)
    assert torch.equal(result.raw["y"], rollout_teacher(twin, noise).raw["y"])
    assert torch.equal(result.values["top"], expected.values["top"])  # a net without parents needs no matrix product


def test_the_teacher_does_not_change(teacher):
    before, training = copy.deepcopy(teacher.state_dict()), teacher.training
    twin = fused_copy(teacher, bfloat16=True)
    rollout_teacher(twin, teacher.noise(8))
    assert teacher.training is training
    assert not any(module.training for module in twin.modules())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert before.keys() == teacher.state_dict().keys()


def test_float64_stays_float64(teacher):
    teacher.eval().double()
    noise = teacher.noise(5)
    result, expected = (rollout_teacher(one, noise) for one in (fused_copy(teacher, bfloat16=True), teacher))
    for name, raw in expected.raw.items():
        torch.testing.assert_close(result.raw[name], raw, atol=1e-12, rtol=1e-12)


def test_a_sequence_without_norms_is_copied_too():
    torch.manual_seed(0)
    model = StrokeVRNN(in_shape=(3, 3), width=4, hidden=5).eval()
    noise = model.noise(2)
    result, expected = (rollout_teacher(one, noise) for one in (fused_copy(model, bfloat16=True), model))
    for name, raw in expected.raw.items():
        assert result.raw[name].dtype == torch.float32
        torch.testing.assert_close(result.raw[name], raw, atol=0.03, rtol=0.03)


def test_a_copy_made_under_inference_mode_can_be_used_in_training(teacher):
    teacher.eval()
    with torch.inference_mode():
        twin = fused_copy(teacher, bfloat16=True)
    assert not any(tensor.is_inference() for tensor in twin.state_dict().values())


def test_the_convolutional_model_folds_its_norms():
    torch.manual_seed(0)
    model = ConvHVAE(in_shape=(3, 32, 32), width=2).eval()
    twin, noise = fused_copy(model, bfloat16=False), model.noise(2)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in twin.modules())
    raw = rollout_teacher(model, noise).raw["image"]
    torch.testing.assert_close(rollout_teacher(twin, noise).raw["image"], raw, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("able", "gains"),
    [({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx2": True, "amx_bf16": False}, False)],
    ids=["amx", "avx512", "neither"],
)
def test_cpus_need_the_instructions_for_bfloat16(able, gains, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert has_fast_bfloat16(torch.device("cpu")) is gains


def test_gpus_that_only_emulate_bfloat16_do_not_count(monkeypatch):
    native = SimpleNamespace(value=True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: native.value or including_emulation
    )
    assert has_fast_bfloat16(torch.device("cuda"))
    native.value = False
    assert not has_fast_bfloat16(torch.device("cuda"))
    assert not has_fast_bfloat16(torch.device("mps"))
