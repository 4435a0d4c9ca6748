"""How far the distillation of automata reaches: a million points at once, and ten million tokens as a stream.

Each measurement runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from automata_common import sample_and_trace, teacher_of

from kdzoo.automata import PFA, conditional_kl
from kdzoo.automata.distill import distill
from kdzoo.core.batch import IGNORE
from kdzoo.data import Reber
from kdzoo.distillers import OnlinePFA
from kdzoo.functional import soft_target_kl
from kdzoo.runs.training import Training, fit
from kdzoo.text.language_model import sample, trace

STATES = 20


def reber() -> tuple[Any, Any]:
    """Return the data and a trained teacher of the embedded Reber grammar."""
    data = Reber(seed=0)
    data.setup("fit")
    node = {"_target_": "kdzoo.models.RNNLM", "vocab_size": data.sizes["vocab_size"], "hidden": 48}
    return data, teacher_of(data, node, name="reber-gru48", epochs=30)


def kl_from_truth(data: Any, pfa: PFA) -> float:
    """Return KL(truth || automaton) of the next symbol, mean over all places of the test strings, nats."""
    inputs, targets = data.corpus.test.inputs_and_targets(pfa.vocab_size)
    return float(conditional_kl(data.truth, pfa, inputs)[targets != IGNORE].mean())


def kl_from_teacher(teacher: Any, pfa: PFA) -> float:
    """Return KL(teacher || automaton) of the next symbol, mean over all places of fresh strings, nats."""
    inputs, targets = sample(teacher, 5000, max_length=250, seed=987).inputs_and_targets(pfa.vocab_size)
    valid = targets != IGNORE
    return float(
        soft_target_kl(pfa(inputs)[valid], trace(teacher, inputs).log_probs.double()[valid], temperature=1.0).mean()
    )


def at_once(strings: int) -> dict[str, float]:
    """Distil so many strings of the teacher at once."""
    data, teacher = reber()
    started = time.process_time()
    seen = sample_and_trace(teacher, strings, seed=0)
    written = time.process_time()
    found = distill([seen], states=STATES, seed=0)
    return {
        "points": seen.n_prefixes,
        "sampling_s": written - started,
        "distilling_s": time.process_time() - written,
        "kl": kl_from_truth(data, found.pfa),
        "teacher_kl": kl_from_teacher(teacher, found.pfa),
    }


def streamed(strings: int) -> dict[str, float]:
    """Distil so many strings of the teacher as a stream."""
    data, teacher = reber()
    student = PFA(vocab_size=data.sizes["vocab_size"], states=STATES)
    distiller = OnlinePFA(student, teacher, n_samples=strings, seed=0)
    settings = {"accelerator": "cpu", "max_epochs": 1, "limit_val_batches": 0, "log_every_n_steps": 1000}
    started = time.process_time()
    transfer = distiller.transfer_set(data)
    fit(
        distiller, transfer, Training(settings, Path(f"outputs/cache/studies/stream-{strings}-{time.time_ns()}"), 0, "")
    )
    seconds = time.process_time() - started
    return {
        "distilling_s": seconds,
        "kl": kl_from_truth(data, student),
        "teacher_kl": kl_from_teacher(teacher, student),
    }


def alone(what: str, strings: int) -> dict[str, float]:
    """Measure in a new process; ``gigabytes`` is its peak memory."""
    answer = subprocess.run(
        [sys.executable, __file__, "--measure", what, "--strings", str(strings)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--measure", choices=("at_once", "streamed"))
    arguments.add_argument("--strings", type=int)
    arguments.add_argument("--table", type=Path, default=Path(__file__).parent / "results" / "scale.md")
    given = arguments.parse_args()
    if given.measure:
        value = globals()[given.measure](given.strings)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({**value, "gigabytes": peak}))
        return
    reber()
    lines = [
        "# Scale: embedded Reber, GRU of 48 units into 20 states",
        "",
        f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, one thread, CPU seconds, peak "
        "resident memory of the process with Python and torch in it.",
        "",
        "| | strings | points | CPU s | peak GB | KL from the teacher, nats per symbol | KL from the truth |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for what, strings in (
        ("at_once", 4_000),
        ("at_once", 77_000),
        ("streamed", 4_000),
        ("streamed", 77_000),
        ("streamed", 770_000),
    ):
        one = alone(what, strings)
        points = one.get("points", strings * 13.0)  # as many as the same strings have at once
        lines.append(
            f"| {what.replace('_', ' ')} | {strings:,} | {points:,.0f} | {one['distilling_s']:.0f} | "
            f"{one['gigabytes']:.2f} | {one['teacher_kl']:.4f} | {one['kl']:.4f} |"
        )
        print(lines[-1], flush=True)
    given.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
