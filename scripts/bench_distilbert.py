"""CPU time of a step of DistilBERT distillation, compared with plain torch, and of inference with half of the layers.

    python scripts/bench_distilbert.py [--rounds 5] [--encoder FOLDER]

FOLDER holds a sentence encoder such as all-MiniLM-L6-v2; without it, only a randomly initialised BERT is timed.
"""

import argparse
import functools
from collections.abc import Callable, Iterable

import torch
from bench_common import cpu_seconds, markdown_table, median_ratio, publish, target_summary, time_in_turns
from torch import Tensor
from torch.nn.functional import cosine_embedding_loss, cross_entropy, kl_div

from kdzoo.core.batch import IGNORE, Batch
from kdzoo.distillers import DistilBERT
from kdzoo.models import Bert, HFModel, Transformer, TruncatedTransformer

VOCABULARY, TEXTS, LENGTH, MASK_RATE = 4000, 32, 128, 0.15
FIRST_ORDINARY_TOKEN, MASK_TOKEN = 5, 4  # ids 0..4 are special tokens
TEMPERATURE, SOFT, HARD, COSINE = 2.0, 5.0, 2.0, 1.0  # the defaults of the method
# Tokens whose logits are cached for each position: the example of docs/methods/distilbert.md.
TOP_K = 16
# Standard deviation of the noise that is added to the student's head. Without it the student of an untrained teacher
# gives nearly the teacher's outputs, and the divergences would be computed at zero.
HEAD_NOISE = 0.1
# Targets: speed relative to the plain loop, speed-up of inference, and the saved share of the parameters of the layers.
# With half of the layers, a speed-up of 2 and a share of 0.5 are the upper limits.
STEP_SPEED, INFERENCE_SPEEDUP, SAVED_PARAMETERS = 0.9, 1.85, 0.45
ENCODER = "all-MiniLM-L6-v2"
SHAPES = ((1, 16), (1, 128), (16, 64))  # texts and tokens of a batch, from a short query to many sentences

Run = Callable[[], object]


def make_batch() -> Batch:
    """Return a batch of masked tokens without padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(FIRST_ORDINARY_TOKEN, VOCABULARY, (TEXTS, LENGTH), generator=generator)
    masked = torch.rand(TEXTS, LENGTH, generator=generator) < MASK_RATE
    return {
        "input": ids.masked_fill(masked, MASK_TOKEN),
        "target": ids.masked_fill(~masked, IGNORE),
        "index": torch.arange(TEXTS),
        "mask": torch.ones_like(ids, dtype=torch.bool),
    }


def make_student(teacher: Transformer) -> TruncatedTransformer:
    """Return a student with half of the teacher's layers."""
    student = TruncatedTransformer(teacher_architecture=teacher.architecture)
    student.init_from_teacher(teacher, None)
    return student


def kdzoo_step(distiller: DistilBERT, batch: Batch) -> None:
    """Compute the weighted loss terms and their gradients, as a training step does."""
    distiller.student.zero_grad()
    with distiller.frozen_teacher.using_cache("train"):
        terms = distiller.losses(batch)
    sum(distiller.loss_weights[name] * value.mean() for name, value in terms.items()).backward()


def plain_step(student: TruncatedTransformer, teacher: Transformer, batch: Batch) -> None:
    """Compute the same loss and gradients in plain torch."""
    student.zero_grad()
    arguments = {"input_ids": batch["input"], "attention_mask": batch["mask"].long(), "output_hidden_states": True}
    with torch.no_grad():
        teacher_output = teacher.model(**arguments)
    student_output = student.model(**arguments)
    outputs = (student_output, teacher_output)
    student_logits, teacher_logits = (output.logits.flatten(0, 1) / TEMPERATURE for output in outputs)
    student_states, teacher_states = (output.hidden_states[-1].flatten(0, 1) for output in outputs)
    soft = kl_div(student_logits.log_softmax(-1), teacher_logits.softmax(-1), reduction="batchmean")
    hard = cross_entropy(student_output.logits.flatten(0, 1), batch["target"].flatten(), ignore_index=IGNORE)
    cosine = cosine_embedding_loss(student_states, teacher_states, torch.ones(len(student_states)))
    (SOFT * TEMPERATURE**2 * soft + HARD * hard + COSINE * cosine).backward()


def time_steps(rounds: int) -> tuple[str, dict[str, bool]]:
    """Return the table of a training step, with and without cached outputs, and whether the target is reached."""
    torch.manual_seed(0)
    teacher = Bert(vocab_size=VOCABULARY, max_length=LENGTH)
    student = make_student(teacher)
    with torch.no_grad():
        for weight in student.model.cls.predictions.decoder.parameters():
            weight += HEAD_NOISE * torch.randn_like(weight)
    batch = make_batch()
    distiller = DistilBERT(student, teacher)
    top_k_distiller, cached_distiller = (DistilBERT(student, teacher, top_k=TOP_K) for _ in range(2))
    outputs = cached_distiller.teacher_outputs(batch)
    cached_distiller.frozen_teacher.cache["train"] = outputs
    bytes_per_token = sum(output.nbytes for output in outputs.values()) / (TEXTS * LENGTH)
    runs: dict[str, Run] = {
        "plain loop": functools.partial(plain_step, student, teacher, batch),
        "kdzoo": functools.partial(kdzoo_step, distiller, batch),
        f"kdzoo, {TOP_K} tokens and the rest": functools.partial(kdzoo_step, top_k_distiller, batch),
        f"the same, cached ({bytes_per_token:.0f} bytes a token)": functools.partial(
            kdzoo_step, cached_distiller, batch
        ),
    }
    times = time_runs(runs, rounds)
    speedups = {name: median_ratio(times, "plain loop", name) for name in runs}
    cells = [[name, f"{TEXTS * LENGTH / median(times[name]):.0f}", f"{speedups[name]:.2f}"] for name in runs]
    reached = {f"{STEP_SPEED:.1f} of the plain loop": speedups["kdzoo"] >= STEP_SPEED}
    return markdown_table(["", "tokens per CPU second", "of the plain loop's"], cells), reached


def time_inference(name: str, teacher: Transformer, rounds: int) -> tuple[list[list[object]], dict[str, bool]]:
    """Return the rows of the table of inference, by batch and length, and whether the targets are reached."""
    student = make_student(teacher).eval()
    teacher.eval()
    rows: list[list[object]] = []
    speedups = []
    for n_texts, length in SHAPES:
        # Any ids are suitable that are in the vocabulary of every model.
        ids = torch.randint(FIRST_ORDINARY_TOKEN, 1000, (n_texts, length), generator=torch.Generator().manual_seed(0))
        runs: dict[str, Run] = {
            "teacher": functools.partial(run_inference, teacher, ids),
            "student": functools.partial(run_inference, student, ids),
        }
        # A forward pass takes far less time than a training step, and its times vary more: more rounds are run.
        times = time_runs(runs, 4 * rounds)
        speedups.append(median_ratio(times, "teacher", "student"))
        milliseconds = [f"{1e3 * median(seconds):.1f}" for seconds in times.values()]
        rows.append([name, f"{n_texts}", f"{length}", *milliseconds, f"{speedups[-1]:.2f}"])
    teacher_size, student_size = (
        sum(parameter.numel() for parameter in model.layers.parameters()) for model in (teacher, student)
    )
    return rows, {
        f"{name}: {INFERENCE_SPEEDUP} times less CPU time": min(speedups) >= INFERENCE_SPEEDUP,
        f"{name}: {100 * SAVED_PARAMETERS:.0f} % fewer parameters of layers": (
            1 - student_size / teacher_size >= SAVED_PARAMETERS
        ),
    }


def run_inference(model: Transformer, ids: Tensor) -> None:
    """Run a model without gradients."""
    with torch.no_grad():
        model(ids)


def time_runs(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of all runs, measured in turns after one warm-up run of each."""
    for run in runs.values():
        run()  # the first call allocates memory and chooses kernels
    return time_in_turns({name: functools.partial(cpu_seconds, run) for name, run in runs.items()}, rounds)


def median(values: Iterable[float]) -> float:
    """Return the median; of an even number of values, the upper of the two middle ones."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="number of measured rounds")
    parser.add_argument("--encoder", default="", help="folder of a sentence encoder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    step_table, reached = time_steps(options.rounds)
    models: dict[str, Transformer] = {
        "BERT, 256 units": Bert(vocab_size=VOCABULARY, max_length=LENGTH, task="embedding")
    }
    if options.encoder:
        models[ENCODER] = HFModel(options.encoder, task="embedding")
    rows: list[list[object]] = []
    for name, model in models.items():
        model_rows, reached_by_model = time_inference(name, model, options.rounds)
        rows += model_rows
        # The targets apply to the pretrained encoder; the new BERT lets the script run without a download.
        reached |= reached_by_model if name == ENCODER else {}
    publish(
        "distilbert",
        "DistilBERT: a training step, and inference with half of the layers",
        f"A step: a new BERT of 6 layers of 256 units and {VOCABULARY} tokens into one of 3, {TEXTS} texts of {LENGTH} "
        "tokens, all three terms and the gradient, against a plain torch loop with the same two models. CPU time, one "
        f"thread, median of {options.rounds} rounds in turns; a ratio is the median of those of the same round.",
        step_table,
        "Inference, in CPU milliseconds per batch:",
        markdown_table(["model", "batch", "length", "6 layers", "3 layers", "ratio"], rows),
        target_summary(reached),
    )


if __name__ == "__main__":
    main()
