"""Distillation steps of directed graphical models: CPU time, peak memory and gradients against loops without kdzoo's.

    python scripts/bench_graphical.py [--rounds 5]

Each part of the page is a function of the rounds in PARTS.
"""

import argparse
import copy
import ctypes
import functools
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from bench_common import in_turns, publish, ratio, table
from bench_unroll import high_water, seconds, verdict
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from kdzoo.graphical.families import positive_scale
from kdzoo.graphical.paired import node_divergence, paired_rollout
from kdzoo.models import StrokeVRNN

Noise = dict[str, Tensor]
Way = Callable[[], Tensor]
"""Sets the student's gradients and returns the loss, up to what does not depend on the student."""

LOOP, FROZEN, KDZOO = "loop", "loop, frozen teacher", "kdzoo"
NETS = ("z", "z_features", "decoder", "pen", "offset", "x_features")
LATENT_WEIGHT = 1e-3
FASTER, APART = 2.5, 1e-6


# ---------------------------------------------------------------- a variational recurrent network


@dataclass(frozen=True)
class Sequences:
    """Sizes of a comparison: units of hidden layers and LSTM of the teacher, sequences and steps of a batch."""

    width: int
    hidden: int
    batch: int
    steps: int

    def models(self) -> tuple[StrokeVRNN, StrokeVRNN]:
        """Return teacher and student, always the same."""
        torch.manual_seed(0)
        teacher = StrokeVRNN(in_shape=(self.steps, 3), width=self.width, hidden=self.hidden)
        return teacher, StrokeVRNN(in_shape=(self.steps, 3))

    def noise(self, model: StrokeVRNN) -> Noise:
        """Return the noise of a batch, always the same."""
        return model.noise(self.batch, generator=torch.Generator().manual_seed(1))

    def ways(self) -> dict[str, tuple[Way, Callable[[], Noise]]]:
        """Return both ways with the student's gradients after each, by parameter of the graph."""
        teacher, student = self.models()
        noise = self.noise(student)
        plain = PlainVRNN(teacher), PlainVRNN(student)
        return {
            LOOP: (functools.partial(plain_step, *plain, noise), plain[1].gradients),
            FROZEN: (functools.partial(plain_step, *plain, noise, frozen=True), plain[1].gradients),
            KDZOO: (functools.partial(paired_step, teacher, student, noise), lambda: gradients(student)),
        }


SIZES = {
    "14.4M to 2.4M, B 8, T 32": Sequences(512, 1200, 8, 32),
    "2.4M to 2.4M, B 4, T 64": Sequences(128, 600, 4, 64),
}


def paired_step(teacher: StrokeVRNN, student: StrokeVRNN, noise: Noise) -> Tensor:
    """Go there and back as a distiller does."""
    student.zero_grad(set_to_none=True)
    pair = paired_rollout(teacher, student, noise)
    steps = noise["z"].shape[1]
    weights = {"pen": 1.0, "offset": 1.0, "z": LATENT_WEIGHT}
    terms = [weight * node_divergence(pair, name, "kl", "sum").mean() / steps for name, weight in weights.items()]
    loss = torch.stack(terms).sum()
    loss.backward()
    return loss.detach()


class PlainVRNN(nn.Module):
    """A loop over the steps of the same model, one step of torch's LSTM at a time, every head inside of the loop.

    Args:
        model: whose weights it starts from.
    """

    def __init__(self, model: StrokeVRNN) -> None:
        super().__init__()
        assert model.scan is not None
        self.names = {node.name: f"entries.0.nodes.{i}.conditional.net" for i, node in enumerate(model.scan.nodes)}
        copies = {name: copy.deepcopy(model.get_submodule(path)) for name, path in self.names.items()}
        self.nets = nn.ModuleList(copies[name] for name in NETS)
        drive, carry = model.get_submodule(self.names["drive"]), model.scan.carry
        self.rnn = nn.LSTM(2 * drive.in_features, carry.hidden)
        ours = torch.cat([drive.weight, carry.inputs.weight], 1), carry.recurrent.weight, carry.recurrent.bias
        with torch.no_grad():
            for name, weight in zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"), ours, strict=True):
                getattr(self.rnn, name).copy_(swapped(weight))
            self.rnn.bias_hh_l0.zero_()

    def forward(self, noise: Noise, given: Tensor | None = None) -> dict[str, Tensor]:
        """Return means, deviations, logits and values of all steps, [T, b, ...], of values that are given or drawn."""
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
        found = {
            f"{self.names[key]}.{name}": parameter.grad
            for key, net in zip(NETS, self.nets, strict=True)
            for name, parameter in net.named_parameters()
            if parameter.grad is not None
        }
        weight = swapped(self.rnn.weight_ih_l0.grad)
        half = weight.shape[1] // 2
        return found | {
            f"{self.names['drive']}.weight": weight[:, :half],
            "entries.0.carry.inputs.weight": weight[:, half:],
            "entries.0.carry.recurrent.weight": swapped(self.rnn.weight_hh_l0.grad),
            "entries.0.carry.recurrent.bias": swapped(self.rnn.bias_ih_l0.grad),
        }


def swapped(gates: Tensor | None) -> Tensor:
    """Return gates [4h, ...] with the last two exchanged: torch has i, f, g, o, kdzoo i, f, o, g."""
    assert gates is not None
    i, f, third, fourth = gates.detach().chunk(4)
    return torch.cat([i, f, fourth, third])


def gradients(model: nn.Module) -> Noise:
    """Return the gradients of the parameters that have one."""
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def plain_step(teacher: PlainVRNN, student: PlainVRNN, noise: Noise, *, frozen: bool = False) -> Tensor:
    """Go there and back with loops, recording the teacher's gradients too unless it is frozen."""
    for model in (teacher, student):
        model.zero_grad(set_to_none=True)
    with torch.set_grad_enabled(not frozen):
        taught = teacher(noise)
    own = student(noise, taught["x"])
    pen = binary_cross_entropy_with_logits(own["y"][..., 0], taught["y"][..., 0].sigmoid(), reduction="none")
    offset = kl_divergence(Normal(taught["y"][..., 1:], 1.0), Normal(own["y"][..., 1:], 1.0)).sum(-1)
    priors = [Normal(one["z_mean"], one["z_scale"]) for one in (taught, own)]
    loss = (pen + offset + LATENT_WEIGHT * kl_divergence(*priors).sum(-1)).mean()
    loss.backward()
    return loss.detach()


def sequences(rounds: int) -> list[str]:
    """Return the paragraphs about variational recurrent networks."""
    rows, reached = [], {}
    for name, size in SIZES.items():
        ways, found = size.ways(), {}
        for way, (run, last) in ways.items():
            run()  # also what is done once
            found[way] = {key: value.clone() for key, value in last().items()}
        largest, apart = compared(found[KDZOO], found[LOOP])
        times = in_turns({way: functools.partial(seconds, run) for way, (run, _) in ways.items()}, rounds)
        faster, peaks = ratio(times, LOOP, KDZOO), {way: peak(name, way) for way in ways}
        for way in ways:
            cells = [spread(times[way]), f"{ratio(times, LOOP, way):.2f}", f"{peaks[way]:.0f}"]
            rows.append([f"{name}: {way}", *cells, f"{compared(found[way], found[LOOP])[1]:.0e}"])
        reached[f"{name}: {FASTER} times as fast ({faster:.2f})"] = faster >= FASTER
        reached[f"derivatives of at most {largest:.2f} within {APART:.0e} ({apart:.0e})"] = apart <= APART
    return [
        "## A variational recurrent network",
        "One step of distillation of `StrokeVRNN`, the student with 128 and 600 units: the roll-out of the teacher, "
        "that of the student on the teacher's strokes, KL of pens, offsets and (1e-3) latents, gradients of the "
        "student. The loop is written as the code of Chen et al. 2023 works: gradients of the teacher are recorded and "
        "computed, one step of `nn.LSTM` at a time, every head inside of the loop, results written into slices; with a "
        "frozen teacher it is the same without the teacher's gradients. A peak is what a fresh process adds at its "
        "peak. The last column is the largest difference of a derivative of the student.",
        table(["", "CPU ms (range)", "loop /", "peak, MiB", "from loop"], rows),
        verdict(reached),
    ]


# ---------------------------------------------------------------- what all parts use


def spread(times: list[float]) -> str:
    """Return the median of seconds with their range, in ms."""
    return f"{1e3 * statistics.median(times):.0f} ({1e3 * min(times):.0f} to {1e3 * max(times):.0f})"


def compared(found: Noise, expected: Noise) -> tuple[float, float]:
    """Return the largest number and the largest difference of tensors with the same names."""
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    apart = max(float((found[name] - value).abs().max()) for name, value in expected.items())
    return max(float(value.abs().max()) for value in expected.values()), apart


def peak(size: str, way: str) -> float:
    """Return by how many MiB one way raises the memory of a fresh process at its peak; Linux."""
    command = [sys.executable, __file__, "--peak", size, way]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    return float(subprocess.run(command, env=settings, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(size: str, way: str) -> None:
    """Print what `peak` asks for."""
    Sequences(4, 4, 1, 1).ways()[way][0]()  # what is loaded on first use
    run, _ = SIZES[size].ways()[way]
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else what building the models left behind would serve again
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = high_water()
    run()
    print((high_water() - before) / 1024)


PARTS: list[Callable[[int], list[str]]] = [sequences]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        return print_peak(*options.peak)
    paragraphs = [paragraph for part in PARTS for paragraph in part(options.rounds)]
    about = (
        f"Float32, one thread, median of {options.rounds} rounds in turns; a ratio is the median of those of a round."
    )
    publish("graphical", "Steps of directed graphical models", about, *paragraphs)
    return None


if __name__ == "__main__":
    main()
