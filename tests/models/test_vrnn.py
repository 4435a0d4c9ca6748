import copy
import inspect
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import softplus

import kdzoo.models
from kdzoo.errors import ConfigError, DataError
from kdzoo.graphical_models.paired import node_divergence, paired_rollout, rollout_student
from kdzoo.models import StrokeVRNN, VectorVRNN
from kdzoo.storage.checkpoint import load_student, save_model
from tests.models.packaged import packaged

CONF = Path(__file__).parents[2] / "conf"
SMALL = {"latents": 3, "width": 5, "hidden": 4}
BUILT = {
    "strokes": lambda steps=6, **sizes: StrokeVRNN(in_shape=(steps, 3), scale=0.5, **{**SMALL, **sizes}),
    "vectors": lambda steps=6, **sizes: VectorVRNN(in_shape=(steps, 7), **{**SMALL, **sizes}),
}
BOTH = pytest.mark.parametrize("kind", list(BUILT))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def sequences(kind, n=5, steps=6):
    """A batch whose values depend on the step, so that there is something to learn."""
    bits = (torch.rand(n, steps, 7) < torch.linspace(0.05, 0.95, steps)[:, None]).float()
    offsets = torch.linspace(-1, 1, steps)[None, :, None] + 0.1 * torch.randn(n, steps, 2)
    return {"input": bits if kind == "vectors" else torch.cat([bits[..., :1], offsets], -1)}


def nets(model):
    """The nets of a step by the name of their node."""
    return {node.name: node.conditional.net for node in model.scan.nodes}


# ---------------------------------------------------------------- sizes


def layers(*sizes):
    """Parameters of linear layers one after the other."""
    return sum((n + 1) * m for n, m in pairwise(sizes))


@pytest.mark.parametrize(
    ("width", "hidden", "total", "inferring"), [(512, 1200, 14.41, 1.16), (128, 600, 2.42, 0.11)], ids=["big", "small"]
)
def test_parameters_are_those_of_the_paper_but_for_the_second_bias_of_torchs_lstm(width, hidden, total, inferring):
    features = layers(3, width, width) + layers(16, width, width)
    posterior = layers(hidden + width, width, width, 32)
    others = layers(hidden, width, width, 32) + layers(width + hidden, width, width, 3)
    torchs = sum(p.numel() for p in nn.LSTM(2 * width, hidden).parameters())
    of_paper = features + posterior + others + torchs
    assert (round(of_paper / 1e6, 2), round(posterior / 1e6, 2)) == (total, inferring)
    model = StrokeVRNN(in_shape=(628, 3), width=width, hidden=hidden)
    assert sum(p.numel() for p in model.parameters()) == of_paper - 4 * hidden


@pytest.mark.parametrize("group", ["student", "teacher"])
@pytest.mark.parametrize(("name", "size"), [("stroke_vrnn", 3), ("vector_vrnn", 88)], ids=["strokes", "vectors"])
def test_the_packaged_files_name_every_argument_and_build(group, name, size):
    node = packaged(group, name)
    kind = getattr(kdzoo.models, node.pop("_target_").removeprefix("kdzoo.models."))
    assert list(node) == [key for key in inspect.signature(kind).parameters if key != "in_shape"]
    width, hidden = {"student": (128, 600), "teacher": (512, 1200)}[group]
    assert (node["width"], node["hidden"]) == (width, hidden)
    with torch.no_grad():
        assert kind(in_shape=(2, size), **node)(torch.empty(3, 2, size)).shape == (3, 2, size)


# ---------------------------------------------------------------- values, against a plain loop


def plain_loop(model, noise, *, values=None, latents=None, infer=False):
    """One step after the other; what is not given is drawn. Raw values of z, its posterior, targets; values."""
    net, carry = nets(model), model.scan.carry
    posterior = next(node.posterior.net for node in model.scan.nodes if node.name == "z")
    rows, steps = noise["z"].shape[:2] if latents is None else latents.shape[:2]
    h = c = torch.zeros(rows, carry.hidden, dtype=torch.float64)
    seen = {}

    def scale_of(raw):
        return softplus(raw) / torch.tensor(2.0, dtype=torch.float64).log() + 1e-6

    for t in range(steps):
        step = {"z|prior": net["z"](h)}
        if latents is None:
            raw = step["z|prior"]
            if infer:
                features = net["x_features"](torch.cat([values[name][:, t] for name in model.targets()], -1))
                raw = step["z|posterior"] = posterior(torch.cat([h, features], -1))
            loc, free = raw.chunk(2, -1)
            step["z"] = loc + scale_of(free) * noise["z"][:, t]
        else:
            step["z"] = latents[:, t]
        z_features = net["z_features"](step["z"])
        decoded = net["decoder"](torch.cat([z_features, h], -1))
        for name in model.targets():
            raw = step[f"{name}|prior"] = net[name](decoded)
            if values is not None:
                step[name] = values[name][:, t]
            elif name == "offset":
                step[name] = raw + 0.5 * noise[name][:, t]
            else:
                step[name] = (noise[name][:, t] < raw.sigmoid()).double()
        x_features = net["x_features"](torch.cat([step[name] for name in model.targets()], -1))
        gates = x_features @ net["gate_input"].weight.T + z_features @ carry.inputs.weight.T
        i, f, o, g = (gates + h @ carry.recurrent.weight.T + carry.recurrent.bias).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        for name, value in step.items():
            seen.setdefault(name, []).append(value)
    return {name: torch.stack(list_of, 1) for name, list_of in seen.items()}


def assert_same(model, result, expected):
    """Raw values, values, and the gradients of a number made of all raw values, to 1e-10."""
    results = []
    for one in (result, expected):
        model.zero_grad()
        generator = torch.Generator().manual_seed(2)
        total = sum((v * torch.randn(v.shape, generator=generator)).sum() for _, v in sorted(one.items()))
        total.backward()
        results.append(one | {name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    for name, value in results[1].items():
        torch.testing.assert_close(results[0][name], value, rtol=0, atol=1e-10, msg=name)


def collected(model, trace):
    """What a trace holds of what the plain loop computes."""
    result = {f"{name}|prior": raw for name, raw in trace.raw.items()}
    return result | {name: trace.values[name] for name in model.random_nodes()}


@BOTH
@settings(max_examples=8, deadline=None)
@given(n=st.integers(1, 3), steps=st.integers(1, 5))
def test_a_free_rollout_equals_a_plain_loop(kind, n, steps):
    model = BUILT[kind](steps).double()
    noise = {name: value.double() for name, value in model.noise(n).items()}
    assert_same(model, collected(model, model.rollout(noise)), plain_loop(model, noise))


@BOTH
@pytest.mark.parametrize("latents_from", ["student", "teacher"])
@pytest.mark.parametrize("steps", [1, 6])
def test_a_student_rollout_equals_a_plain_loop(kind, latents_from, steps):
    teacher, student = (BUILT[kind](steps).double() for _ in range(2))
    noise = {name: value.double() for name, value in student.noise(4).items()}
    pair = paired_rollout(teacher, student, noise, latents_from=latents_from)
    values = {name: pair.teacher.values[name] for name in student.targets()}
    latents = pair.teacher.values["z"] if latents_from == "teacher" else None
    expected = plain_loop(student, noise, values=values, latents=latents)
    assert_same(student, collected(student, pair.student), expected)


@BOTH
def test_inference_equals_a_plain_loop(kind):
    model = BUILT[kind]().double()
    values = model.observed(sequences(kind), model.targets())
    noise = {"z": model.noise(5)["z"].double()}
    trace = model.rollout(noise, forced=values, infer=True)
    inferred = trace.posteriors["z"]
    expected = plain_loop(model, noise, values=values, infer=True)
    loc, raw = expected.pop("z|posterior").chunk(2, -1)
    torch.testing.assert_close(inferred.loc, loc, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        inferred.scale, softplus(raw) / softplus(torch.zeros(()).double()) + 1e-6, rtol=0, atol=1e-10
    )
    assert_same(model, collected(model, trace), expected)


def test_the_state_equals_that_of_torchs_lstm():
    model = BUILT["vectors"]().double()
    carry, drive = model.scan.carry, nets(model)["gate_input"]
    x, z = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    torchs = nn.LSTM(10, 4, batch_first=True).double()
    weights = torch.cat([drive.weight, carry.inputs.weight], 1), carry.recurrent.weight, carry.recurrent.bias
    with torch.no_grad():
        torchs.bias_hh_l0.zero_()
        for name, weight in zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"), weights, strict=True):
            i, f, o, g = weight.chunk(4)
            getattr(torchs, name).copy_(torch.cat([i, f, g, o]))
    expected, _ = torchs(torch.cat([x, z], -1))
    start = carry.initial(3, x)
    after, state = [], start
    for t in range(6):
        state = carry(state, drive(x[:, t]), z[:, t])
        after.append(carry.output(state))
    torch.testing.assert_close(torch.stack(after, 1), expected, rtol=0, atol=1e-12)
    before = carry.unroll(start, drive(x), z)
    torch.testing.assert_close(before[:, 1:], expected[:, :-1], rtol=0, atol=1e-12)
    assert not before[:, 0].any()


@pytest.mark.parametrize(("latents_from", "z_calls"), [("student", 6), ("teacher", 1)])
def test_networks_of_known_values_are_called_once(latents_from, z_calls):
    model = BUILT["strokes"]()
    trace = model.rollout(model.noise(2))
    calls = dict.fromkeys(nets(model), 0)
    for name, net in nets(model).items():
        net.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    rollout_student(model, trace, model.noise(2), teacher_latents={"z": True} if latents_from == "teacher" else {})
    inside = {"z": z_calls, "z_features": z_calls}
    assert calls == {"decoder": 1, "pen": 1, "offset": 1, "x_features": 1, "gate_input": 1, **inside}


def test_strokes_are_bits_and_offsets_of_the_given_deviation():
    model = StrokeVRNN(in_shape=(4, 3), scale=0.25, **SMALL)
    trace = model.rollout(model.noise(50, leaves=True))
    assert set(trace.values["pen"].unique().tolist()) == {0.0, 1.0}
    assert (trace.distributions["offset"].stddev == 0.25).all()
    same = model.noise(50, leaves=True)
    torch.testing.assert_close(
        model.rollout(same).values["offset"], model.rollout(same).distributions["offset"].loc + 0.25 * same["offset"]
    )


@BOTH
def test_the_past_does_not_depend_on_the_future(kind):
    model = BUILT[kind]()
    batch, noise = sequences(kind), {"z": model.noise(5)["z"]}
    changed = {"input": batch["input"].clone()}
    changed["input"][:, 4:] = 1 - changed["input"][:, 4:]
    raws = []
    for one in (batch, changed):
        trace = model.rollout(noise, forced=model.observed(one, model.targets()), infer=True)
        raws.append(trace.raw["z"])
    assert torch.equal(raws[0][:, :5], raws[1][:, :5])
    assert not torch.equal(raws[0][:, 5], raws[1][:, 5])


# ---------------------------------------------------------------- training


@BOTH
def test_the_bound_improves_on_toy_sequences(kind):
    model, batch = BUILT[kind](), sequences(kind, n=32)
    noise = model.elbo_noise(32, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for _ in range(60):
        loss = torch.stack(list(model.negative_elbo(batch, noise).values())).sum(0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0]


def idle(model):
    """The names of parameters that have no gradient, or one of zeros."""
    return {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}


@BOTH
def test_all_parameters_learn_from_data_and_all_but_the_posteriors_from_a_teacher(kind):
    teacher, student = (BUILT[kind](width=16) for _ in range(2))  # so many units that some are not at rest
    evidence = student.negative_elbo(sequences(kind), student.elbo_noise(5))
    torch.stack(list(evidence.values())).sum().backward()
    assert idle(student) == set()
    student.zero_grad()
    pair = paired_rollout(teacher, student, student.noise(5))
    torch.stack([node_divergence(pair, name, "kl", "sum").sum() for name in student.random_nodes()]).sum().backward()
    assert idle(student) == {name for name, _ in student.named_parameters() if ".posterior." in name}
    assert all(p.grad is None for p in teacher.parameters())


@BOTH
def test_padding_does_not_change_the_terms(kind):
    model, batch = BUILT[kind](), sequences(kind)
    noise, lengths = model.elbo_noise(5), torch.tensor([6, 4, 4, 1, 5])
    terms = model.negative_elbo(batch, noise, lengths)
    padded = torch.arange(6) >= lengths[:, None]
    other = {"input": torch.where(padded[..., None], 1 - batch["input"], batch["input"])}
    changed = model.negative_elbo(other, noise, lengths)
    for row, length in enumerate(lengths.tolist()):
        short = {name: value[row : row + 1, :length] for name, value in noise.items()}
        alone = model.negative_elbo({"input": batch["input"][row : row + 1, :length]}, short)
        for name, term in terms.items():
            assert changed[name][row] == term[row]
            torch.testing.assert_close(alone[name][0], term[row])
    assert terms.keys() == model.random_nodes().keys()


@BOTH
def test_padding_does_not_change_divergences(kind):
    teacher, student = BUILT[kind](), BUILT[kind]()
    noise, lengths = student.noise(2), torch.tensor([2, 5])
    other = {name: value.clone() for name, value in noise.items()}
    for value in other.values():
        value[0, 2:], value[1, 5:] = 0.3, 0.3
    for name in student.random_nodes():
        one, same = (
            node_divergence(paired_rollout(teacher, student, eps), name, "kl", "sum", lengths) for eps in (noise, other)
        )
        assert torch.equal(one, same)
        assert (one > 0).all()


@BOTH
@pytest.mark.parametrize("latents_from", ["student", "teacher"])
def test_divergences_are_zero_for_a_copy(kind, latents_from):
    teacher = BUILT[kind]().double()
    noise = {name: value.double() for name, value in teacher.noise(4).items()}
    pair = paired_rollout(teacher, copy.deepcopy(teacher), noise, latents_from=latents_from)
    for name in teacher.random_nodes():
        assert node_divergence(pair, name, "kl", "sum").abs().max() <= 1e-10


# ---------------------------------------------------------------- files and mistakes


@BOTH
def test_an_exported_model_draws_the_same(kind, tmp_path):
    model = BUILT[kind]().eval()
    names = {
        "strokes": ("StrokeVRNN", {"in_shape": [6, 3], "scale": 0.5}),
        "vectors": ("VectorVRNN", {"in_shape": [6, 7]}),
    }
    name, sizes = names[kind]
    save_model(model, {"_target_": f"kdzoo.models.{name}", **sizes, **SMALL}, tmp_path)
    loaded, noise = load_student(tmp_path), model.noise(3)
    expected = model.rollout(noise)
    for key, raw in loaded.rollout(noise).raw.items():
        assert torch.equal(raw, expected.raw[key])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (StrokeVRNN, {"in_shape": (5, 4)}, r"^in_shape must be \(steps, 3\) for pen strokes .*, got \[5, 4\]$"),
        (StrokeVRNN, {"in_shape": (3,)}, r"^in_shape \(steps, numbers\) must be 2 integers >= 1, got \(3,\)$"),
        (VectorVRNN, {"in_shape": (0, 4)}, r"^in_shape \(steps, numbers\)\[0\] must be an integer >= 1, got 0$"),
        (StrokeVRNN, {"in_shape": (5, 3), "scale": 0.0}, r"^scale must be finite and > 0, got 0\.0$"),
        (StrokeVRNN, {"in_shape": (5, 3), "latents": 0}, "^latents must be an integer >= 1, got 0$"),
        (VectorVRNN, {"in_shape": (5, 3), "width": 0}, "^width must be an integer >= 1, got 0$"),
        (VectorVRNN, {"in_shape": (5, 3), "hidden": -1}, "^hidden must be an integer >= 1, got -1$"),
    ],
    ids=["vectors-for-strokes", "no-steps", "zero-steps", "scale", "latents", "width", "hidden"],
)
def test_invalid_sizes_are_refused(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        kind(**options)


@BOTH
def test_vectors_of_another_size_are_an_error_in_the_data(kind):
    model = BUILT[kind]()
    with pytest.raises(DataError, match="observations of shape"):
        model.negative_elbo({"input": torch.zeros(2, 6, 4)}, model.elbo_noise(2))


@BOTH
def test_another_number_of_steps_than_that_of_the_noise_is_refused(kind):
    model = BUILT[kind]()
    with pytest.raises(ConfigError, match="must have the same number of steps"):
        model.negative_elbo(sequences(kind, n=2, steps=5), model.elbo_noise(2))


def test_models_with_different_targets_are_incompatible():
    strokes, vectors = BUILT["strokes"](), BUILT["vectors"]()
    with pytest.raises(ConfigError, match="the teacher's targets are"):
        paired_rollout(strokes, vectors, strokes.noise(2))
