"""Tomita's seven languages: is the language of the automaton that is distilled from a GRU exactly the true one?

    python scripts/tomita_study.py [--seeds 5] [--strings 1000]

The number of states is found by the method. A GRU that puts 1 % or more of its mass on illegal strings is trained anew
for twice as many epochs, and reported if that does not help. Three languages of unbounded history, in which every
string is legal, are measured by their divergence. What was computed is kept under ``outputs``.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from automata_common import remember, sample_and_trace, teacher_of
from bench_common import publish, table

from kdzoo.automata import PFA, TracedSequences, equivalent, from_pfa, kl_monte_carlo, tomita_dfa
from kdzoo.automata.baselines import kmeans_counts
from kdzoo.automata.distill import distill
from kdzoo.data import UHL, Tomita
from kdzoo.data.sequences.generated import GeneratedTokenSequences
from kdzoo.text.language_model import LanguageModel

GRU = {"_target_": "kdzoo.models.RNNLM", "embedding": 16, "hidden": 32}
EPOCHS, RATE = (25, 50, 100), 1e-2
MOST_ILLEGAL, THRESHOLD = 0.01, 0.03
MAX_LENGTH = 60
SIZES = {"n_train": 2000, "batch_size": 128, "n_val": 0, "n_test": 2000, "max_length": MAX_LENGTH}


def trained(
    data: GeneratedTokenSequences, name: str, seed: int, strings: int, epochs: int
) -> tuple[LanguageModel, TracedSequences]:
    """Return a GRU, and strings that it writes."""
    node = {**GRU, "vocab_size": data.sizes["vocab_size"]}
    teacher = teacher_of(data, node, name=name, epochs=epochs, lr=RATE, seed=seed)
    return teacher, sample_and_trace(teacher, strings, seed=seed, max_length=MAX_LENGTH)


def language(number: int, seed: int, strings: int) -> dict[str, Any]:
    """Return what became of one language and one seed."""
    data, true = Tomita(language=number, seed=seed, **SIZES), tomita_dfa(number)
    data.setup()
    for epochs in EPOCHS:
        teacher, seen = trained(data, f"tomita{number}", seed, strings, epochs)
        illegal = 1 - float(true.accepts(seen.strings).double().mean())
        if illegal < MOST_ILLEGAL:
            break
    found = distill([seen], seed=seed)
    clustered = kmeans_counts(seen, data.truth.states, seed, restarts=20)

    def exact(pfa: PFA) -> bool:
        return equivalent(from_pfa(pfa, THRESHOLD), true)

    return {
        "epochs": epochs,
        "illegal": illegal,
        "exact": exact(found.pfa),
        "states": found.states,
        "minimal": from_pfa(found.pfa, THRESHOLD).states,
        "k-means": exact(clustered),
        "teacher": kl_monte_carlo(data.truth, teacher, data.corpus.test).value,
        "kl": kl_monte_carlo(data.truth, found.pfa, data.corpus.test).value,
    }


def history(number: int, seed: int, strings: int) -> dict[str, Any]:
    """Return what became of one language of unbounded history and one seed."""
    data = UHL(language=number, seed=seed, **SIZES)
    data.setup()
    teacher, seen = trained(data, f"uhl{number}", seed, strings, EPOCHS[0])
    found = distill([seen], seed=seed)
    clustered = kmeans_counts(seen, data.truth.states, seed, restarts=20)
    models = {"teacher": teacher, "kl": found.pfa, "k-means": clustered}
    measured = {name: kl_monte_carlo(data.truth, one, data.corpus.test).value for name, one in models.items()}
    return {"states": found.states, **measured}


def tomita_row(number: int, runs: list[dict[str, Any]]) -> list[str]:
    """Return a line of the table of languages."""
    fit = [one for one in runs if one["illegal"] < MOST_ILLEGAL]
    return [
        str(number),
        f"{len(fit)} of {len(runs)}",
        f"{100 * max(one['illegal'] for one in runs):.2f} %",
        f"{sum(one['exact'] for one in fit)} of {len(fit)}",
        f"{sum(one['k-means'] for one in fit)} of {len(fit)}",
        str(tomita_dfa(number).states),
        ", ".join(f"{one['states']}" for one in runs),
        f"{statistics.median(one['teacher'] for one in runs):.5f}",
        f"{statistics.median(one['kl'] for one in runs):.5f}",
    ]


def history_row(number: int, runs: list[dict[str, Any]]) -> list[str]:
    """Return a line of the table of unbounded histories."""
    medians = (f"{statistics.median(one[key] for one in runs):.5f}" for key in ("teacher", "kl", "k-means"))
    true = UHL(language=number).automaton().states
    return [str(number), str(true), ", ".join(f"{one['states']}" for one in runs), *medians]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of teachers of each language")
    parser.add_argument("--strings", type=int, default=1000, help="strings that a teacher writes")
    parser.add_argument("--languages", type=int, nargs="*", default=range(1, 8), help="of Tomita's seven")
    parser.add_argument("--histories", type=int, nargs="*", default=range(1, 4), help="of the three")
    parser.add_argument("--file", type=Path, default=Path("outputs/studies/tomita.json"), help="where values are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)

    def known(study: Callable[..., dict[str, Any]], number: int, seed: int) -> dict[str, Any]:
        return remember(
            options.file, f"{study.__name__}/{number}/{seed}", partial(study, number, seed, options.strings)
        )

    runs = {n: [known(language, n, seed) for seed in range(options.seeds)] for n in options.languages}
    fit = [one for of_one in runs.values() for one in of_one if one["illegal"] < MOST_ILLEGAL]
    parts = [
        f"Exact: {sum(one['exact'] for one in fit)} of the {len(fit)} runs whose teacher is fit, "
        f"against {sum(one['k-means'] for one in fit)} for k-means with the true number of states.",
        table(
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
            [tomita_row(n, of_one) for n, of_one in runs.items()],
        ),
    ]
    if options.histories:
        past = {n: [known(history, n, seed) for seed in range(options.seeds)] for n in options.histories}
        parts += [
            "## Languages of unbounded history",
            "Divergence from the truth, nats per symbol, medians; k-means has the true number of states.",
            table(
                ["language", "states", "states found", "teacher", "student", "k-means"],
                [history_row(n, of_one) for n, of_one in past.items()],
            ),
        ]
    publish(
        "tomita",
        "Tomita's languages, exactly",
        f"{options.seeds} GRUs of 32 units for each language, {options.strings:,} strings of each. A teacher is fit "
        f"with less than {100 * MOST_ILLEGAL:g} % of its strings illegal. Tokens below {THRESHOLD:g} in a state of "
        "the automaton are illegal there, and what is left is compared with the true language by a search through the "
        "product of both minimal automata; minimal states are those of the true one, with its sink. Divergences from "
        "the truth are medians in nats per symbol.",
        *parts,
    )


if __name__ == "__main__":
    main()
