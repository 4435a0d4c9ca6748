"""Distillation steps of directed graphical models: CPU time, peak memory and gradients, compared with plain torch.

    python scripts/bench_graphical.py [--rounds 5]

Each function in SECTIONS takes the number of rounds and returns a section of the page.
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
from bench_common import (
    cpu_seconds,
    markdown_table,
    median_ratio,
    peak_resident_memory,
    publish,
    target_summary,
    time_in_turns,
)
from graphical_baselines import (
    LATENT_WEIGHT,
    Noise,
    PlainVRNN,
    run_minimal_step,
    set_hvae_gradients,
    set_vrnn_gradients,
)
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
MINIMAL, BY_HAND = "the least", "by hand"
PLAIN, FOLDED, FOLDED_BFLOAT16 = "plain", "folded", "folded, bfloat16"
SEPARATE, SHARED_ROLLOUT = "four steps", "one rollout"
STUDENTS = 4
PERTURBATION = 0.01
"""Relative perturbation of the weights of a near student, whose small gradients suffer most from bfloat16."""

# Targets: speed-up over the loop, and of the bfloat16 teacher over the plain one; largest absolute and relative
# difference of derivatives; time of a step relative to its network passes; smallest cosine of gradients.
MIN_SPEEDUP, BFLOAT16_SPEEDUP = 2.5, 2
MAX_DIFFERENCE, MAX_RELATIVE_DIFFERENCE = 1e-6, 1e-5
MAX_OVERHEAD, MIN_COSINE = 1.25, 0.999


# ---------------------------------------------------------------- a variational recurrent network


@dataclass(frozen=True)
class Sequences:
    """Sizes of a comparison of sequence models: layer and LSTM units of the teacher, sequences and steps of a batch."""

    width: int
    hidden: int
    batch: int
    steps: int

    def make_models(self) -> tuple[StrokeVRNN, StrokeVRNN]:
        """Return teacher and student with fixed seeds."""
        torch.manual_seed(0)
        teacher = StrokeVRNN(in_shape=(self.steps, 3), width=self.width, hidden=self.hidden)
        return teacher, StrokeVRNN(in_shape=(self.steps, 3))

    def draw_noise(self, model: StrokeVRNN) -> Noise:
        """Return the noise of a batch with a fixed seed."""
        return model.noise(self.batch, generator=torch.Generator().manual_seed(1))

    def implementations(self) -> dict[str, tuple[Step, Callable[[], Noise]]]:
        """Return each implementation of a step, with a function that returns the student's gradients by parameter."""
        teacher, student = self.make_models()
        noise = self.draw_noise(student)
        plain = PlainVRNN(teacher), PlainVRNN(student)
        return {
            LOOP: (functools.partial(set_vrnn_gradients, *plain, noise), plain[1].gradients),
            FROZEN: (functools.partial(set_vrnn_gradients, *plain, noise, frozen=True), plain[1].gradients),
            KDZOO: (functools.partial(run_paired_step, teacher, student, noise), lambda: named_gradients(student)),
        }


SIZES = {
    "14.4M to 2.4M, B 8, T 32": Sequences(512, 1200, 8, 32),
    "2.4M to 2.4M, B 4, T 64": Sequences(128, 600, 4, 64),
}


def run_paired_step(teacher: StrokeVRNN, student: StrokeVRNN, noise: Noise) -> Tensor:
    """Set the student's gradients as the distiller does, and return the loss."""
    student.zero_grad(set_to_none=True)
    pair = paired_rollout(teacher, student, noise)
    steps = noise["z"].shape[1]
    weights = {"pen": 1.0, "offset": 1.0, "z": LATENT_WEIGHT}
    terms = [weight * node_divergence(pair, name, "kl", "sum").mean() / steps for name, weight in weights.items()]
    loss = torch.stack(terms).sum()
    loss.backward()
    return loss.detach()


def vrnn_section(rounds: int) -> list[str]:
    """Return the section on variational recurrent networks."""
    rows, reached = [], {}
    for name, size in SIZES.items():
        implementations, student_gradients = size.implementations(), {}
        for label, (run, get_gradients) in implementations.items():
            run()  # warm-up
            student_gradients[label] = {key: value.clone() for key, value in get_gradients().items()}
        largest, difference = largest_value_and_difference(student_gradients[KDZOO], student_gradients[LOOP])
        times = time_in_turns(
            {label: functools.partial(cpu_seconds, run) for label, (run, _) in implementations.items()}, rounds
        )
        speedup = median_ratio(times, LOOP, KDZOO)
        peaks = {label: peak_memory(name, label) for label in implementations}
        for label in implementations:
            cells = [format_times(times[label]), f"{median_ratio(times, LOOP, label):.2f}", f"{peaks[label]:.0f}"]
            rows.append(
                [
                    f"{name}: {label}",
                    *cells,
                    f"{largest_value_and_difference(student_gradients[label], student_gradients[LOOP])[1]:.0e}",
                ]
            )
        reached[f"{name}: {MIN_SPEEDUP} times as fast ({speedup:.2f})"] = speedup >= MIN_SPEEDUP
        reached[f"derivatives of at most {largest:.2f} within {MAX_DIFFERENCE:.0e} ({difference:.0e})"] = (
            difference <= MAX_DIFFERENCE
        )
    return [
        "## A variational recurrent network",
        "One step of distillation of `StrokeVRNN`, the student with 128 and 600 units: the rollout of the teacher, "
        "that of the student on the teacher's strokes, KL of pens, offsets and (1e-3) latents, gradients of the "
        "student. The loop is written as the code of Chen et al. 2023 works: gradients of the teacher are recorded and "
        "computed, one step of `nn.LSTM` at a time, every head inside of the loop, results written into slices; with a "
        "frozen teacher it is the same without the teacher's gradients. A peak is what a fresh process adds at its "
        "peak. The last column is the largest difference of a derivative of the student.",
        markdown_table(["", "CPU ms (range)", "loop /", "peak, MiB", "from loop"], rows),
        target_summary(reached),
    ]


# ---------------------------------------------------------------- hierarchical variational autoencoders


@dataclass(frozen=True)
class Images:
    """Sizes of a comparison of image models: widths of teacher and student, images per batch, repeats per timing."""

    model_class: Callable[..., Graph]
    teacher: int
    student: int
    batch: int
    repeats: int = 1

    def make_model(self, width: int, seed: int = 0) -> Graph:
        """Return a model with a fixed seed, whose batch norms have running statistics of its own samples."""
        torch.manual_seed(seed)
        model = self.model_class(width=width)
        with torch.no_grad():
            for _ in range(3):
                model.rollout(model.noise(16))
        return model

    def draw_noise(self, model: Graph) -> Noise:
        """Return the noise of a batch with a fixed seed."""
        return model.noise(self.batch, generator=torch.Generator().manual_seed(1))

    def time_run(self, run: Callable[[], object]) -> float:
        """Return the CPU seconds of a run, the mean over ``repeats`` runs."""
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


def run_training_step(distiller: SemiAuxiliary, noise: Noise) -> None:
    """Set the student's gradients as a training step of the distiller does."""
    distiller.student.zero_grad(set_to_none=True)
    batch = {"input": torch.zeros(len(next(iter(noise.values()))), 0), **pack_noise(noise)}
    torch.stack([values.mean() for values in distiller.losses(batch).values()]).sum().backward()


def hvae_section(rounds: int) -> list[str]:
    """Return the section on hierarchical variational autoencoders."""
    rows, reached = [], {}
    for name, size in HIERARCHIES.items():
        teacher, student = size.make_model(size.teacher), size.make_model(size.student, 1)
        distiller, noise = SemiAuxiliary(student, teacher, calibrated=False), size.draw_noise(teacher)
        distiller.train()
        implementations: dict[str, Callable[[], None]] = {
            MINIMAL: functools.partial(run_minimal_step, teacher, student, noise),
            BY_HAND: functools.partial(set_hvae_gradients, teacher, student, noise),
            KDZOO: functools.partial(run_training_step, distiller, noise),
        }
        student_gradients = {}
        for label, run in implementations.items():
            run()
            student_gradients[label] = {key: value.clone() for key, value in named_gradients(student).items()}
        largest, difference = largest_value_and_difference(student_gradients[KDZOO], student_gradients[BY_HAND])
        times = time_in_turns(
            {label: functools.partial(size.time_run, run) for label, run in implementations.items()}, rounds
        )
        rows += [
            [f"{name}: {label}", format_times(times[label]), f"{median_ratio(times, label, MINIMAL):.2f}"]
            for label in implementations
        ]
        overhead = median_ratio(times, KDZOO, MINIMAL)
        reached[f"{name}: at most {MAX_OVERHEAD} times the least ({overhead:.2f})"] = overhead <= MAX_OVERHEAD
        reached[f"derivatives within {MAX_RELATIVE_DIFFERENCE:.0e} of the largest ({difference / largest:.0e})"] = (
            difference <= MAX_RELATIVE_DIFFERENCE * largest
        )
    return [
        "## Hierarchical variational autoencoders",
        "Losses and gradients of one step of `HVAE` (28 x 28 pixels) and `ConvHVAE` (3 x 32 x 32), KL of the image and "
        "W2 of the latents. The least of any step is the teacher's networks without gradients, and the student's "
        "forward and backward from a plain sum. By hand is the same loss in plain torch.",
        markdown_table(["", "CPU ms (range)", "/ least"], rows),
        target_summary(reached),
    ]


def set_student_gradients(student: Graph, trace: Trace, noise: Noise) -> None:
    """Set the gradients of a student on a rollout of the teacher."""
    student.zero_grad(set_to_none=True)
    terms = NodeDivergences()(Pair(trace, rollout_student(student, trace, noise)), student)
    torch.stack([values.mean() for values in terms.values()]).sum().backward()


def perturbed_copy(teacher: Graph) -> Graph:
    """Return a copy of the teacher with slightly perturbed weights."""
    student = copy.deepcopy(teacher)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1 + PERTURBATION * torch.randn_like(parameter))
    return student


def time_first_rollout(run: Callable[[], Trace], students: list[Graph], noise: Noise) -> tuple[float, list[Tensor]]:
    """Return the CPU seconds of the first rollout of the teacher, and the gradient ``[n]`` of each student on it."""
    traces: list[Trace] = []
    seconds = cpu_seconds(lambda: traces.append(run()))
    student_gradients = []
    for student in students:
        set_student_gradients(student, traces[0], noise)
        student_gradients.append(torch.cat([value.flatten() for value in named_gradients(student).values()]).double())
    return seconds, student_gradients


def fast_teacher_section(rounds: int) -> list[str]:
    """Return the section on rollouts of a faster copy of the teacher."""
    has_bfloat16, rows, reached = has_fast_bfloat16(torch.device("cpu")), [], {}
    for name, size in TEACHERS.items():
        teacher, student = size.make_model(size.teacher).eval(), size.make_model(size.student, 1)
        noise = size.draw_noise(teacher)
        implementations = {
            PLAIN: teacher,
            FOLDED: fused_copy(teacher, bfloat16=False),
            FOLDED_BFLOAT16: fused_copy(teacher, bfloat16=True),
        }
        rollouts = {label: functools.partial(rollout_teacher, model, noise) for label, model in implementations.items()}
        near_student = perturbed_copy(teacher)
        first_times, student_gradients = {}, {}
        for label, run in rollouts.items():
            first_times[label], student_gradients[label] = time_first_rollout(run, [student, near_student], noise)
        repeated_rollouts = {
            label: functools.partial(cpu_seconds, run)
            for label, run in rollouts.items()
            if has_bfloat16 or label != FOLDED_BFLOAT16
        }
        times = time_in_turns(repeated_rollouts, rounds)
        for label in implementations:
            ran_once = label not in times
            time_cell = f"{1e3 * first_times[label]:.0f} (once)" if ran_once else format_times(times[label])
            speed = (
                statistics.median(times[PLAIN]) / first_times[label] if ran_once else median_ratio(times, PLAIN, label)
            )
            cosines = [
                float(cosine_similarity(*gradient_pair, dim=0))
                for gradient_pair in zip(student_gradients[label], student_gradients[PLAIN], strict=True)
            ]
            rows.append([f"{name}: {label}", time_cell, f"{speed:.2f}", *(f"{cosine:.7f}" for cosine in cosines)])
            if label == FOLDED_BFLOAT16:
                reached[f"{name}: bfloat16 {BFLOAT16_SPEEDUP} times as fast ({speed:.2f})"] = speed >= BFLOAT16_SPEEDUP
                reached[f"both cosines at least {MIN_COSINE} ({min(cosines):.5f})"] = min(cosines) >= MIN_COSINE
    has_or_has_no = "has" if has_bfloat16 else "has no"
    return [
        "## A fast teacher",
        "The teacher's rollout of `ConvHVAE`, 3 x 32 x 32 pixels: in eval mode; a copy with its norms folded into the "
        "convolutions; the copy with its nets in bfloat16. Cosines of a student's gradient with that by the plain "
        "teacher: of a new student of width 8, and of a near one: the teacher with weights that are off by "
        f"{PERTURBATION:.0%}. No model is trained. This processor {has_or_has_no} instructions for bfloat16"
        + ("." if has_bfloat16 else ", so that `fast_teacher=true` takes the folded copy in float32."),
        markdown_table(["", "CPU ms (range)", "plain /", "cosine, new", "cosine, near"], rows),
        target_summary(reached),
    ]


def shared_rollout_section(rounds: int) -> list[str]:
    """Return the section on several students that share one rollout of the teacher."""
    rows, reached = [], {}
    for name, size in STUDENT_GROUPS.items():
        teacher = size.make_model(size.teacher).eval()
        students = [size.make_model(size.student, 1 + seed) for seed in range(STUDENTS)]
        noise = size.draw_noise(teacher)

        def run_separate_rollouts(
            teacher: Graph = teacher, students: list[Graph] = students, noise: Noise = noise
        ) -> None:
            for student in students:
                set_student_gradients(student, rollout_teacher(teacher, noise), noise)

        def run_shared_rollout(
            teacher: Graph = teacher, students: list[Graph] = students, noise: Noise = noise
        ) -> None:
            trace = rollout_teacher(teacher, noise)
            for student in students:
                set_student_gradients(student, trace, noise)

        implementations: dict[str, Callable[[], None]] = {
            SEPARATE: run_separate_rollouts,
            SHARED_ROLLOUT: run_shared_rollout,
        }
        student_gradients = {}
        for label, run in implementations.items():
            run()
            student_gradients[label] = [
                {key: value.clone() for key, value in named_gradients(student).items()} for student in students
            ]
        times = time_in_turns(
            {label: functools.partial(size.time_run, run) for label, run in implementations.items()}, rounds
        )
        rows += [
            [f"{name}: {label}", format_times(times[label]), f"{median_ratio(times, SEPARATE, label):.2f}"]
            for label in implementations
        ]
        speed = median_ratio(times, SEPARATE, SHARED_ROLLOUT)
        largest = max(largest_value_and_difference(*pair)[1] for pair in zip(*student_gradients.values(), strict=True))
        if size.model_class is CONV:
            reached[f"{name}: {MIN_SPEEDUP} times as fast ({speed:.2f})"] = speed >= MIN_SPEEDUP
        reached[f"{name}: equal gradients ({largest:.0e})"] = largest == 0
    return [
        "## Several students of one rollout",
        f"Gradients of {STUDENTS} students on the same noise: a rollout of the teacher for each, or one for all "
        "(`rollout_teacher` once, `rollout_student` for each).",
        markdown_table(["", "CPU ms (range)", "apart /"], rows),
        target_summary(reached),
    ]


# ---------------------------------------------------------------- shared by all sections


def named_gradients(model: nn.Module) -> Noise:
    """Return the gradients of the parameters that have a gradient, by name."""
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def format_times(times: list[float]) -> str:
    """Return median and range of times in seconds, formatted in milliseconds."""
    median, digits = statistics.median(times), 0 if min(times) > 0.1 else 1
    return f"{1e3 * median:.{digits}f} ({1e3 * min(times):.{digits}f} to {1e3 * max(times):.{digits}f})"


def largest_value_and_difference(actual: Noise, expected: Noise) -> tuple[float, float]:
    """Return the largest absolute value, and the largest absolute difference between tensors of the same name."""
    assert actual.keys() == expected.keys(), actual.keys() ^ expected.keys()
    difference = max(float((actual[name] - value).abs().max()) for name, value in expected.items())
    return max(float(value.abs().max()) for value in expected.values()), difference


def peak_memory(size: str, label: str) -> float:
    """Return by how many MiB a step of an implementation raises the peak memory of a new process; Linux only."""
    command = [sys.executable, __file__, "--peak", size, label]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return float(
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()[-1]
    )


def print_peak_memory(size: str, label: str) -> None:
    """Print the number that :func:`peak_memory` reads, in the new process."""
    Sequences(4, 4, 1, 1).implementations()[label][0]()  # loads everything that is loaded on first use
    run, _ = SIZES[size].implementations()[label]
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # otherwise memory freed after building the models would be reused
    Path("/proc/self/clear_refs").write_text("5")  # resets the recorded peak
    before = peak_resident_memory()
    run()
    print((peak_resident_memory() - before) / 1024)


SECTIONS: list[Callable[[int], list[str]]] = [vrnn_section, hvae_section, fast_teacher_section, shared_rollout_section]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="number of measured rounds")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        return print_peak_memory(*options.peak)
    paragraphs = [paragraph for section in SECTIONS for paragraph in section(options.rounds)]
    about = f"Float32, one thread, median of {options.rounds} rounds in turns; ratios are medians over the rounds."
    publish("graphical", "Steps of directed graphical models", about, *paragraphs)
    return None


if __name__ == "__main__":
    main()
