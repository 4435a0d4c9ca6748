"""Tomita's seven languages: does an automaton distilled from a GRU accept exactly the true language?

    python scripts/tomita_study.py [--seeds 5] [--strings 1000]

The number of states is chosen by the method. A GRU of which 1 % or more of the sampled strings are illegal is trained
again for twice as many epochs, and reported if that is not sufficient. Three languages of unbounded history, in which
every string is legal, are evaluated by the divergence. Results are stored under ``outputs`` and not computed again.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from automata_common import load_or_compute, load_or_train_teacher, sample_and_trace
from bench_common import markdown_table, publish

from kdzoo.automata import PFA, TracedSequences, equivalent, from_pfa, kl_monte_carlo, tomita_dfa
from kdzoo.automata.baselines import kmeans_counts
from kdzoo.automata.distill import distill
from kdzoo.data import UHL, Tomita
from kdzoo.data.sequences.generated import GeneratedTokenSequences
from kdzoo.text.language_model import LanguageModel

GRU = {"_target_": "kdzoo.models.RNNLM", "embedding": 16, "hidden": 32}
EPOCHS, RATE = (25, 50, 100), 1e-2
MAX_ILLEGAL, THRESHOLD = 0.01, 0.03
MAX_LENGTH = 60
SIZES = {"n_train": 2000, "batch_size": 128, "n_val": 0, "n_test": 2000, "max_length": MAX_LENGTH}


def train_and_sample(
    data: GeneratedTokenSequences, name: str, seed: int, strings: int, epochs: int
) -> tuple[LanguageModel, TracedSequences]:
    """Return a trained GRU and traced strings sampled from it."""
    model_config = {**GRU, "vocab_size": data.sizes["vocab_size"]}
    teacher = load_or_train_teacher(data, model_config, name=name, epochs=epochs, lr=RATE, seed=seed)
    return teacher, sample_and_trace(teacher, strings, seed=seed, max_length=MAX_LENGTH)


def measure_tomita_language(number: int, seed: int, strings: int) -> dict[str, Any]:
    """Return the results of one of Tomita's languages and one seed."""
    data, true_dfa = Tomita(language=number, seed=seed, **SIZES), tomita_dfa(number)
    data.setup()
    for epochs in EPOCHS:
        teacher, traced = train_and_sample(data, f"tomita{number}", seed, strings, epochs)
        illegal = 1 - float(true_dfa.accepts(traced.strings).double().mean())
        if illegal < MAX_ILLEGAL:
            break
    result = distill([traced], seed=seed)
    kmeans_pfa = kmeans_counts(traced, data.truth.states, seed, restarts=20)

    def is_exact(pfa: PFA) -> bool:
        return equivalent(from_pfa(pfa, THRESHOLD), true_dfa)

    return {
        "epochs": epochs,
        "illegal": illegal,
        "exact": is_exact(result.pfa),
        "states": result.states,
        "minimal": from_pfa(result.pfa, THRESHOLD).states,
        "k-means": is_exact(kmeans_pfa),
        "teacher": kl_monte_carlo(data.truth, teacher, data.corpus.test).value,
        "kl": kl_monte_carlo(data.truth, result.pfa, data.corpus.test).value,
    }


def measure_unbounded_history(number: int, seed: int, strings: int) -> dict[str, Any]:
    """Return the results of one language of unbounded history and one seed."""
    data = UHL(language=number, seed=seed, **SIZES)
    data.setup()
    teacher, traced = train_and_sample(data, f"uhl{number}", seed, strings, EPOCHS[0])
    result = distill([traced], seed=seed)
    kmeans_pfa = kmeans_counts(traced, data.truth.states, seed, restarts=20)
    models = {"teacher": teacher, "kl": result.pfa, "k-means": kmeans_pfa}
    divergences = {name: kl_monte_carlo(data.truth, model, data.corpus.test).value for name, model in models.items()}
    return {"states": result.states, **divergences}


def tomita_row(number: int, runs: list[dict[str, Any]]) -> list[str]:
    """Return a row of the table of Tomita's languages."""
    fit_runs = [run for run in runs if run["illegal"] < MAX_ILLEGAL]
    return [
        str(number),
        f"{len(fit_runs)} of {len(runs)}",
        f"{100 * max(run['illegal'] for run in runs):.2f} %",
        f"{sum(run['exact'] for run in fit_runs)} of {len(fit_runs)}",
        f"{sum(run['k-means'] for run in fit_runs)} of {len(fit_runs)}",
        str(tomita_dfa(number).states),
        ", ".join(f"{run['states']}" for run in runs),
        f"{statistics.median(run['teacher'] for run in runs):.5f}",
        f"{statistics.median(run['kl'] for run in runs):.5f}",
    ]


def history_row(number: int, runs: list[dict[str, Any]]) -> list[str]:
    """Return a row of the table of languages of unbounded history."""
    medians = (f"{statistics.median(run[key] for run in runs):.5f}" for key in ("teacher", "kl", "k-means"))
    n_states = UHL(language=number).automaton().states
    return [str(number), str(n_states), ", ".join(f"{run['states']}" for run in runs), *medians]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of teachers of each language")
    parser.add_argument("--strings", type=int, default=1000, help="strings sampled from a teacher")
    parser.add_argument("--languages", type=int, nargs="*", default=range(1, 8), help="numbers of Tomita's languages")
    parser.add_argument(
        "--histories", type=int, nargs="*", default=range(1, 4), help="numbers of the languages of unbounded history"
    )
    parser.add_argument("--file", type=Path, default=Path("outputs/studies/tomita.json"), help="file of the results")
    options = parser.parse_args()
    torch.set_num_threads(1)

    def load_cached(key: str, measure: Callable[..., dict[str, Any]], number: int, seed: int) -> dict[str, Any]:
        return load_or_compute(options.file, f"{key}/{number}/{seed}", partial(measure, number, seed, options.strings))

    runs = {
        n: [load_cached("language", measure_tomita_language, n, seed) for seed in range(options.seeds)]
        for n in options.languages
    }
    fit_runs = [run for language_runs in runs.values() for run in language_runs if run["illegal"] < MAX_ILLEGAL]
    paragraphs = [
        f"Exact: {sum(run['exact'] for run in fit_runs)} of the {len(fit_runs)} runs whose teacher is fit, "
        f"against {sum(run['k-means'] for run in fit_runs)} for k-means with the true number of states.",
        markdown_table(
            [
                "language",
                "fit teachers",
                "most illegal",
                "exact",
                "k-means exact",
                "minimal states",
                "states found",
                "KL of the teacher",
                "KL of the student",
            ],
            [tomita_row(n, language_runs) for n, language_runs in runs.items()],
        ),
    ]
    if options.histories:
        history_runs = {
            n: [load_cached("history", measure_unbounded_history, n, seed) for seed in range(options.seeds)]
            for n in options.histories
        }
        paragraphs += [
            "## Languages of unbounded history",
            "Divergence from the truth, nats per symbol, medians; k-means has the true number of states.",
            markdown_table(
                ["language", "states", "states found", "teacher", "student", "k-means"],
                [history_row(n, language_runs) for n, language_runs in history_runs.items()],
            ),
        ]
    publish(
        "tomita",
        "Tomita's languages, exactly",
        f"{options.seeds} GRUs of 32 units for each language, {options.strings:,} strings of each. A teacher is fit "
        f"with less than {100 * MAX_ILLEGAL:g} % of its strings illegal. Tokens below {THRESHOLD:g} in a state of "
        "the automaton are illegal there, and what is left is compared with the true language by a search through the "
        "product of both minimal automata; minimal states are those of the true one, with its sink. Divergences from "
        "the truth are medians in nats per symbol.",
        *paragraphs,
    )


if __name__ == "__main__":
    main()
