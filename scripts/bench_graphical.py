"""Distillation steps of directed graphical models: CPU time, peak memory and gradients, compared with plain torch.

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
from graphical_baselines import LATENT_WEIGHT, Noise, PlainVRNN, by_hand, least, plain_step
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from kdzoo.distillers import SemiAuxiliary
from kdzoo.distillers.generative.batch_noise import pack_noise
from kdzoo.distillers.generative.node_divergences import NodeDivergences
from kdzoo.graphical_models import Graph, Trace
from kdzoo.graphical_models.fused_copy import fused_copy, has_fast_bfloat16
from kdzoo.graphical_models.paired import Pair, node_divergence, paired_rollout, rollout_student, rollout_teacher
from kdzoo.models import HVAE, ConvHVAE, StrokeVRNN

Step = Callable[[], Tensor]
"""Sets the student's gradients and returns the loss, up to terms that do not depend on the student."""

# Names of the compared implementations in the tables.
LOOP, FROZEN, KDZOO = "loop", "loop, frozen teacher", "kdzoo"
LEAST, BY_HAND = "the least", "by hand"
PLAIN, FOLDED, LOWERED = "plain", "folded", "folded, bfloat16"
SEPARATE, SHARED_ROLLOUT = "four steps", "one rollout"
STUDENTS = 4
NEAR = 0.01
"""Relative change of the weights of a student close to its teacher; its small gradient suffers most from bfloat16."""

# Targets. Speed over a loop, and of the teacher in bfloat16 over the plain one; largest difference of derivatives,
# absolute and relative; time of a step over that of its networks; smallest cosine of gradients.
FASTER, TWICE = 2.5, 2
APART, RELATIVE = 1e-6, 1e-5
OVERHEAD, ALIGNED = 1.25, 0.999


# ---------------------------------------------------------------- a variational recurrent network


@dataclass(frozen=True)
class Sequences:
    """Sizes of a comparison: hidden units and LSTM units of the teacher, sequences and steps of a batch."""

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

    def ways(self) -> dict[str, tuple[Step, Callable[[], Noise]]]:
        """Return each implementation with a function that returns the student's gradients by parameter of the graph."""
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
    """Set the student's gradients as a distiller does."""
    student.zero_grad(set_to_none=True)
    pair = paired_rollout(teacher, student, noise)
    steps = noise["z"].shape[1]
    weights = {"pen": 1.0, "offset": 1.0, "z": LATENT_WEIGHT}
    terms = [weight * node_divergence(pair, name, "kl", "sum").mean() / steps for name, weight in weights.items()]
    loss = torch.stack(terms).sum()
    loss.backward()
    return loss.detach()


def sequences(rounds: int) -> list[str]:
    """Return the paragraphs about variational recurrent networks."""
    rows, reached = [], {}
    for name, size in SIZES.items():
        ways, student_gradients = size.ways(), {}
        for way, (run, last) in ways.items():
            run()  # warm-up
            student_gradients[way] = {key: value.clone() for key, value in last().items()}
        largest, apart = compared(student_gradients[KDZOO], student_gradients[LOOP])
        times = in_turns({way: functools.partial(cpu_seconds, run) for way, (run, _) in ways.items()}, rounds)
        faster, peaks = ratio(times, LOOP, KDZOO), {way: peak(name, way) for way in ways}
        for way in ways:
            cells = [spread(times[way]), f"{ratio(times, LOOP, way):.2f}", f"{peaks[way]:.0f}"]
            rows.append(
                [f"{name}: {way}", *cells, f"{compared(student_gradients[way], student_gradients[LOOP])[1]:.0e}"]
            )
        reached[f"{name}: {FASTER} times as fast ({faster:.2f})"] = faster >= FASTER
        reached[f"derivatives of at most {largest:.2f} within {APART:.0e} ({apart:.0e})"] = apart <= APART
    return [
        "## A variational recurrent network",
        "One step of distillation of `StrokeVRNN`, the student with 128 and 600 units: the rollout of the teacher, "
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
    """A comparison of image models: their class, widths of teacher and student, images of a batch, runs of a timing."""

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
STUDENT_GROUPS = {
    "layers, 256 to 12, B 128": Images(MLP, 256, 12, 128, repeats=4),
    "convolutions, 128 to 8, B 8": Images(CONV, 128, 8, 8),
}


def training_step(distiller: SemiAuxiliary, noise: Noise) -> None:
    """Set the student's gradients as a training step does."""
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
            KDZOO: functools.partial(training_step, distiller, noise),
        }
        student_gradients = {}
        for way, run in ways.items():
            run()
            student_gradients[way] = {key: value.clone() for key, value in gradients(student).items()}
        largest, apart = compared(student_gradients[KDZOO], student_gradients[BY_HAND])
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
        "W2 of the latents. The least of any step is the teacher's networks without gradients, and the student's "
        "forward and backward from a plain sum. By hand is the same loss in plain torch.",
        table(["", "CPU ms (range)", "/ least"], rows),
        verdict(reached),
    ]


def matched(student: Graph, trace: Trace, noise: Noise) -> None:
    """Set the gradients of a student on a teacher's rollout."""
    student.zero_grad(set_to_none=True)
    terms = NodeDivergences()(Pair(trace, rollout_student(student, trace, noise)), student)
    torch.stack([values.mean() for values in terms.values()]).sum().backward()


def perturbed(teacher: Graph) -> Graph:
    """Return a copy with slightly changed weights."""
    near = copy.deepcopy(teacher)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in near.parameters():
            parameter.mul_(1 + NEAR * torch.randn_like(parameter))
    return near


def first_rollout(run: Callable[[], Trace], students: list[Graph], noise: Noise) -> tuple[float, list[Tensor]]:
    """Return the CPU seconds of a first rollout of the teacher, and the gradient of each student on it, ``[n]``."""
    traces: list[Trace] = []
    seconds = cpu_seconds(lambda: traces.append(run()))
    result = []
    for student in students:
        matched(student, traces[0], noise)
        result.append(torch.cat([value.flatten() for value in gradients(student).values()]).double())
    return seconds, result


def fast_teachers(rounds: int) -> list[str]:
    """Return the paragraphs about rollouts by a fast copy of the teacher."""
    has_bfloat16, rows, reached = has_fast_bfloat16(torch.device("cpu")), [], {}
    for name, size in TEACHERS.items():
        teacher, student = size.model(size.teacher).eval(), size.model(size.student, 1)
        noise = size.noise(teacher)
        ways = {
            PLAIN: teacher,
            FOLDED: fused_copy(teacher, bfloat16=False),
            LOWERED: fused_copy(teacher, bfloat16=True),
        }
        timed = {way: functools.partial(rollout_teacher, model, noise) for way, model in ways.items()}
        near = perturbed(teacher)
        first, student_gradients = {}, {}
        for way, run in timed.items():
            first[way], student_gradients[way] = first_rollout(run, [student, near], noise)
        often = {
            way: functools.partial(cpu_seconds, run) for way, run in timed.items() if has_bfloat16 or way != LOWERED
        }
        times = in_turns(often, rounds)
        for way in ways:
            once = way not in times
            spent = f"{1e3 * first[way]:.0f} (once)" if once else spread(times[way])
            speed = statistics.median(times[PLAIN]) / first[way] if once else ratio(times, PLAIN, way)
            cosines = [
                float(cosine_similarity(*both, dim=0))
                for both in zip(student_gradients[way], student_gradients[PLAIN], strict=True)
            ]
            rows.append([f"{name}: {way}", spent, f"{speed:.2f}", *(f"{cosine:.7f}" for cosine in cosines)])
            if way == LOWERED:
                reached[f"{name}: bfloat16 {TWICE} times as fast ({speed:.2f})"] = speed >= TWICE
                reached[f"both cosines at least {ALIGNED} ({min(cosines):.5f})"] = min(cosines) >= ALIGNED
    have = "has" if has_bfloat16 else "has no"
    return [
        "## A fast teacher",
        "The teacher's rollout of `ConvHVAE`, 3 x 32 x 32 pixels: in eval mode; a copy with its norms folded into the "
        "convolutions; the copy with its nets in bfloat16. Cosines of a student's gradient with that by the plain "
        "teacher: of a new student of width 8, and of a near one: the teacher with weights that are off by "
        f"{NEAR:.0%}. No model is trained. This processor {have} instructions for bfloat16"
        + ("." if has_bfloat16 else ", so that `fast_teacher=true` takes the folded copy in float32."),
        table(["", "CPU ms (range)", "plain /", "cosine, new", "cosine, near"], rows),
        verdict(reached),
    ]


def several(rounds: int) -> list[str]:
    """Return the paragraphs about students that share a rollout of their teacher."""
    rows, reached = [], {}
    for name, size in STUDENT_GROUPS.items():
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

        ways: dict[str, Callable[[], None]] = {SEPARATE: apart, SHARED_ROLLOUT: together}
        student_gradients = {}
        for way, run in ways.items():
            run()
            student_gradients[way] = [
                {key: value.clone() for key, value in gradients(student).items()} for student in students
            ]
        times = in_turns({way: functools.partial(size.seconds, run) for way, run in ways.items()}, rounds)
        rows += [[f"{name}: {way}", spread(times[way]), f"{ratio(times, SEPARATE, way):.2f}"] for way in ways]
        speed = ratio(times, SEPARATE, SHARED_ROLLOUT)
        largest = max(compared(*pair)[1] for pair in zip(*student_gradients.values(), strict=True))
        if size.build is CONV:
            reached[f"{name}: {FASTER} times as fast ({speed:.2f})"] = speed >= FASTER
        reached[f"{name}: equal gradients ({largest:.0e})"] = largest == 0
    return [
        "## Several students of one rollout",
        f"Gradients of {STUDENTS} students on the same noise: a rollout of the teacher for each, or one for all "
        "(`rollout_teacher` once, `rollout_student` for each).",
        table(["", "CPU ms (range)", "apart /"], rows),
        verdict(reached),
    ]


# ---------------------------------------------------------------- what all parts use


def gradients(model: nn.Module) -> Noise:
    """Return the gradients of the parameters that have one."""
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def spread(times: list[float]) -> str:
    """Return the median of seconds with their range, in ms."""
    middle, digits = statistics.median(times), 0 if min(times) > 0.1 else 1
    return f"{1e3 * middle:.{digits}f} ({1e3 * min(times):.{digits}f} to {1e3 * max(times):.{digits}f})"


def compared(actual: Noise, expected: Noise) -> tuple[float, float]:
    """Return the largest absolute value and the largest difference of tensors with the same names."""
    assert actual.keys() == expected.keys(), actual.keys() ^ expected.keys()
    apart = max(float((actual[name] - value).abs().max()) for name, value in expected.items())
    return max(float(value.abs().max()) for value in expected.values()), apart


def peak(size: str, way: str) -> float:
    """Return by how many MiB an implementation raises the peak memory of a fresh process; Linux only."""
    command = [sys.executable, __file__, "--peak", size, way]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    return float(subprocess.run(command, env=settings, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(size: str, way: str) -> None:
    """Print the number that :func:`peak` reads, in the fresh process."""
    Sequences(4, 4, 1, 1).ways()[way][0]()  # loads everything that is loaded on first use
    run, _ = SIZES[size].ways()[way]
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # otherwise memory left from building the models would be reused
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
    about = f"Float32, one thread, median of {options.rounds} rounds in turns; ratios are medians over the rounds."
    publish("graphical", "Steps of directed graphical models", about, *paragraphs)
    return None


if __name__ == "__main__":
    main()
