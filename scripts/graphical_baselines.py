"""Distillation steps of graphical models in plain torch, with which ``bench_graphical.py`` compares kdzoo's.

The loop over time works as the code that comes with Chen et al. 2023: one step of ``nn.LSTM`` at a time, every head
inside of the loop, results written into slices, and gradients of the teacher recorded and computed.
"""

import copy

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from kdzoo.graphical_models import Graph
from kdzoo.graphical_models.families import positive_scale
from kdzoo.models import StrokeVRNN
from kdzoo.models.hvae import SCALE

Noise = dict[str, Tensor]
NETS = ("z", "z_features", "decoder", "pen", "offset", "x_features")
"""Nodes whose networks the loop calls."""
LATENT_WEIGHT = 1e-3
"""Weight of the latents' loss in the VRNN of Chen et al. 2023."""

# ---------------------------------------------------------------- a variational recurrent network


class PlainVRNN(nn.Module):
    """A loop over the steps of a model, one step of torch's LSTM at a time, every head inside of the loop.

    Args:
        model: Model whose weights are copied.
    """

    def __init__(self, model: StrokeVRNN) -> None:
        super().__init__()
        assert model.scan is not None
        self.names = {node.name: f"entries.0.nodes.{i}.conditional.net" for i, node in enumerate(model.scan.nodes)}
        copies = {name: copy.deepcopy(model.get_submodule(path)) for name, path in self.names.items()}
        self.nets = nn.ModuleList(copies[name] for name in NETS)
        gate_input, carry = model.get_submodule(self.names["gate_input"]), model.scan.carry
        self.rnn = nn.LSTM(2 * gate_input.in_features, carry.hidden)
        weights = torch.cat([gate_input.weight, carry.inputs.weight], 1), carry.recurrent.weight, carry.recurrent.bias
        with torch.no_grad():
            for name, weight in zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"), weights, strict=True):
                self.rnn.get_parameter(name).copy_(swap_gates(weight))
            self.rnn.bias_hh_l0.zero_()  # the graph has one bias where torch has two

    def forward(self, noise: Noise, given: Tensor | None = None) -> dict[str, Tensor]:
        """Return means, deviations, logits and values of all steps, ``[T, b, ...]``; values are given or drawn."""
        net = dict(zip(NETS, self.nets, strict=True))
        eps = noise["z"].transpose(0, 1)
        steps, rows, latents = eps.shape
        z_mean, z_scale = torch.zeros(steps, rows, latents), torch.zeros(steps, rows, latents)
        y, x = torch.zeros(steps, rows, 3), torch.zeros(steps, rows, 3)
        h, c = torch.zeros(1, rows, self.rnn.hidden_size), torch.zeros(1, rows, self.rnn.hidden_size)
        for t in range(steps):
            mean, raw = net["z"](h).chunk(2, -1)
            scale = positive_scale(raw)
            z_features = net["z_features"](mean + scale * eps[t : t + 1])
            decoded = net["decoder"](torch.cat([z_features, h], -1))
            y_t = torch.cat([net["pen"](decoded), net["offset"](decoded)], -1)
            if given is None:
                pen = (noise["pen"][None, :, t] < y_t[..., :1].sigmoid()).float()
                x_t = torch.cat([pen, y_t[..., 1:] + noise["offset"][None, :, t]], -1)
            else:
                x_t = given[t : t + 1]
            _, (h, c) = self.rnn(torch.cat([net["x_features"](x_t), z_features], -1), (h, c))
            z_mean[t], z_scale[t], y[t], x[t] = mean[0], scale[0], y_t[0], x_t[0]
        return {"z_mean": z_mean, "z_scale": z_scale, "y": y, "x": x}

    def gradients(self) -> Noise:
        """Return the gradients by the names of the graph's parameters."""
        gradients = {
            f"{self.names[key]}.{name}": parameter.grad
            for key, net in zip(NETS, self.nets, strict=True)
            for name, parameter in net.named_parameters()
            if parameter.grad is not None
        }
        weight = swap_gates(self.rnn.weight_ih_l0.grad)
        half = weight.shape[1] // 2
        return gradients | {
            f"{self.names['gate_input']}.weight": weight[:, :half],
            "entries.0.carry.inputs.weight": weight[:, half:],
            "entries.0.carry.recurrent.weight": swap_gates(self.rnn.weight_hh_l0.grad),
            "entries.0.carry.recurrent.bias": swap_gates(self.rnn.bias_ih_l0.grad),
        }


def swap_gates(gates: Tensor | None) -> Tensor:
    """Return gates ``[4h, ...]`` with the last two exchanged: torch has i, f, g, o, kdzoo i, f, o, g."""
    assert gates is not None
    i, f, third, fourth = gates.detach().chunk(4)
    return torch.cat([i, f, fourth, third])


def plain_step(teacher: PlainVRNN, student: PlainVRNN, noise: Noise, *, frozen: bool = False) -> Tensor:
    """Set the student's gradients and return the loss, recording the teacher's gradients too unless it is frozen."""
    for model in (teacher, student):
        model.zero_grad(set_to_none=True)
    with torch.set_grad_enabled(not frozen):
        teacher_trace = teacher(noise)
    student_trace = student(noise, teacher_trace["x"])
    pen = binary_cross_entropy_with_logits(
        student_trace["y"][..., 0], teacher_trace["y"][..., 0].sigmoid(), reduction="none"
    )
    offset = kl_divergence(Normal(teacher_trace["y"][..., 1:], 1.0), Normal(student_trace["y"][..., 1:], 1.0)).sum(-1)
    priors = [Normal(trace["z_mean"], trace["z_scale"]) for trace in (teacher_trace, student_trace)]
    loss = (pen + offset + LATENT_WEIGHT * kl_divergence(*priors).sum(-1)).mean()
    loss.backward()
    return loss.detach()


# ---------------------------------------------------------------- hierarchical variational autoencoders


def plain_raws(model: Graph, noise: Noise) -> Noise:
    """Return the outputs of the networks of learned nodes, from the topmost latent, N(0, (1 + 1e-6)^2), down."""
    (top, _), *rest = model.random_nodes().items()
    value, raws = (1 + 1e-6) * noise[top], {}
    for name, node in rest:
        raws[name] = raw = node.conditional.net(value)
        if name in noise:
            mean, raw_scale = raw.chunk(2, 1)
            value = mean + positive_scale(raw_scale) * noise[name]
    return raws


def least(teacher: Graph, student: Graph, noise: Noise) -> None:
    """Do the least of any step: the teacher forward, the student forward and backward from a plain sum."""
    student.zero_grad(set_to_none=True)
    with torch.no_grad():
        plain_raws(teacher, noise)
    torch.stack([raw.sum() for raw in plain_raws(student, noise).values()]).sum().backward()


def by_hand(teacher: Graph, student: Graph, noise: Noise) -> None:
    """Set the student's gradients in plain torch."""
    student.zero_grad(set_to_none=True)
    with torch.no_grad():
        teacher_raws = plain_raws(teacher, noise)
    terms = []
    for name, raw in plain_raws(student, noise).items():
        if name in noise:
            (mean, raw_scale), (student_mean, student_raw_scale) = (
                value.chunk(2, 1) for value in (teacher_raws[name], raw)
            )
            scale_gap = positive_scale(raw_scale) - positive_scale(student_raw_scale)
            gap = (mean - student_mean).square() + scale_gap.square()  # W2 of normal variables
        else:
            gap = kl_divergence(Normal(teacher_raws[name], SCALE), Normal(raw, SCALE))
        terms.append(gap.flatten(1).sum(1).mean())
    torch.stack(terms).sum().backward()
