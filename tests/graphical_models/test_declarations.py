"""The example graphs: one function computes all losses, and each equals a loss written by hand."""

import copy
import inspect
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div, mse_loss, softplus

from examples.graphs.autoregressive import autoregressive
from examples.graphs.classifier import classifier
from examples.graphs.conditional_gan import conditional_gan
from examples.graphs.conditional_vae import conditional_vae
from examples.graphs.gan import gan
from examples.graphs.helmholtz import helmholtz
from examples.graphs.ladder_vae import ladder_vae
from examples.graphs.vae_gan import vae_gan
from examples.graphs.vrnn import vrnn
from kdzoo.graphical_models import Delta
from kdzoo.graphical_models.paired import node_divergence, paired_rollout

FEATURES = nn.Sequential(nn.Linear(64, 5), nn.Tanh()).double().requires_grad_(False)
DECLARATIONS = {
    "ladder vae": (ladder_vae, {"width": 48}, {"width": 8}),
    "vrnn": (vrnn, {"hidden": 20, "features": 9}, {"hidden": 6, "features": 5}),
    "helmholtz machine": (helmholtz, {"width": 8}, {"width": 2}),
    "conditional vae": (conditional_vae, {"width": 48}, {"width": 8}),
    "gan": (gan, {"width": 48}, {"width": 8}),
    "conditional gan": (conditional_gan, {"width": 48}, {"width": 8}),
    "vae-gan": (lambda **sizes: vae_gan(FEATURES, 5, **sizes), {"width": 48}, {"width": 8}),
    "classifier": (classifier, {"width": 48}, {"width": 8}),
    "autoregressive": (autoregressive, {"hidden": 20}, {"hidden": 6}),
}


def built(name):
    """Return teacher and student, noise and inputs for four samples."""
    torch.manual_seed(0)
    declaration, large, small = DECLARATIONS[name]
    teacher, student = declaration(**large).double(), declaration(**small).double()
    inputs = {key: value.double() for key, value in teacher.draw_inputs(4).items()}
    return teacher, student, {key: value.double() for key, value in teacher.noise(4).items()}, inputs


def distillation_loss(teacher, student, noise, inputs):
    """Return the sum over all nodes and the mean over samples: w2 for points, kl for the rest."""
    pair = paired_rollout(teacher, student, noise, inputs)
    kinds = {name: "w2" if isinstance(node.family, Delta) else "kl" for name, node in student.random_nodes().items()}
    return sum(node_divergence(pair, name, kind, "sum").mean() for name, kind in kinds.items())


def nets(graph):
    return {node.name: node.conditional.net for node in graph.nodes() if hasattr(node, "conditional")}


# ---------------------------------------------------------------- losses by hand


def deviation(raw):
    return softplus(raw) / 0.6931471805599453 + 1e-6


def normal_kl(mean, scale, other_mean, other_scale):
    one, other = torch.distributions.Normal(mean, scale), torch.distributions.Normal(other_mean, other_scale)
    return torch.distributions.kl_divergence(one, other).sum(-1)


def bits_kl(logits, other):
    """Cross-entropy less entropy."""
    probability = logits.sigmoid()
    cross_rows, own = (binary_cross_entropy_with_logits(one, probability, reduction="none") for one in (other, logits))
    return (cross_rows - own).sum(-1)


def ladder_vae_loss(teacher, student, noise, inputs):
    z2 = noise["z2"] * (1 + 1e-6)
    (mean, raw), (own_mean, own_raw) = (net["z1"](z2).chunk(2, -1) for net in (teacher, student))
    z1, own = mean + deviation(raw) * noise["z1"], own_mean + deviation(own_raw) * noise["z1"]
    difference = (teacher["y"](z1) - student["y"](own)).square().sum(-1)
    return difference / (2 * 0.2**2) + normal_kl(mean, deviation(raw), own_mean, deviation(own_raw))


def gates(model, carry, state, drive, code):
    output, cell = state
    i, f, o, g = (carry.recurrent(output) + drive + (carry.inputs(code) if code is not None else 0)).chunk(4, -1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def vrnn_loss(teacher, student, noise, inputs, carries):
    states = [tuple(torch.zeros(4, carry.hidden, dtype=torch.double) for _ in range(2)) for carry in carries]
    total = 0
    for t in range(noise["z"].shape[1]):
        priors = [net["z"](state[0]).chunk(2, -1) for net, state in zip((teacher, student), states, strict=True)]
        (mean, raw), (own_mean, own_raw) = priors
        total = total + normal_kl(mean, deviation(raw), own_mean, deviation(own_raw))
        codes, offsets, pens = [], [], []
        for net, state, (m, r) in zip((teacher, student), states, priors, strict=True):
            codes.append(net["code"](m + deviation(r) * noise["z"][:, t]))
            offsets.append(net["offset"](codes[-1], state[0]))
            pens.append(net["pen"](codes[-1], state[0]))
        total = total + 0.5 * (offsets[0] - offsets[1]).square().sum(-1) + bits_kl(*pens)
        offset = offsets[0] + noise["offset"][:, t]
        pen = (noise["pen"][:, t] < pens[0].sigmoid()).double()
        states = [
            gates(net, carry, state, net["gate_input"](net["stroke"](offset, pen)), code)
            for net, carry, state, code in zip((teacher, student), carries, states, codes, strict=True)
        ]
    return total


def helmholtz_loss(teacher, student, noise, inputs):
    total, parents = 0, [None, None]
    y2 = None
    for name in ("z4", "z3", "y2", "z2", "z1", "y1"):
        if name == "z2":
            parents = [y2, y2]
        raws = [
            net[name]().expand(4, -1) if value is None else net[name](value)
            for net, value in zip((teacher, student), parents, strict=True)
        ]
        if name.startswith("z"):
            total = total + bits_kl(*raws)
            parents = [(noise[name] < raw.sigmoid()).double() for raw in raws]
        else:
            total = total + (raws[0] - raws[1]).square().sum(-1) / (2 * 0.5**2)
            y2 = raws[0] + 0.5 * noise[name] if name == "y2" else None
    return total


def conditional_vae_loss(teacher, student, noise, inputs):
    label = inputs["label"]
    (mean, raw), (own_mean, own_raw) = (net["z"](label).chunk(2, -1) for net in (teacher, student))
    z, own = mean + deviation(raw) * noise["z"], own_mean + deviation(own_raw) * noise["z"]
    tables = []
    edges = (torch.arange(255, dtype=torch.double) + 0.5) / 255
    for net, value in ((teacher, z), (student, own)):
        loc, scale = net["y"](value, label).chunk(2, -1)
        inner = ((edges - loc[..., None]) / deviation(scale)[..., None]).sigmoid()
        reached = torch.cat([torch.zeros_like(inner[..., :1]), inner, torch.ones_like(inner[..., :1])], -1)
        tables.append(reached.diff(dim=-1))
    of_pixels = (tables[0] * (tables[0] / tables[1]).log()).sum((-1, -2))
    return of_pixels + normal_kl(mean, deviation(raw), own_mean, deviation(own_raw))


def gan_loss(teacher, student, noise, inputs):
    return (teacher["y"](noise["z"]) - student["y"](noise["z"])).square().sum(-1)


def conditional_gan_loss(teacher, student, noise, inputs):
    images = [net["y"](torch.cat([noise["z"], inputs["label"]], -1)) for net in (teacher, student)]
    return mse_loss(*images, reduction="none").sum(-1)


def vae_gan_loss(teacher, student, noise, inputs):
    images = [net["image"](noise["z"]) for net in (teacher, student)]
    features = [FEATURES(image) for image in images]
    return (images[0] - images[1]).square().sum(-1) + 0.5 * (features[0] - features[1]).square().sum(-1)


def classifier_loss(teacher, student, noise, inputs):
    hints = [net["hint"](inputs["x"]) for net in (teacher, student)]
    logits = [net["label"](hint).log_softmax(-1) for net, hint in zip((teacher, student), hints, strict=True)]
    hint_loss = (hints[0] - hints[1]).square().sum(-1)
    return hint_loss + kl_div(logits[1], logits[0], reduction="none", log_target=True).sum(-1)


def autoregressive_loss(teacher, student, noise, inputs, carries):
    states = [tuple(torch.zeros(4, carry.hidden, dtype=torch.double) for _ in range(2)) for carry in carries]
    total = 0
    for t in range(noise["token"].shape[1]):
        logits, own = (net["token"](state[0]) for net, state in zip((teacher, student), states, strict=True))
        soft = logits.softmax(-1)
        total = total + cross_entropy(own, soft, reduction="none") - cross_entropy(logits, soft, reduction="none")
        token = (noise["token"][:, t, :1] > soft.cumsum(-1)).sum(-1)
        drawn = nn.functional.one_hot(token, soft.shape[-1]).double()
        states = [
            gates(net, carry, state, net["gate_input"](drawn), None)
            for net, carry, state in zip((teacher, student), carries, states, strict=True)
        ]
    return total


BY_HAND = {
    "ladder vae": ladder_vae_loss,
    "vrnn": vrnn_loss,
    "helmholtz machine": helmholtz_loss,
    "conditional vae": conditional_vae_loss,
    "gan": gan_loss,
    "conditional gan": conditional_gan_loss,
    "vae-gan": vae_gan_loss,
    "classifier": classifier_loss,
    "autoregressive": autoregressive_loss,
}


# ---------------------------------------------------------------- tests


@pytest.mark.parametrize("name", DECLARATIONS)
def test_the_loss_of_an_example_equals_the_loss_written_by_hand(name):
    teacher, student, noise, inputs = built(name)
    loss = distillation_loss(teacher, student, noise, inputs)
    carries = {"carries": [teacher.scan.carry, student.scan.carry]} if teacher.scan else {}
    with torch.no_grad():
        expected = BY_HAND[name](nets(teacher), nets(student), noise, inputs, **carries).mean()
    assert float(expected) > 1e-4
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-6, rel=1e-9)


@pytest.mark.parametrize("name", DECLARATIONS)
def test_the_gradient_reaches_only_the_student(name):
    teacher, student, noise, inputs = built(name)
    distillation_loss(teacher, student, noise, inputs).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    unused = {id(parameter) for parameter in student.inference_parameters()}
    own = [p for p in student.parameters() if id(p) not in unused and p.requires_grad]
    assert own
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in own)


@pytest.mark.parametrize("name", DECLARATIONS)
def test_the_loss_of_a_copy_of_the_teacher_is_zero(name):
    teacher, _, noise, inputs = built(name)
    loss = distillation_loss(teacher, copy.deepcopy(teacher), noise, inputs)
    assert abs(float(loss.detach())) <= (1e-12 if teacher.scan else 0.0)


def batch_for(name):
    generator = torch.Generator().manual_seed(1)
    if name == "vrnn":
        strokes = torch.randn(4, 10, 3, generator=generator)
        strokes[..., 2] = (strokes[..., 2] > 0).float()
        return {"input": strokes}
    if name == "autoregressive":
        return {"input": torch.randint(12, (4, 10), generator=generator)}
    pixels = torch.randint(256, (4, 8, 8), generator=generator) / 255
    return {"input": pixels, "target": torch.randint(10, (4,), generator=generator)}


@pytest.mark.parametrize("name", ["ladder vae", "vrnn", "conditional vae", "autoregressive"])
def test_examples_with_posteriors_for_all_latents_can_be_trained_on_data(name):
    torch.manual_seed(0)
    declaration, _, small = DECLARATIONS[name]
    graph, batch = declaration(**small), batch_for(name)
    optimizer = torch.optim.Adam(graph.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(60):
        terms = graph.negative_elbo(batch, graph.elbo_noise(4, generator=generator))
        loss = sum(terms.values()).mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in graph.parameters())


@pytest.mark.parametrize("name", DECLARATIONS)
def test_examples_generate_samples(name):
    teacher, _, _, _ = built(name)
    drawn = teacher(torch.zeros(3, 1))
    sizes = [node.family.shape[-1] for node in teacher.targets().values()]
    assert drawn.shape == (3, *((10,) if teacher.scan else ()), sum(sizes))
    assert drawn.isfinite().all()


@pytest.mark.parametrize(
    "function",
    [autoregressive, classifier, conditional_gan, conditional_vae, gan, helmholtz, ladder_vae, vae_gan, vrnn],
    ids=lambda function: function.__name__,
)
def test_examples_have_at_most_forty_lines(function):
    assert len(Path(inspect.getsourcefile(function)).read_text().splitlines()) <= 40
