"""A step of DistilBERT distillation against a bare loop, and how much faster half of the layers answer.

    python scripts/bench_distilbert.py [--rounds 5] [--encoder FOLDER]

The folder is that of a sentence encoder such as all-MiniLM-L6-v2; without it only the new BERT is timed.
"""

import argparse
import functools
from collections.abc import Callable

import torch
from bench_common import cpu_seconds, in_turns, publish, ratio, table, verdict
from torch.nn.functional import cosine_embedding_loss, cross_entropy, kl_div

from kdzoo.core.batch import IGNORE, Batch
from kdzoo.distillers import DistilBERT
from kdzoo.models import Bert, HFModel, Transformer, TruncatedTransformer

VOCABULARY, ROWS, LENGTH, MASKED = 4000, 32, 128, 0.15
TEMPERATURE, SOFT, HARD, COSINE = 2.0, 5.0, 2.0, 1.0
TOP_K = 16
"""Tokens that are kept of the teacher's answer."""
APART = 0.1
"""Deviation that is added to the student's logits by other head weights, so that it is not its untrained teacher."""
SHARE, FASTER, FEWER = 0.9, 1.85, 0.45
ENCODER = "all-MiniLM-L6-v2"
SHAPES = ((1, 16), (1, 128), (16, 64))

Run = Callable[[], object]


def batch() -> Batch:
    """Return a batch of masked tokens without padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, VOCABULARY, (ROWS, LENGTH), generator=generator)
    chosen = torch.rand(ROWS, LENGTH, generator=generator) < MASKED
    return {
        "input": ids.masked_fill(chosen, 4),
        "target": ids.masked_fill(~chosen, IGNORE),
        "index": torch.arange(ROWS),
        "mask": torch.ones_like(ids, dtype=torch.bool),
    }


def pair(teacher: Transformer) -> tuple[TruncatedTransformer, Transformer]:
    """Return a student of half of the teacher's layers, and the teacher."""
    student = TruncatedTransformer(teacher_architecture=teacher.architecture)
    student.init_from_teacher(teacher, None)
    return student, teacher


def ours(distiller: DistilBERT, rows: Batch) -> None:
    """Do what a training step does: the weighted terms and their gradient."""
    distiller.student.zero_grad()
    with distiller.about("train"):
        terms = distiller.losses(rows)
    sum(distiller.loss_weights[name] * value.mean() for name, value in terms.items()).backward()  # type: ignore[union-attr]


def bare(student: TruncatedTransformer, teacher: Transformer, rows: Batch) -> None:
    """Do the same in plain torch."""
    student.zero_grad()
    given = {"input_ids": rows["input"], "attention_mask": rows["mask"].long(), "output_hidden_states": True}
    with torch.no_grad():
        theirs = teacher.model(**given)
    mine = student.model(**given)
    q, p = (one.logits.flatten(0, 1) / TEMPERATURE for one in (mine, theirs))
    s, t = (one.hidden_states[-1].flatten(0, 1) for one in (mine, theirs))
    loss = (
        SOFT * TEMPERATURE**2 * kl_div(q.log_softmax(-1), p.softmax(-1), reduction="batchmean")
        + HARD * cross_entropy(mine.logits.flatten(0, 1), rows["target"].flatten(), ignore_index=IGNORE)
        + COSINE * cosine_embedding_loss(s, t, torch.ones(len(s)))
    )
    loss.backward()


def steps(rounds: int) -> tuple[str, dict[str, bool]]:
    """Return the table of a training step, with and without kept answers, and whether its target is reached."""
    torch.manual_seed(0)
    student, teacher = pair(Bert(vocab_size=VOCABULARY, max_length=LENGTH))
    with torch.no_grad():
        for weight in student.model.cls.predictions.decoder.parameters():
            weight += APART * torch.randn_like(weight)
    distiller, rows = DistilBERT(student, teacher), batch()
    asked, kept = (DistilBERT(student, teacher, top_k=TOP_K) for _ in range(2))
    kept.teacher_cache["train"] = kept.teacher_outputs(rows)
    size = sum(one.numel() * one.element_size() for one in kept.teacher_cache["train"].values()) / (ROWS * LENGTH)
    runs: dict[str, Run] = {
        "bare loop": functools.partial(bare, student, teacher, rows),
        "kdzoo": functools.partial(ours, distiller, rows),
        f"kdzoo, {TOP_K} tokens and the rest": functools.partial(ours, asked, rows),
        f"the same, kept ({size:.0f} bytes a token)": functools.partial(ours, kept, rows),
    }
    times = timed(runs, rounds)
    speed = {name: ROWS * LENGTH / sorted(one)[len(one) // 2] for name, one in times.items()}
    shares = {name: ratio(times, "bare loop", name) for name in runs}
    cells = [[name, f"{value:.0f}", f"{shares[name]:.2f}"] for name, value in speed.items()]
    return table(["", "tokens per CPU second", "of the bare loop's"], cells), {
        f"{SHARE:.1f} of the bare loop": shares["kdzoo"] >= SHARE
    }


def answers(name: str, teacher: Transformer, rounds: int) -> tuple[list[list[object]], dict[str, bool]]:
    """Return the rows on the cost of an answer by length and batch, and whether the target is reached."""
    student, teacher = pair(teacher)
    student.eval()
    teacher.eval()
    rows: list[list[object]] = []
    ratios = []
    for size, length in SHAPES:
        ids = torch.randint(5, 1000, (size, length), generator=torch.Generator().manual_seed(0))
        runs: dict[str, Run] = {
            "deep": functools.partial(asked, teacher, ids),
            "shallow": functools.partial(asked, student, ids),
        }
        times = timed(runs, 4 * rounds)
        ratios.append(ratio(times, "deep", "shallow"))
        middle = [1e3 * sorted(one)[len(one) // 2] for one in times.values()]
        rows.append([name, f"{size}", f"{length}", *(f"{one:.1f}" for one in middle), f"{ratios[-1]:.2f}"])
    deep, shallow = (sum(one.numel() for one in model.layers.parameters()) for model in (teacher, student))
    return rows, {
        f"{name}: {FASTER} times less CPU time": min(ratios) >= FASTER,
        f"{name}: {100 * FEWER:.0f} % fewer parameters of layers": 1 - shallow / deep >= FEWER,
    }


def asked(model: Transformer, ids: torch.Tensor) -> None:
    """Answer without gradients."""
    with torch.no_grad():
        model(ids)


def timed(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of all runs, in turns, each once before."""
    for run in runs.values():
        run()
    return in_turns({name: functools.partial(cpu_seconds, run) for name, run in runs.items()}, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--encoder", default="", help="folder of a sentence encoder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    step, reached = steps(options.rounds)
    models = {"BERT, 256 units": Bert(vocab_size=VOCABULARY, max_length=LENGTH, task="embedding")}
    if options.encoder:
        models[ENCODER] = HFModel(options.encoder, task="embedding")
    rows: list[list[object]] = []
    for name, model in models.items():
        more, also = answers(name, model, options.rounds)
        rows += more
        reached |= also if name == ENCODER else {}
    publish(
        "distilbert",
        "DistilBERT: a step, and what half of the layers save",
        f"A step: a new BERT of 6 layers of 256 units and {VOCABULARY} tokens into one of 3, {ROWS} texts of {LENGTH} "
        "tokens, all three terms and the gradient, against a plain torch loop with the same two models. CPU time, one "
        f"thread, median of {options.rounds} rounds in turns; a ratio is the median of those of the same round.",
        step,
        "An answer, in CPU milliseconds of a batch:",
        table(["model", "batch", "length", "6 layers", "3 layers", "ratio"], rows),
        verdict(reached),
    )


if __name__ == "__main__":
    main()
