"""Distillation steps of graphical models in plain torch: the baselines of ``bench_graphical.py``.

The loop over time follows the code published with Chen et al. 2023: it calls ``nn.LSTM`` for one step at a time,
applies every output head inside the loop, writes results into slices, and computes gradients of the teacher.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from kdzoo.graphical_models import Graph
from kdzoo.graphical_models.families import positive_scale
from kdzoo.models import StrokeVRNN
from kdzoo.models.hvae import SCALE

Noise = dict[str, Tensor]
NETWORKS = ("z", "z_features", "decoder", "pen", "offset", "x_features")
"""Nodes whose networks are called inside the loop."""
LATENT_WEIGHT = 1e-3
"""Weight of the latents' loss in the VRNN of Chen et al. 2023."""

# ---------------------------------------------------------------- a variational recurrent network


class PlainVRNN(nn.Module):
    """A VRNN as a loop over time, with one call of torch's LSTM and of every output head per step.

    Args:
        model: Model whose weights are copied.
    """

    def __init__(self, model: StrokeVRNN) -> None:
        super().__init__()
        scan: Any = model.scan
        self.names = {node.name: f"entries.0.nodes.{i}.conditional.net" for i, node in enumerate(scan.nodes)}
        networks_by_name = {name: copy.deepcopy(model.get_submodule(path)) for name, path in self.names.items()}
        self.nets = nn.ModuleList(networks_by_name[name] for name in NETWORKS)
        gate_input: Any = model.get_submodule(self.names["gate_input"])
        carry = scan.carry
        self.rnn = nn.LSTM(2 * gate_input.in_features, carry.hidden)
        weights = torch.cat([gate_input.weight, carry.inputs.weight], 1), carry.recurrent.weight, carry.recurrent.bias
        with torch.no_grad():
            for name, weight in zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"), weights, strict=True):
                self.rnn.get_parameter(name).copy_(swap_gates(weight))
            self.rnn.bias_hh_l0.zero_()  # the graph has one bias vector, torch has two

    def forward(self, noise: Noise, given_values: Tensor | None = None) -> dict[str, Tensor]:
        """Return means, deviations, logits and values of all steps, ``[T, b, ...]``; values not given are drawn."""
        networks = dict(zip(NETWORKS, self.nets, strict=True))
        eps = noise["z"].transpose(0, 1)
        steps, batch_size, latents = eps.shape
        z_mean, z_scale = torch.zeros(steps, batch_size, latents), torch.zeros(steps, batch_size, latents)
        y, x = torch.zeros(steps, batch_size, 3), torch.zeros(steps, batch_size, 3)
        h, c = torch.zeros(1, batch_size, self.rnn.hidden_size), torch.zeros(1, batch_size, self.rnn.hidden_size)
        for t in range(steps):
            mean, raw = networks["z"](h).chunk(2, -1)
            scale = positive_scale(raw)
            z_features = networks["z_features"](mean + scale * eps[t : t + 1])
            decoded = networks["decoder"](torch.cat([z_features, h], -1))
            y_t = torch.cat([networks["pen"](decoded), networks["offset"](decoded)], -1)
            if given_values is None:
                pen = (noise["pen"][None, :, t] < y_t[..., :1].sigmoid()).float()
                x_t = torch.cat([pen, y_t[..., 1:] + noise["offset"][None, :, t]], -1)
            else:
                x_t = given_values[t : t + 1]
            _, (h, c) = self.rnn(torch.cat([networks["x_features"](x_t), z_features], -1), (h, c))
            z_mean[t], z_scale[t], y[t], x[t] = mean[0], scale[0], y_t[0], x_t[0]
        return {"z_mean": z_mean, "z_scale": z_scale, "y": y, "x": x}

    def gradients(self) -> Noise:
        """Return the gradients, keyed by the parameter names of the graph."""
        gradients = {
            f"{self.names[key]}.{name}": parameter.grad
            for key, network in zip(NETWORKS, self.nets, strict=True)
            for name, parameter in network.named_parameters()
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
    """Return gates ``[4h, ...]`` with the last two exchanged: torch orders them i, f, g, o, kdzoo i, f, o, g."""
    assert gates is not None
    i, f, third, fourth = gates.detach().chunk(4)
    return torch.cat([i, f, fourth, third])


def set_vrnn_gradients(teacher: PlainVRNN, student: PlainVRNN, noise: Noise, *, frozen: bool = False) -> Tensor:
    """Set the student's gradients and return the loss; unless frozen, the teacher gets gradients as well."""
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


def network_outputs(model: Graph, noise: Noise) -> Noise:
    """Return the network outputs of all learned nodes, sampling downwards from the top latent N(0, (1 + 1e-6)^2)."""
    (top, _), *rest = model.random_nodes().items()
    value, outputs = (1 + 1e-6) * noise[top], {}
    for name, node in rest:
        outputs[name] = output = node.conditional.net(value)
        if name in noise:
            mean, raw_scale = output.chunk(2, 1)
            value = mean + positive_scale(raw_scale) * noise[name]
    return outputs


def run_minimal_step(teacher: Graph, student: Graph, noise: Noise) -> None:
    """Run only what every step needs: the teacher forward, the student forward and backward from a plain sum."""
    student.zero_grad(set_to_none=True)
    with torch.no_grad():
        network_outputs(teacher, noise)
    torch.stack([output.sum() for output in network_outputs(student, noise).values()]).sum().backward()


def set_hvae_gradients(teacher: Graph, student: Graph, noise: Noise) -> None:
    """Set the student's gradients of the distillation loss in plain torch."""
    student.zero_grad(set_to_none=True)
    with torch.no_grad():
        teacher_outputs = network_outputs(teacher, noise)
    terms = []
    for name, student_output in network_outputs(student, noise).items():
        if name in noise:
            (mean, raw_scale), (student_mean, student_raw_scale) = (
                value.chunk(2, 1) for value in (teacher_outputs[name], student_output)
            )
            scale_gap = positive_scale(raw_scale) - positive_scale(student_raw_scale)
            divergence = (mean - student_mean).square() + scale_gap.square()  # W2 of normal variables
        else:
            divergence = kl_divergence(Normal(teacher_outputs[name], SCALE), Normal(student_output, SCALE))
        terms.append(divergence.flatten(1).sum(1).mean())
    torch.stack(terms).sum().backward()
