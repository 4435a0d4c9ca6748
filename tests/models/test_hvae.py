import copy
import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from kdzoo.errors import ConfigError, DataError
from kdzoo.graphical_models.families import positive_scale
from kdzoo.graphical_models.paired import node_divergence, paired_rollout
from kdzoo.models import HVAE
from kdzoo.storage.checkpoint import load_student, save_model
from tests.models.packaged import packaged

CONF = Path(__file__).parents[2] / "conf"
SMALL = {"in_shape": (1, 4, 5), "latents": [6, 4, 3], "width": 7}
CONDITIONAL = {**SMALL, "num_classes": 3, "conditional": True}
BOTH = pytest.mark.parametrize("options", [SMALL, CONDITIONAL], ids=["alone", "conditional"])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def count(model):
    return sum(p.numel() for p in model.parameters())


def generative_count(model):
    inferring = sum(p.numel() for name, p in model.named_parameters() if ".posterior." in name)
    return count(model) - count(model.recognition) - inferring


def batch(n=8, in_shape=(1, 4, 5), classes=3):
    return {"input": torch.rand(n, *in_shape), "target": torch.arange(n) % classes}


# ---------------------------------------------------------------- sizes


def by_hand(width, pixels=784, latents=(24, 16, 8), classes=0):
    """Generative and other parameters: linear layers (n + 1) * m, one after the other."""

    def layers(*sizes):
        return sum((n + 1) * m for n, m in pairwise(sizes))

    above = [*latents[1:], 0]
    priors = sum(layers(n + classes, width, width, 2 * m) for n, m in zip(above, latents, strict=True) if n)
    generative = priors + layers(latents[0] + classes, width, width, pixels) + classes * 2 * latents[-1]
    up = layers(pixels + classes, width, width)
    up += (len(latents) - 1) * layers(width + classes, width, width, width)
    return generative, up + sum(layers(width, 2 * m) for m in latents)


@pytest.mark.parametrize(
    ("width", "total", "generative"),
    [(256, 1_118_656, 432_480), (32, 68_992, 33_312), (12, 24_072, 12_312)],
    ids=["teacher", "student", "narrow"],
)
def test_parameter_counts_on_digits(width, total, generative):
    model = HVAE(in_shape=(1, 28, 28), width=width)
    assert count(model) == total == sum(by_hand(width))
    assert generative_count(model) == generative == by_hand(width)[0]


def test_parameter_counts_with_a_condition_and_other_latents():
    model, generative_and_other = HVAE(**CONDITIONAL), by_hand(7, 20, (6, 4, 3), 3)
    assert generative_count(model) == generative_and_other[0]
    assert count(model) == sum(generative_and_other)


@pytest.mark.parametrize("latents", [[5], [5, 4], [5, 4, 3, 2]], ids=["one", "two", "four"])
def test_any_number_of_latents(latents):
    model = HVAE(in_shape=(9,), latents=latents, width=4)
    noise = model.noise(2, leaves=True)
    names = [f"z{level}" for level in range(len(latents), 0, -1)]
    assert {name: tuple(value.shape) for name, value in noise.items()} == {
        **{name: (2, latents[int(name[1]) - 1]) for name in names},
        "image": (2, 9),
    }
    assert list(model.random_nodes()) == [*names, "image"]
    assert all(term.isfinite().all() for term in model.negative_elbo(batch(2, (9,)), noise).values())


# ---------------------------------------------------------------- generation


def test_the_image_is_normal_with_a_fixed_deviation_and_an_unbounded_mean():
    model = HVAE(**SMALL)
    image = model.rollout(model.noise(50)).distributions["image"]
    assert image.mean.shape == (50, 1, 4, 5)
    assert image.mean.min() < 0
    assert image.variance.unique().tolist() == pytest.approx([0.05])
    assert HVAE(**SMALL, scale=0.5).rollout(model.noise(1)).distributions["image"].variance.unique().item() == 0.25


def test_the_topmost_prior_is_standard_normal_without_parameters():
    model = HVAE(**SMALL)
    noise = model.noise(5)
    trace = model.rollout(noise)
    assert not model.latents()["z3"].is_learned
    torch.testing.assert_close(trace.values["z3"], noise["z3"], rtol=2e-6, atol=0)
    assert trace.distributions["z3"].mean.abs().max() == 0


def test_the_topmost_prior_is_learned_for_each_class_with_a_condition():
    model = HVAE(**CONDITIONAL)
    label = torch.eye(3)
    prior = model.rollout(model.noise(3), {"label": label}).distributions["z3"]
    weight = model.latents()["z3"].conditional.net.linear.weight
    torch.testing.assert_close(prior.mean, weight[:3].T)
    torch.testing.assert_close(prior.stddev, positive_scale(weight[3:].T))


def test_the_condition_reaches_every_node():
    model = HVAE(**CONDITIONAL)
    noise = {name: value.expand(2, -1) for name, value in model.noise(1).items()}
    forced = {name: value for name, value in noise.items() if name != "z3"}
    trace = model.rollout(noise, {"label": torch.eye(3)[:2]}, forced=forced | {"z3": noise["z3"]})
    for name, distribution in trace.distributions.items():
        assert (distribution.mean[0] - distribution.mean[1]).abs().max() > 0, name


def test_as_many_images_are_drawn_as_there_are_inputs():
    for options in (SMALL, CONDITIONAL):
        assert HVAE(**options)(torch.zeros(6, 1, 4, 5)).shape == (6, 1, 4, 5)


# ---------------------------------------------------------------- inference


def merged(prior, likelihood):
    """Sonderby et al. 2016, equations 17 to 19, with precisions."""
    one, other = prior.variance.reciprocal(), likelihood.variance.reciprocal()
    return Normal((prior.mean * one + likelihood.mean * other) / (one + other), (one + other).rsqrt())


def normal(raw):
    loc, scale = raw.chunk(2, -1)
    return Normal(loc, positive_scale(scale))


@BOTH
def test_the_bound_equals_that_of_a_ladder_written_by_hand(options):
    model = HVAE(**options).double()
    data = {name: value.double() if value.is_floating_point() else value for name, value in batch().items()}
    noise = {name: value.double() for name, value in model.elbo_noise(8).items()}
    label = [torch.eye(3, dtype=torch.float64)[data["target"]]] if options is CONDITIONAL else []
    net = {name: node.conditional.net for name, node in model.random_nodes().items()}
    head = {name: node.posterior.net for name, node in model.latents().items()}
    up = [data["input"]]
    for node in model.recognition:
        up.append(node.conditional.net(up[-1], *label))
    prior = normal(net["z3"](*label)) if label else Normal(torch.zeros(8, 3), torch.ones(8, 3))
    result = normal(head["z3"](up[3]))
    posterior = merged(prior, result) if label else result
    expected = {"z3": kl_divergence(posterior, prior).sum(1)}
    value = posterior.mean + posterior.stddev * noise["z3"]
    for level in (2, 1):
        name = f"z{level}"
        prior = normal(net[name](value, *label))
        posterior = merged(prior, normal(head[name](up[level])))
        expected[name] = kl_divergence(posterior, prior).sum(1)
        value = posterior.mean + posterior.stddev * noise[name]
    squares = (data["input"] - net["image"](value, *label)).square().sum((1, 2, 3))
    expected["image"] = squares / 0.1 + 10 * math.log(2 * math.pi * 0.05)
    for name, term in model.negative_elbo(data, noise).items():
        torch.testing.assert_close(term, expected[name], rtol=1e-5, atol=1e-9, msg=name)


@BOTH
def test_the_bound_reaches_every_parameter(options):
    model = HVAE(**{**options, "width": 32})
    sum(model.negative_elbo(batch(), model.elbo_noise(8)).values()).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


@BOTH
def test_fifty_steps_lower_the_bound(options):
    model, data = HVAE(**options), batch(16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    bounds = []
    for _ in range(50):
        loss = sum(model.negative_elbo(data, model.elbo_noise(16)).values()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bounds.append(loss.item())
    assert all(map(math.isfinite, bounds))
    assert sum(bounds[-5:]) / 5 < 0.5 * bounds[0]


def test_classes_out_of_range_are_refused():
    model = HVAE(**CONDITIONAL)
    with pytest.raises(DataError, match=r"classes must be in 0\.\.2"):
        model.negative_elbo({**batch(4), "target": torch.tensor([0, 1, 2, 3])}, model.elbo_noise(4))


# ---------------------------------------------------------------- as teacher and student


@BOTH
def test_divergences_are_zero_for_a_copy_and_positive_for_another_model(options):
    model, other = HVAE(**options), HVAE(**{**options, "width": 3})
    noise, inputs = model.noise(6), model.draw_inputs(6)
    same = paired_rollout(model, copy.deepcopy(model), noise, inputs)
    pair = paired_rollout(model, other, noise, inputs)
    for name, node in model.random_nodes().items():
        for kind in ("kl", "w2"):
            assert node_divergence(same, name, kind, "sum").abs().max() == 0
            assert bool(node_divergence(pair, name, kind, "sum").min() > 0) == node.is_learned


def test_distillation_trains_exactly_the_generative_parameters():
    teacher, student = HVAE(**SMALL), HVAE(**SMALL)
    pair = paired_rollout(teacher, student, teacher.noise(6))
    node_divergence(pair, "image", "kl", "sum").sum().backward()
    reached = {name for name, p in student.named_parameters() if p.grad is not None}
    assert reached == {
        name for name, _ in student.named_parameters() if name.startswith("entries.") and ".posterior." not in name
    }
    assert all(p.grad is None for p in teacher.parameters())


@BOTH
def test_an_exported_model_gives_the_same_values(options, tmp_path):
    model = HVAE(**options)
    to_container = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    save_model(model, {"_target_": "kdzoo.models.HVAE", **to_container}, tmp_path)
    twin = load_student(tmp_path)
    noise, inputs = model.noise(3), model.draw_inputs(3)
    one, other = (each.rollout(noise, inputs).raw for each in (model, twin))
    assert all(torch.equal(one[name], other[name]) for name in model.random_nodes())


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(("group", "width"), [("student", 32), ("teacher", 256)], ids=["student", "teacher"])
def test_the_packaged_configurations_build_models_of_the_right_size(group, width):
    node = packaged(group, "hvae")
    assert node.pop("_target_") == "kdzoo.models.HVAE"
    assert node == {"latents": [24, 16, 8], "width": width, "scale": math.sqrt(0.05), "conditional": False}
    assert count(HVAE(in_shape=[1, 28, 28], num_classes=10, **node)) == sum(by_hand(width))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"latents": []}, "latents must be a list of integers >= 1, got []"),
        ({"latents": [3, 0]}, "latents[1] must be an integer >= 1, got 0"),
        ({"scale": 0.0}, "scale must be finite and > 0, got 0.0"),
        ({"in_shape": (0, 4)}, "in_shape[0] must be an integer >= 1, got 0"),
        ({"conditional": True}, "num_classes must be an integer >= 1 where conditional is true, got None"),
        ({"conditional": True, "num_classes": 0}, "num_classes must be an integer >= 1, got 0"),
        ({"conditional": 1, "num_classes": 2}, "conditional must be true or false, got 1"),
    ],
    ids=["width", "no_latents", "empty_latent", "scale", "in_shape", "without_classes", "no_class", "number_as_flag"],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        HVAE(**{**SMALL, **options})
