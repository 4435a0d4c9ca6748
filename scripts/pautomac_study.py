"""Random automata of the PAutomaC competition's recipe: distilled teachers against learning from their strings.

    python scripts/pautomac_study.py [--targets "pdfa 1" ...] [--models NAME ...] [--folder outputs/pautomac]

Six deterministic automata, six non-deterministic ones and six hidden Markov models. For each, a GRU learns from true
strings, and all models learn from the same strings of the GRU; the score is taken on distinct true strings, which
nothing else sees. What is in the folder is not computed again; the page is written when all of it is there.
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
from automata_common import remember, sample_and_trace, teacher_of
from bench_common import publish, table
from torch import nn

from kdzoo.automata import BASELINES, PFA, TracedSequences, pautomac_score
from kdzoo.automata.baselines import kmeans_counts
from kdzoo.automata.distill import distill
from kdzoo.core.randomness import mix_seed
from kdzoo.data.sequences.generated import RandomAutomaton
from kdzoo.text.language_model import sequence_log_probs
from kdzoo.text.token_sequences import TokenSequences

KINDS = ("pdfa", "pnfa", "hmm")
SIZES = ((6, 5), (8, 4), (10, 8), (12, 6), (15, 10), (20, 12))
"""States and tokens of the targets 1..6 of each kind; a target's number is its seed."""
N_TRAIN, N_SAMPLES, N_TEST, MAX_LENGTH = 20_000, 4_000, 1_000, 100
EPOCHS, RATE = 10, 5e-3
TEACHER = {"_target_": "kdzoo.models.RNNLM", "embedding": 16, "hidden": 64}
DRAWS, ROUNDS = 5_000, 40  # true strings that are drawn at a time, and at most so often, for distinct test strings
RESTARTS = 20  # of k-means

PLAIN = ("3-gram", "ALERGIA", "spectral")
SIZED = ("k-means", "k-means, both", "Baum-Welch", "kdzoo")
"""Models of as many states as the target has; for PNFA and HMM of twice as many as well."""


class Target(NamedTuple):
    """An automaton to be learnt."""

    kind: str
    number: int

    @property
    def name(self) -> str:
        """Its name in tables."""
        return f"{self.kind} {self.number}"

    @property
    def size(self) -> tuple[int, int]:
        """States and tokens."""
        return SIZES[(self.number - 1) % len(SIZES)]

    @property
    def factors(self) -> tuple[int, ...]:
        """The students' numbers of states, over the target's."""
        return (1,) if self.kind == "pdfa" else (1, 2)

    @property
    def models(self) -> list[str]:
        """The names of everything that is measured."""
        sized = [name if factor == 1 else f"{name}, 2K" for factor in self.factors for name in SIZED]
        return ["truth", "teacher", *PLAIN, *sized]


class Problem(NamedTuple):
    """What is known of a target: only the scoring sees `truth` and `test`."""

    truth: PFA
    test: TokenSequences
    teacher: nn.Module
    seen: TracedSequences


@cache
def problem(target: Target) -> Problem:
    """Return the target with its teacher."""
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
    node = {**TEACHER, "vocab_size": symbols + 1}
    teacher = teacher_of(data, node, name=f"pautomac-{target.kind}-{target.number}", epochs=EPOCHS, lr=RATE)
    truth = data.automaton()
    seen = sample_and_trace(teacher, N_SAMPLES, seed=target.number, max_length=MAX_LENGTH)
    return Problem(truth, distinct(truth, mix_seed(5_318_008, target.number)), teacher, seen)


def distinct(truth: PFA, seed: int) -> TokenSequences:
    """Return N_TEST different strings in the order in which the automaton draws them; fewer if it has hardly more."""
    found: dict[tuple[int, ...], None] = {}
    for number in range(ROUNDS):
        found.update(dict.fromkeys(map(tuple, truth.sample(DRAWS, mix_seed(seed, number), 1000).to_lists())))
        if len(found) >= N_TEST:
            break
    return TokenSequences.of([list(one) for one in found][:N_TEST])


def distilled(seen: TracedSequences, states: int, seed: int) -> tuple[PFA, dict[str, Any]]:
    """Return the student, with the stage that the held-out strings chose."""
    result = distill([seen], states=states, seed=seed)
    notes = {"chosen": result.chosen, "stages": result.candidate_scores}
    return result.pfa, notes


LEARNERS: dict[str, Callable[[TracedSequences, int, int], Any]] = {
    "3-gram": BASELINES["ngram3"],
    "ALERGIA": BASELINES["alergia"],
    "spectral": BASELINES["spectral"],
    "k-means": partial(kmeans_counts, restarts=RESTARTS),
    "k-means, both": partial(kmeans_counts, restarts=RESTARTS, features="both"),
    "Baum-Welch": BASELINES["baum_welch"],
}


def figures(target: Target, name: str) -> dict[str, Any]:
    """Return a model's score on a target, with its CPU seconds and what is worth knowing of it."""
    known = problem(target)
    model: Any
    notes: dict[str, Any] = {}
    start = time.process_time()
    if name in ("truth", "teacher"):
        model = getattr(known, name)
    else:
        method = name.removesuffix(", 2K")
        states = target.size[0] * (1 if method == name else 2)
        if method == "kdzoo":
            model, notes = distilled(known.seen, states, target.number)
        else:
            model = LEARNERS[method](known.seen, states, target.number)
    seconds = time.process_time() - start
    if isinstance(model, PFA):
        notes |= {"states": model.states}
    score = pautomac_score(known.truth.log_prob(known.test), log_probs(model, known.test))
    return {"score": score, "seconds": seconds, "n_test": len(known.test), **notes}


def log_probs(model: Any, strings: TokenSequences) -> torch.Tensor:
    """Return the log-probability of each string [n] under an automaton or any other language model."""
    return model.log_prob(strings) if isinstance(model, PFA) else sequence_log_probs(model, strings)


def chosen(known: dict[str, Any]) -> str:
    """Return which student the held-out strings of the teacher choose."""
    students = [name for name in ("kdzoo", "kdzoo, 2K") if name in known]
    return max(students, key=lambda name: known[name]["stages"][known[name]["chosen"]])


def page(results: dict[Target, dict[str, Any]]) -> None:
    """Write the page."""
    score = {target: {name: one["score"] for name, one in known.items()} for target, known in results.items()}
    student = {target: chosen(known) for target, known in results.items()}
    names = ["truth", "teacher", *PLAIN, *(f"{one}{twice}" for twice in ("", ", 2K") for one in SIZED)]
    rows = []
    for target, of in score.items():
        best = min(value for name, value in of.items() if name not in ("truth", "teacher"))
        cells = [("" if n not in of else f"**{of[n]:.2f}**" if of[n] == best else f"{of[n]:.2f}") for n in names]
        rows.append([f"{target.name} ({target.size[0]}, {target.size[1]})", *cells])
    fewer = {t.name: known["truth"]["n_test"] for t, known in results.items() if known["truth"]["n_test"] < N_TEST}
    few = "; ".join(f"{name} had only {n} in {DRAWS * ROUNDS:,} draws" for name, n in fewer.items()) or "all had them"
    publish(
        "pautomac",
        "Random automata of PAutomaC size",
        f"In brackets states K and tokens. GRU of {TEACHER['hidden']} units, {EPOCHS} epochs on {N_TRAIN:,} true "
        f"strings; all models from the same {N_SAMPLES:,} strings of the GRU. PAutomaC score on {N_TEST:,} different "
        f"true strings ({few}), lower is better; the truth has the lowest possible. Bold: the best model "
        "but for truth and teacher. k-means and counts: the likeliest of "
        f"{RESTARTS} restarts, on hidden states or on those and the next-token distributions (both). Baum-Welch: the "
        "likeliest of 3 random starts, 50 steps. ALERGIA and spectral: settings by the likelihood of held-out "
        "strings, floors of their predictions among them. Columns with 2K: models of twice as many states.",
        table(["", *names], rows),
        "How often the student is better, and the geometric mean of the scores over the truth's (same names; "
        "`chosen` is the one of K and 2K states that the teacher's held-out strings choose):",
        table(*comparison(score, student)),
        "Stage that the held-out strings chose, and CPU seconds of all students: "
        + "; ".join(
            f"{target.name}: "
            + ", ".join(f"{known[one]['chosen']} {known[one]['seconds']:.0f}" for one in known if "kdzoo" in one)
            for target, known in results.items()
        )
        + ".",
    )


def comparison(
    score: dict[Target, dict[str, float]], student: dict[Target, str]
) -> tuple[Sequence[str], list[list[str]]]:
    """Return headers and rows: wins of the students against each other model, and ratios to the truth."""
    twice = ", 2K (PDFA: K)"

    def scores(name: str) -> list[float]:
        if name.endswith(twice):
            name = name.removesuffix(twice)
            return [of.get(f"{name}, 2K", of[name]) for of in score.values()]
        return [of[name] for of in score.values()]

    ours = {name: scores(name) for name in ("kdzoo", f"kdzoo{twice}")}
    ours["chosen"] = [of[student[target]] for target, of in score.items()]
    rivals = {name: scores(name) for name in ("teacher", *PLAIN)}
    rivals["each of these three"] = [min(of[name] for name in PLAIN) for of in score.values()]
    rivals |= {f"{name}{suffix}": scores(f"{name}{suffix}") for suffix in ("", twice) for name in SIZED[:-1]}
    rows = []
    for name, theirs in rivals.items():
        wins = [sum(a < b for a, b in zip(one, theirs, strict=True)) for one in ours.values()]
        rows.append([f"better than {name}", *(f"{won} of {len(score)}" for won in wins)])
    floor = scores("truth")
    for kind in KINDS:
        of_kind = [number for number, target in enumerate(score) if target.kind == kind]
        for name, models in (("students", ours), ("teacher", dict.fromkeys(ours, scores("teacher")))):
            ratios = [geometric_mean([one[i] / floor[i] for i in of_kind]) for one in models.values()]
            rows.append([f"{name} over the truth, {kind}", *(f"{ratio:.3f}" for ratio in ratios)])
    return ["", *ours], rows


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = [Target(kind, number) for kind in KINDS for number in range(1, len(SIZES) + 1)]
    parser.add_argument("--targets", nargs="*", default=[one.name for one in every], help="such as 'pdfa 1'")
    parser.add_argument("--models", nargs="*", help="names of the columns; all by default")
    parser.add_argument("--folder", type=Path, default=Path("outputs/pautomac"), help="where figures are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.folder / "figures.json"
    for kind, number in map(str.split, options.targets):
        target = Target(kind, int(number))
        for name in target.models:
            if options.models is None or name in options.models:
                known = remember(path, f"{target.name}: {name}", partial(figures, target, name))
                print(f"{target.name:8s} {name:20s} {known['score']:10.3f} {known['seconds']:6.1f} s", flush=True)
        problem.cache_clear()
    known = json.loads(path.read_text())
    if all(f"{target.name}: {name}" in known for target in every for name in target.models):
        page({target: {name: known[f"{target.name}: {name}"] for name in target.models} for target in every})


if __name__ == "__main__":
    main()
