"""Scaling of the distillation of automata: a million points at once, and ten million tokens as a stream.

    python scripts/scale_study.py

Each measurement runs in a new process, so that its peak memory does not include earlier ones.
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
from automata_common import load_or_train_teacher, sample_and_trace

from kdzoo.automata import PFA, conditional_kl
from kdzoo.automata.distill import distill
from kdzoo.core.batch import IGNORE
from kdzoo.data import Reber
from kdzoo.distillers import OnlinePFA
from kdzoo.functional import soft_target_kl
from kdzoo.runs.training import Training, fit
from kdzoo.text.language_model import sample, trace

STATES = 20


def load_reber() -> tuple[Any, Any]:
    """Return the data and a trained teacher of the embedded Reber grammar."""
    data = Reber(seed=0)
    data.setup("fit")
    node = {"_target_": "kdzoo.models.RNNLM", "vocab_size": data.sizes["vocab_size"], "hidden": 48}
    return data, load_or_train_teacher(data, node, name="reber-gru48", epochs=30)


def kl_from_truth(data: Any, pfa: PFA) -> float:
    """Return KL(truth || automaton) of the next symbol, averaged over all positions of the test strings, in nats."""
    inputs, targets = data.corpus.test.inputs_and_targets(pfa.vocab_size)
    return float(conditional_kl(data.truth, pfa, inputs)[targets != IGNORE].mean())


def kl_from_teacher(teacher: Any, pfa: PFA) -> float:
    """Return KL(teacher || automaton) of the next symbol, averaged over all positions of new strings, in nats."""
    inputs, targets = sample(teacher, 5000, max_length=250, seed=987).inputs_and_targets(pfa.vocab_size)
    valid = targets != IGNORE
    return float(
        soft_target_kl(pfa(inputs)[valid], trace(teacher, inputs).log_probs.double()[valid], temperature=1.0).mean()
    )


def distil_at_once(strings: int) -> dict[str, float]:
    """Distil the given number of strings of the teacher at once; return times and divergences."""
    data, teacher = load_reber()
    started = time.process_time()
    traced = sample_and_trace(teacher, strings, seed=0)
    sampled = time.process_time()
    result = distill([traced], states=STATES, seed=0)
    return {
        "points": traced.n_prefixes,
        "sampling_s": sampled - started,
        "distilling_s": time.process_time() - sampled,
        "kl": kl_from_truth(data, result.pfa),
        "teacher_kl": kl_from_teacher(teacher, result.pfa),
    }


def distil_stream(strings: int) -> dict[str, float]:
    """Distil the given number of strings of the teacher as a stream; return time and divergences."""
    data, teacher = load_reber()
    student = PFA(vocab_size=data.sizes["vocab_size"], states=STATES)
    distiller = OnlinePFA(student, teacher, n_samples=strings, seed=0)
    settings = {"accelerator": "cpu", "max_epochs": 1, "limit_val_batches": 0, "log_every_n_steps": 1000}
    started = time.process_time()
    transfer = distiller.transfer_set(data)
    folder = Path(f"outputs/cache/studies/stream-{strings}-{time.time_ns()}")
    fit(distiller, transfer, Training(settings, folder, 0, ""))
    seconds = time.process_time() - started
    return {
        "distilling_s": seconds,
        "kl": kl_from_truth(data, student),
        "teacher_kl": kl_from_teacher(teacher, student),
    }


def measure_in_new_process(measurement: str, strings: int) -> dict[str, float]:
    """Run a measurement in a new process; the result holds its peak memory as ``gigabytes``."""
    process = subprocess.run(
        [sys.executable, __file__, "--measure", measurement, "--strings", str(strings)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


MEASUREMENTS = {"at_once": distil_at_once, "streamed": distil_stream}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", choices=list(MEASUREMENTS), help="run only this measurement, in this process")
    parser.add_argument("--strings", type=int, help="number of strings of that measurement")
    parser.add_argument(
        "--table", type=Path, default=Path(__file__).parent / "results" / "scale.md", help="file to write"
    )
    options = parser.parse_args()
    if options.measure:
        result = MEASUREMENTS[options.measure](options.strings)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({**result, "gigabytes": peak}))
        return
    load_reber()
    lines = [
        "# Scale: embedded Reber, GRU of 48 units into 20 states",
        "",
        f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, one thread, CPU seconds, peak "
        "resident memory of the process with Python and torch in it.",
        "",
        "| | strings | points | CPU s | peak GB | KL from the teacher, nats per symbol | KL from the truth |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for measurement, strings in (
        ("at_once", 4_000),
        ("at_once", 77_000),
        ("streamed", 4_000),
        ("streamed", 77_000),
        ("streamed", 770_000),
    ):
        result = measure_in_new_process(measurement, strings)
        points = result.get("points", strings * 13.0)  # average number of prefixes per string
        lines.append(
            f"| {measurement.replace('_', ' ')} | {strings:,} | {points:,.0f} | {result['distilling_s']:.0f} | "
            f"{result['gigabytes']:.2f} | {result['teacher_kl']:.4f} | {result['kl']:.4f} |"
        )
        print(lines[-1], flush=True)
    options.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
