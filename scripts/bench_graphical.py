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
from bench_common import cpu_seconds, high_water, in_turns, publish, ratio, table, verdict
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from kdzoo.distillers import SemiAuxiliary
from kdzoo.distillers.generative.batch_noise import pack_noise
from kdzoo.distillers.generative.node_divergences import NodeDivergences
from kdzoo.graphical_models import Graph, Trace
from kdzoo.graphical_models.families import positive_scale
from kdzoo.graphical_models.fused_copy import fused_copy, has_fast_bfloat16
from kdzoo.graphical_models.paired import Pair, node_divergence, paired_rollout, rollout_student, rollout_teacher
from kdzoo.models import HVAE, ConvHVAE, StrokeVRNN
from kdzoo.models.hvae import SCALE

Noise = dict[str, Tensor]
Way = Callable[[], Tensor]
"""Sets the student's gradients and returns the loss, up to what does not depend on the student."""

LOOP, FROZEN, KDZOO = "loop", "loop, frozen teacher", "kdzoo"
LEAST, BY_HAND = "the least", "by hand"
PLAIN, FOLDED, LOWERED = "plain", "folded", "folded, bfloat16"
APART_STEPS, TOGETHER = "four steps", "one roll-out"
NETS = ("z", "z_features", "decoder", "pen", "offset", "x_features")
LATENT_WEIGHT = 1e-3
FASTER, APART, RELATIVE = 2.5, 1e-6, 1e-5
OVERHEAD, TWICE, ALIGNED, NEAR, STUDENTS = 1.25, 2, 0.999, 0.01, 4


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
        drive, carry = model.get_submodule(self.names["gate_input"]), model.scan.carry
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
            f"{self.names['gate_input']}.weight": weight[:, :half],
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
        times = in_turns({way: functools.partial(cpu_seconds, run) for way, (run, _) in ways.items()}, rounds)
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


# ---------------------------------------------------------------- hierarchical variational autoencoders


@dataclass(frozen=True)
class Images:
    """A comparison of image models: what builds both, widths of teacher and student, images, runs of one timing."""

    build: Callable[..., Graph]
    teacher: int
    student: int
    batch: int
    repeats: int = 1

    def model(self, width: int, seed: int = 0) -> Graph:
        """Return a model whose norms have seen data, always the same."""
        torch.manual_seed(seed)
        model = self.build(width=width)
        with torch.no_grad():
            for _ in range(3):
                model.rollout(model.noise(16))
        return model

    def noise(self, model: Graph) -> Noise:
        """Return the noise of a batch, always the same."""
        return model.noise(self.batch, generator=torch.Generator().manual_seed(1))

    def seconds(self, run: Callable[[], object]) -> float:
        """Return the CPU seconds of a run, a mean where one is short."""
        return cpu_seconds(lambda: [run() for _ in range(self.repeats)]) / self.repeats


MLP = functools.partial(HVAE, in_shape=(1, 28, 28))
CONV = functools.partial(ConvHVAE, in_shape=(3, 32, 32))
HIERARCHIES = {
    "layers, 256 to 12, B 128": Images(MLP, 256, 12, 128, repeats=8),
    "convolutions, 32 to 8, B 32": Images(CONV, 32, 8, 32),
}
TEACHERS = {"width 128, B 8": Images(CONV, 128, 8, 8), "width 32, B 32": Images(CONV, 32, 8, 32)}
SHARED = {
    "layers, 256 to 12, B 128": Images(MLP, 256, 12, 128, repeats=4),
    "convolutions, 128 to 8, B 8": Images(CONV, 128, 8, 8),
}


def plain_raws(model: Graph, noise: Noise) -> Noise:
    """Return what the nets of learned nodes return, by a loop from the topmost latent, N(0, (1 + 1e-6)^2), down."""
    (top, _), *rest = model.random_nodes().items()
    value, raws = (1 + 1e-6) * noise[top], {}
    for name, node in rest:
        raws[name] = raw = node.conditional.net(value)
        if name in noise:
            mean, raw_scale = raw.chunk(2, 1)
            value = mean + positive_scale(raw_scale) * noise[name]
    return raws


def least(teacher: Graph, student: Graph, noise: Noise) -> None:
    """Do what every step must: both nets there, the student's back from a plain sum."""
    student.zero_grad(set_to_none=True)
    with torch.no_grad():
        plain_raws(teacher, noise)
    torch.stack([raw.sum() for raw in plain_raws(student, noise).values()]).sum().backward()


def by_hand(teacher: Graph, student: Graph, noise: Noise) -> None:
    """Go there and back in plain torch."""
    student.zero_grad(set_to_none=True)
    with torch.no_grad():
        taught = plain_raws(teacher, noise)
    terms = []
    for name, raw in plain_raws(student, noise).items():
        if name in noise:
            (mean, scale), (own, own_scale) = (one.chunk(2, 1) for one in (taught[name], raw))
            gap = (mean - own).square() + (positive_scale(scale) - positive_scale(own_scale)).square()
        else:
            gap = kl_divergence(Normal(taught[name], SCALE), Normal(raw, SCALE))
        terms.append(gap.flatten(1).sum(1).mean())
    torch.stack(terms).sum().backward()


def distilled(distiller: SemiAuxiliary, noise: Noise) -> None:
    """Go there and back as a training step does."""
    distiller.student.zero_grad(set_to_none=True)
    batch = {"input": torch.zeros(len(next(iter(noise.values()))), 0), **pack_noise(noise)}
    torch.stack([values.mean() for values in distiller.losses(batch).values()]).sum().backward()


def hierarchies(rounds: int) -> list[str]:
    """Return the paragraphs about the step of hierarchical variational autoencoders."""
    rows, reached = [], {}
    for name, size in HIERARCHIES.items():
        teacher, student = size.model(size.teacher), size.model(size.student, 1)
        distiller, noise = SemiAuxiliary(student, teacher, calibrated=False), size.noise(teacher)
        distiller.train()
        ways: dict[str, Callable[[], None]] = {
            LEAST: functools.partial(least, teacher, student, noise),
            BY_HAND: functools.partial(by_hand, teacher, student, noise),
            KDZOO: functools.partial(distilled, distiller, noise),
        }
        found = {}
        for way, run in ways.items():
            run()
            found[way] = {key: value.clone() for key, value in gradients(student).items()}
        largest, apart = compared(found[KDZOO], found[BY_HAND])
        times = in_turns({way: functools.partial(size.seconds, run) for way, run in ways.items()}, rounds)
        rows += [[f"{name}: {way}", spread(times[way]), f"{ratio(times, way, LEAST):.2f}"] for way in ways]
        overhead = ratio(times, KDZOO, LEAST)
        reached[f"{name}: at most {OVERHEAD} times the least ({overhead:.2f})"] = overhead <= OVERHEAD
        reached[f"derivatives within {RELATIVE:.0e} of the largest ({apart / largest:.0e})"] = (
            apart <= RELATIVE * largest
        )
    return [
        "## Hierarchical variational autoencoders",
        "Losses and gradients of one step of `HVAE` (28 x 28 pixels) and `ConvHVAE` (3 x 32 x 32), KL of the image and "
        "W2 of the latents. The least that any step does is the teacher's nets without gradient, and the student's "
        "there and back from a plain sum. By hand is the same loss in plain torch.",
        table(["", "CPU ms (range)", "/ least"], rows),
        verdict(reached),
    ]


def matched(student: Graph, trace: Trace, noise: Noise) -> None:
    """Set the gradients of a student on a teacher's roll-out."""
    student.zero_grad(set_to_none=True)
    terms = NodeDivergences()(Pair(trace, rollout_student(student, trace, noise)), student)
    torch.stack([values.mean() for values in terms.values()]).sum().backward()


def beside(teacher: Graph) -> Graph:
    """Return a copy with weights that are a little off."""
    near = copy.deepcopy(teacher)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in near.parameters():
            parameter.mul_(1 + NEAR * torch.randn_like(parameter))
    return near


def fast_teachers(rounds: int) -> list[str]:
    """Return the paragraphs about the teacher's roll-out by a fast copy."""
    gains, rows, reached = has_fast_bfloat16(torch.device("cpu")), [], {}
    for name, size in TEACHERS.items():
        teacher, student = size.model(size.teacher).eval(), size.model(size.student, 1)
        noise = size.noise(teacher)
        ways = {
            PLAIN: teacher,
            FOLDED: fused_copy(teacher, bfloat16=False),
            LOWERED: fused_copy(teacher, bfloat16=True),
        }
        timed = {way: functools.partial(rollout_teacher, model, noise) for way, model in ways.items()}
        near = beside(teacher)
        found: dict[str, list[Tensor]] = {}
        first = {}
        for way, run in timed.items():
            traces: list[Trace] = []
            first[way] = cpu_seconds(lambda run=run, traces=traces: traces.append(run()))  # also what is done once
            found[way] = []
            for one in (student, near):
                matched(one, traces[0], noise)
                found[way].append(torch.cat([value.flatten() for value in gradients(one).values()]).double())
        often = {way: functools.partial(cpu_seconds, run) for way, run in timed.items() if gains or way != LOWERED}
        times = in_turns(often, rounds)
        for way in ways:
            once = way not in times
            spent = f"{1e3 * first[way]:.0f} (once)" if once else spread(times[way])
            speed = statistics.median(times[PLAIN]) / first[way] if once else ratio(times, PLAIN, way)
            cosines = [float(cosine_similarity(*both, dim=0)) for both in zip(found[way], found[PLAIN], strict=True)]
            rows.append([f"{name}: {way}", spent, f"{speed:.2f}", *(f"{cosine:.7f}" for cosine in cosines)])
            if way == LOWERED:
                reached[f"{name}: bfloat16 {TWICE} times as fast ({speed:.2f})"] = speed >= TWICE
                reached[f"both cosines at least {ALIGNED} ({min(cosines):.5f})"] = min(cosines) >= ALIGNED
    have = "has" if gains else "has no"
    return [
        "## A fast teacher",
        "The teacher's roll-out of `ConvHVAE`, 3 x 32 x 32 pixels: in eval mode; a copy with its norms folded into the "
        "convolutions; the copy with its nets in bfloat16. Cosines of a student's gradient with that by the plain "
        "teacher: of a new student of width 8, and of a near one: the teacher with weights that are off by "
        f"{NEAR:.0%}. No model is trained. This processor {have} instructions for bfloat16"
        + ("." if gains else ", so that `fast_teacher=true` takes the folded copy in float32."),
        table(["", "CPU ms (range)", "plain /", "cosine, new", "cosine, near"], rows),
        verdict(reached),
    ]


def several(rounds: int) -> list[str]:
    """Return the paragraphs about students that share a roll-out of their teacher."""
    rows, reached = [], {}
    for name, size in SHARED.items():
        teacher = size.model(size.teacher).eval()
        students = [size.model(size.student, 1 + seed) for seed in range(STUDENTS)]
        noise = size.noise(teacher)

        def apart(teacher: Graph = teacher, students: list[Graph] = students, noise: Noise = noise) -> None:
            for student in students:
                matched(student, rollout_teacher(teacher, noise), noise)

        def together(teacher: Graph = teacher, students: list[Graph] = students, noise: Noise = noise) -> None:
            trace = rollout_teacher(teacher, noise)
            for student in students:
                matched(student, trace, noise)

        ways: dict[str, Callable[[], None]] = {APART_STEPS: apart, TOGETHER: together}
        found = {}
        for way, run in ways.items():
            run()
            found[way] = [{key: value.clone() for key, value in gradients(student).items()} for student in students]
        times = in_turns({way: functools.partial(size.seconds, run) for way, run in ways.items()}, rounds)
        rows += [[f"{name}: {way}", spread(times[way]), f"{ratio(times, APART_STEPS, way):.2f}"] for way in ways]
        speed = ratio(times, APART_STEPS, TOGETHER)
        largest = max(compared(*pair)[1] for pair in zip(*found.values(), strict=True))
        if size.build is CONV:
            reached[f"{name}: {FASTER} times as fast ({speed:.2f})"] = speed >= FASTER
        reached[f"{name}: equal gradients ({largest:.0e})"] = largest == 0
    return [
        "## Several students of one roll-out",
        f"Gradients of {STUDENTS} students on the same noise: a roll-out of the teacher for each, or one for all "
        "(`rollout_teacher` once, `rollout_student` for each).",
        table(["", "CPU ms (range)", "apart /"], rows),
        verdict(reached),
    ]


# ---------------------------------------------------------------- what all parts use


def spread(times: list[float]) -> str:
    """Return the median of seconds with their range, in ms."""
    middle, digits = statistics.median(times), 0 if min(times) > 0.1 else 1
    return f"{1e3 * middle:.{digits}f} ({1e3 * min(times):.{digits}f} to {1e3 * max(times):.{digits}f})"


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


PARTS: list[Callable[[int], list[str]]] = [sequences, hierarchies, fast_teachers, several]


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
