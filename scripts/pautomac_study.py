"""Random automata as in the PAutomaC competition: distillation of a teacher, compared with learning from its strings.

    python scripts/pautomac_study.py [--targets "pdfa 1" ...] [--models NAME ...] [--folder outputs/pautomac]

Six deterministic automata, six non-deterministic ones and six hidden Markov models. For each, a GRU is trained
on strings of the automaton, and all models learn from the same strings of the GRU. They are scored on distinct strings
of the automaton, which are used for nothing else. Results in the folder are not computed again; the page is written
when all of them exist.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from automata_common import load_or_compute, load_or_train_teacher, sample_and_trace
from bench_common import markdown_table, publish

from kdzoo.automata import BASELINES, PFA, TracedSequences, pautomac_score
from kdzoo.automata.baselines import kmeans_counts
from kdzoo.automata.distill import distill
from kdzoo.core.randomness import mix_seed
from kdzoo.data.sequences.generated import RandomAutomaton
from kdzoo.text.language_model import LanguageModel, sequence_log_probs
from kdzoo.text.token_sequences import TokenSequences

KINDS = ("pdfa", "pnfa", "hmm")
SIZES = ((6, 5), (8, 4), (10, 8), (12, 6), (15, 10), (20, 12))
"""States and tokens of the targets 1 to 6 of each kind; the number of a target is its seed."""
N_TRAIN, N_SAMPLES, N_TEST, MAX_LENGTH = 20_000, 4_000, 1_000, 100
EPOCHS, LEARNING_RATE = 10, 5e-3
TEACHER = {"_target_": "kdzoo.models.RNNLM", "embedding": 16, "hidden": 64}
DRAWS, MAX_ROUNDS = 5_000, 40  # strings per round, and maximal number of rounds, for sampling distinct test strings
RESTARTS = 20  # of k-means

UNSIZED = ("3-gram", "ALERGIA", "spectral")
SIZED = ("k-means", "k-means, both", "Baum-Welch", "kdzoo")
"""Models with as many states as the target; for PNFA and HMM also with twice as many."""


class Target(NamedTuple):
    """An automaton to learn."""

    kind: str
    number: int

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.kind} {self.number}"

    @property
    def size(self) -> tuple[int, int]:
        """Numbers of states and tokens."""
        return SIZES[(self.number - 1) % len(SIZES)]

    @property
    def size_factors(self) -> tuple[int, ...]:
        """Numbers of states of the students, as multiples of that of the target."""
        return (1,) if self.kind == "pdfa" else (1, 2)

    @property
    def model_names(self) -> list[str]:
        """Names of the measured models."""
        sized = [name if factor == 1 else f"{name}, 2K" for factor in self.size_factors for name in SIZED]
        return ["truth", "teacher", *UNSIZED, *sized]


class Problem(NamedTuple):
    """A target with its teacher; ``truth`` and ``test`` are used for scoring only."""

    truth: PFA
    test: TokenSequences
    teacher: LanguageModel
    traced: TracedSequences


@cache
def make_problem(target: Target) -> Problem:
    """Return the target with its trained teacher and strings of the teacher."""
    states, symbols = target.size
    data = RandomAutomaton(
        kind=target.kind,
        states=states,
        symbols=symbols,
        target_seed=target.number,
        n_train=N_TRAIN,
        n_val=0,
        n_test=1,
        max_length=MAX_LENGTH,
        batch_size=128,
    )
    data.setup()
    model_config = {**TEACHER, "vocab_size": symbols + 1}
    teacher = load_or_train_teacher(
        data, model_config, name=f"pautomac-{target.kind}-{target.number}", epochs=EPOCHS, lr=LEARNING_RATE
    )
    truth = data.automaton()
    traced = sample_and_trace(teacher, N_SAMPLES, seed=target.number, max_length=MAX_LENGTH)
    return Problem(truth, sample_distinct_strings(truth, mix_seed(5_318_008, target.number)), teacher, traced)


def sample_distinct_strings(truth: PFA, seed: int) -> TokenSequences:
    """Return up to N_TEST distinct strings of the automaton, in the order of sampling."""
    strings: dict[tuple[int, ...], None] = {}
    for round_number in range(MAX_ROUNDS):
        strings.update(dict.fromkeys(map(tuple, truth.sample(DRAWS, mix_seed(seed, round_number), 1000).to_lists())))
        if len(strings) >= N_TEST:
            break
    return TokenSequences.of([list(string) for string in strings][:N_TEST])


def distil_student(traced: TracedSequences, states: int, seed: int) -> tuple[PFA, dict[str, Any]]:
    """Return the student, with the scores of all stages and the one chosen on held-out strings."""
    result = distill([traced], states=states, seed=seed)
    notes = {"chosen": result.chosen, "stages": result.candidate_scores}
    return result.pfa, notes


BASELINE_METHODS: dict[str, Callable[[TracedSequences, int, int], Any]] = {
    "3-gram": BASELINES["ngram3"],
    "ALERGIA": BASELINES["alergia"],
    "spectral": BASELINES["spectral"],
    "k-means": partial(kmeans_counts, restarts=RESTARTS),
    "k-means, both": partial(kmeans_counts, restarts=RESTARTS, features="both"),
    "Baum-Welch": BASELINES["baum_welch"],
}


def measure_model(target: Target, name: str) -> dict[str, Any]:
    """Return the score of a model on a target, with its CPU seconds and further results."""
    problem = make_problem(target)
    model: Any
    notes: dict[str, Any] = {}
    start = time.process_time()
    if name in ("truth", "teacher"):
        model = getattr(problem, name)
    else:
        method = name.removesuffix(", 2K")
        states = target.size[0] * (1 if method == name else 2)
        if method == "kdzoo":
            model, notes = distil_student(problem.traced, states, target.number)
        else:
            model = BASELINE_METHODS[method](problem.traced, states, target.number)
    seconds = time.process_time() - start
    if isinstance(model, PFA):
        notes |= {"states": model.states}
    score = pautomac_score(problem.truth.log_prob(problem.test), string_log_probs(model, problem.test))
    return {"score": score, "seconds": seconds, "n_test": len(problem.test), **notes}


def string_log_probs(model: Any, strings: TokenSequences) -> torch.Tensor:
    """Return the log-probability of each string [n] under an automaton or any other language model."""
    return model.log_prob(strings) if isinstance(model, PFA) else sequence_log_probs(model, strings)


def select_student(results: dict[str, Any]) -> str:
    """Return the name of the student with the highest likelihood of held-out strings of the teacher."""
    students = [name for name in ("kdzoo", "kdzoo, 2K") if name in results]
    return max(students, key=lambda name: results[name]["stages"][results[name]["chosen"]])


def publish_page(results: dict[Target, dict[str, Any]]) -> None:
    """Write the page of all results."""
    scores = {
        target: {name: result["score"] for name, result in results_by_model.items()}
        for target, results_by_model in results.items()
    }
    selected = {target: select_student(results_by_model) for target, results_by_model in results.items()}
    names = ["truth", "teacher", *UNSIZED, *(f"{name}{suffix}" for suffix in ("", ", 2K") for name in SIZED)]
    rows = []
    for target, model_scores in scores.items():
        best = min(value for name, value in model_scores.items() if name not in ("truth", "teacher"))
        formatted = {
            name: f"**{value:.2f}**" if value == best else f"{value:.2f}" for name, value in model_scores.items()
        }
        cells = [formatted.get(name, "") for name in names]
        rows.append([f"{target.name} ({target.size[0]}, {target.size[1]})", *cells])
    shortages = {
        target.name: results_by_model["truth"]["n_test"]
        for target, results_by_model in results.items()
        if results_by_model["truth"]["n_test"] < N_TEST
    }
    shortage_note = (
        "; ".join(
            f"{name} had only {n_strings} in {DRAWS * MAX_ROUNDS:,} draws" for name, n_strings in shortages.items()
        )
        or "all had them"
    )
    publish(
        "pautomac",
        "Random automata of PAutomaC size",
        f"In brackets states K and tokens. GRU of {TEACHER['hidden']} units, {EPOCHS} epochs on {N_TRAIN:,} true "
        f"strings; all models from the same {N_SAMPLES:,} strings of the GRU. PAutomaC score on {N_TEST:,} different "
        f"true strings ({shortage_note}), lower is better; the truth has the lowest possible. Bold: the best model "
        "but for truth and teacher. k-means and counts: the likeliest of "
        f"{RESTARTS} restarts, on hidden states or on those and the next-token distributions (both). Baum-Welch: the "
        "likeliest of 3 random starts, 50 steps. ALERGIA and spectral: settings by the likelihood of held-out "
        "strings, floors of their predictions among them. Columns with 2K: models of twice as many states.",
        markdown_table(["", *names], rows),
        "How often the student is better, and the geometric mean of the scores over the truth's (same names; "
        "`chosen` is the one of K and 2K states that the teacher's held-out strings choose):",
        markdown_table(*comparison_table(scores, selected)),
        "Stage that the held-out strings chose, and CPU seconds of all students: "
        + "; ".join(
            f"{target.name}: "
            + ", ".join(
                f"{result['chosen']} {result['seconds']:.0f}"
                for name, result in results_by_model.items()
                if "kdzoo" in name
            )
            for target, results_by_model in results.items()
        )
        + ".",
    )


def comparison_table(
    scores_by_target: dict[Target, dict[str, float]], selected: dict[Target, str]
) -> tuple[Sequence[str], list[list[str]]]:
    """Return headers and rows: wins of the students over each other model, and ratios to the score of the truth."""
    doubled = ", 2K (PDFA: K)"

    def scores_of(name: str) -> list[float]:
        if name.endswith(doubled):
            name = name.removesuffix(doubled)
            return [model_scores.get(f"{name}, 2K", model_scores[name]) for model_scores in scores_by_target.values()]
        return [model_scores[name] for model_scores in scores_by_target.values()]

    student_scores = {name: scores_of(name) for name in ("kdzoo", f"kdzoo{doubled}")}
    student_scores["chosen"] = [model_scores[selected[target]] for target, model_scores in scores_by_target.items()]
    baseline_scores = {name: scores_of(name) for name in ("teacher", *UNSIZED)}
    baseline_scores["each of these three"] = [
        min(model_scores[name] for name in UNSIZED) for model_scores in scores_by_target.values()
    ]
    baseline_scores |= {
        f"{name}{suffix}": scores_of(f"{name}{suffix}") for suffix in ("", doubled) for name in SIZED[:-1]
    }
    rows = []
    for name, baseline in baseline_scores.items():
        wins = [sum(a < b for a, b in zip(student, baseline, strict=True)) for student in student_scores.values()]
        rows.append([f"better than {name}", *(f"{n_wins} of {len(scores_by_target)}" for n_wins in wins)])
    truth_scores = scores_of("truth")
    for kind in KINDS:
        target_indices = [index for index, target in enumerate(scores_by_target) if target.kind == kind]
        for name, scores_by_model in (
            ("students", student_scores),
            ("teacher", dict.fromkeys(student_scores, scores_of("teacher"))),
        ):
            ratios = [
                geometric_mean([student[i] / truth_scores[i] for i in target_indices])
                for student in scores_by_model.values()
            ]
            rows.append([f"{name} over the truth, {kind}", *(f"{ratio:.3f}" for ratio in ratios)])
    return ["", *student_scores], rows


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    all_targets = [Target(kind, number) for kind in KINDS for number in range(1, len(SIZES) + 1)]
    parser.add_argument(
        "--targets", nargs="*", default=[target.name for target in all_targets], help="such as 'pdfa 1'"
    )
    parser.add_argument("--models", nargs="*", help="names of the columns; all by default")
    parser.add_argument("--folder", type=Path, default=Path("outputs/pautomac"), help="where figures are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.folder / "figures.json"
    for kind, number in map(str.split, options.targets):
        target = Target(kind, int(number))
        for name in target.model_names:
            if options.model_names is None or name in options.model_names:
                result = load_or_compute(path, f"{target.name}: {name}", partial(measure_model, target, name))
                print(f"{target.name:8s} {name:20s} {result['score']:10.3f} {result['seconds']:6.1f} s", flush=True)
        make_problem.cache_clear()
    results = json.loads(path.read_text())
    if all(f"{target.name}: {name}" in results for target in all_targets for name in target.model_names):
        publish_page(
            {target: {name: results[f"{target.name}: {name}"] for name in target.model_names} for target in all_targets}
        )


if __name__ == "__main__":
    main()
