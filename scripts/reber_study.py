"""Embedded Reber grammar: distillation of language models into automata of 20 states, compared with other methods.

    python scripts/reber_study.py [--seeds 5] [--sections students soft transformer determinism online]

Every seed has its own training strings and its own GRU, whose strings all methods learn from. Methods choose among
restarts and settings by held-out strings of the GRU; the true grammar is used for evaluation only. Results are stored
under ``outputs`` and not computed again.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from automata_common import load_or_compute, load_or_train_teacher, sample_and_trace
from bench_common import markdown_table, publish
from matplotlib.figure import Figure
from torch import Tensor

from kdzoo.automata import BASELINES, PFA, TracedSequences, expected_visits, kl_monte_carlo
from kdzoo.automata.baselines import held_out_split, kmeans_counts, random_baum_welch
from kdzoo.automata.counts import count
from kdzoo.automata.distill import distill
from kdzoo.data import RandomAutomaton, Reber
from kdzoo.data.sequences.generated import GeneratedTokenSequences
from kdzoo.distillers import OTPFA, OnlinePFA
from kdzoo.functional import BarycenterSettings, Edges, fgw_barycenter
from kdzoo.runs.training import Training, fit
from kdzoo.text.language_model import LanguageModel

RESULTS_FOLDER = Path("outputs/studies")
FIGURE = Path(__file__).parents[1] / "docs" / "experiments" / "determinism.png"
STATES, STRINGS, MAX_LENGTH, PSEUDOCOUNT = 20, 2500, 100, 0.01
GRU = {"_target_": "kdzoo.models.RNNLM", "embedding": 16, "hidden": 48}
TRANSFORMER = {"_target_": "kdzoo.models.TransformerLM", "width": 32, "layers": 2, "heads": 2, "max_length": 128}
SAMPLES = (25, 50, 100, 200, 400, 1000, 2000, 4000)
TRANSITION_WEIGHTS = (0.25, 0.5, 1.0, 1.25, 1.5, 2.0, 4.0)
ONLINE_STRINGS = 20_000
FEWER_SEEDS, FEWER_STRINGS = 2, 1000  # of the sections that take longest

FitMethod = Callable[..., LanguageModel]
"""Fits an automaton or language model to traced strings, with a ``seed``."""


def distil_student(traced: TracedSequences, seed: int, **options: Any) -> LanguageModel:
    """Return the automaton that kdzoo distils from traced strings."""
    return distill([traced], **{"states": STATES, "seed": seed, **options}).pfa


def fit_baseline(traced: TracedSequences, seed: int, *, name: str) -> LanguageModel:
    """Return the model that a baseline of kdzoo fits to the strings."""
    model: Any = BASELINES[name](traced, STATES, seed)
    return model


def fit_fused_barycenter(traced: TracedSequences, seed: int, *, alpha: float, loss: str) -> LanguageModel:
    """Return the likelier automaton of two fused barycenters, each the best of its kind of initialisation."""
    points, edges = traced.features("hidden"), Edges(*traced.strings.edges())
    settings = BarycenterSettings(alpha, loss, n_init=2, tol=1e-6, seed=seed)
    labels = [
        fgw_barycenter(points, edges, STATES, settings, init=init, n_tokens=traced.n_tokens).labels
        for init in ("kmeans", "random")
    ]
    return select_by_likelihood(traced, labels)


def fit_pot_barycenter(traced: TracedSequences, seed: int, *, alpha: float, strings: int = 100) -> LanguageModel:
    """Return the automaton of POT's barycenter, which ignores tokens and is computed from the first strings only.

    All points are assigned to the nearest centroid. The adjacency is multiplied by the number of points, so that alpha
    has the same meaning as in kdzoo.
    """
    import ot

    first_traced, points = traced.select(torch.arange(strings)), traced.features("hidden").double()
    n = first_traced.n_prefixes
    adjacency = np.zeros((n, n))
    sources, targets, _ = first_traced.strings.edges()
    adjacency[sources, targets] = n
    labels = []
    for start in range(2):
        centroids = ot.gromov.semirelaxed_fgw_barycenters(
            STATES,
            [points[:n].numpy()],
            [adjacency],
            [np.full(n, 1 / n)],
            alpha=1 - alpha,
            symmetric=False,
            G0="kmeans",
            random_state=seed + start,
        )[0]
        labels.append(torch.cdist(points, torch.from_numpy(centroids)).argmin(1))
    return select_by_likelihood(traced, labels)


def select_by_likelihood(traced: TracedSequences, labels: Iterable[Tensor]) -> PFA:
    """Return the automaton of those labels whose counts give held-out strings the highest likelihood."""
    train_indices, held_out_indices = held_out_split(traced.strings)
    train_traced, train_prefixes = traced.select(train_indices), traced.prefixes_of(train_indices)
    held_out_strings = traced.strings.select(held_out_indices)

    def count_automaton(data: TracedSequences, candidate: Tensor) -> PFA:
        return count(data, candidate, n_clusters=STATES, soft=False).to_pfa(PSEUDOCOUNT)

    def log_likelihood(candidate: Tensor) -> float:
        return float(count_automaton(train_traced, candidate[train_prefixes]).log_prob(held_out_strings).sum())

    return count_automaton(traced, max(labels, key=log_likelihood))


STAGES: Mapping[str, FitMethod] = {
    "clusters merged, counts": partial(distil_student, soft=False, em=False),
    "clusters merged, soft labels": partial(distil_student, em=False),
    "clusters merged, Baum-Welch on drawn tokens": partial(distil_student, soft=False),
    "all stages (default)": distil_student,
}
OTHER_METHODS: Mapping[str, FitMethod] = {
    "k-means on hidden states, best of 20": partial(kmeans_counts, states=STATES, restarts=20),
    "k-means on hidden states and distributions, best of 20": partial(
        kmeans_counts, states=STATES, restarts=20, features="both"
    ),
    "k-means, 100 states": partial(kmeans_counts, states=100, restarts=20, features="both"),
    "Baum-Welch, best of 10": partial(random_baum_welch, states=STATES, restarts=10, steps=100),
    "spectral": partial(fit_baseline, name="spectral"),
    "ALERGIA": partial(fit_baseline, name="alergia"),
    "3-gram": partial(fit_baseline, name="ngram3"),
    "5-gram": partial(fit_baseline, name="ngram5"),
    **{
        f"fused barycenter, {loss}, alpha = {alpha:g}": partial(fit_fused_barycenter, alpha=alpha, loss=loss)
        for loss in ("kl", "l2")
        for alpha in (0.99, 0.5)
    },
    **{f"POT's fused barycenter, alpha = {alpha:g}": partial(fit_pot_barycenter, alpha=alpha) for alpha in (0.99, 0.5)},
}


# ---------------------------------------------------------------- data and teachers


@cache
def load_source(name: str, seed: int) -> GeneratedTokenSequences:
    """Return the data of a seed; all seeds have the same test strings."""
    sizes = {"n_train": 4000, "n_val": 0, "n_test": 4000, "max_length": MAX_LENGTH, "seed": seed}
    data = Reber(**sizes) if name == "reber" else RandomAutomaton(kind="pnfa", states=8, symbols=4, **sizes)
    data.setup()
    return data


@cache
def load_teacher(name: str, kind: str, seed: int) -> LanguageModel:
    """Return the trained GRU or transformer of a seed."""
    model_config, epochs, rate = (GRU, 15, 5e-3) if kind == "gru" else (TRANSFORMER, 20, 3e-3)
    data = load_source(name, seed)
    model_config = {**model_config, "vocab_size": data.sizes["vocab_size"]}
    return load_or_train_teacher(data, model_config, name=f"{name}-{kind}", epochs=epochs, lr=rate, seed=seed)


@cache
def sample_teacher_strings(name: str, kind: str, seed: int, strings: int = max(SAMPLES)) -> TracedSequences:
    """Return traced strings of the teacher of a seed."""
    return sample_and_trace(load_teacher(name, kind, seed), strings, seed=seed, max_length=MAX_LENGTH)


def divergence_from_truth(name: str, model: LanguageModel) -> float:
    """Return KL(truth || model) over test strings, in nats per symbol."""
    data = load_source(name, 0)
    return kl_monte_carlo(data.automaton(), model, data.corpus.test).value


def first_strings(traced: TracedSequences, strings: int) -> TracedSequences:
    """Return the first strings."""
    return traced.select(torch.arange(strings))


# ---------------------------------------------------------------- sections

Cache = Callable[[str, Callable[[], Any]], Any]
"""Returns the stored value of a key, computing and storing it if it is missing."""


def compare_students(seeds: Iterable[int], load_cached: Cache) -> list[str]:
    """Compare the models that all methods fit to the same strings."""
    rows: dict[str, list[float]] = {"GRU (teacher)": []}
    for seed in seeds:
        rows["GRU (teacher)"].append(
            load_cached(
                f"teacher/gru/{seed}",
                lambda seed=seed: divergence_from_truth("reber", load_teacher("reber", "gru", seed)),
            )
        )
        for name, fit_method in {**STAGES, **OTHER_METHODS}.items():
            value = load_cached(
                f"students/{name}/{seed}",
                lambda seed=seed, fit_method=fit_method: divergence_from_truth(
                    "reber", fit_method(first_strings(sample_teacher_strings("reber", "gru", seed), STRINGS), seed=seed)
                ),
            )
            rows.setdefault(name, []).append(value)
    best = statistics.median(rows["all stages (default)"])
    return [
        f"## {STATES} states from {STRINGS:,} strings of the GRU",
        "Divergence from the true grammar, nats per symbol: median, least and greatest of the seeds, and the median "
        "as a multiple of that of all stages. Spectral estimate, ALERGIA and n-grams choose their own sizes.",
        markdown_table(
            ["", "median", "least", "greatest", "multiple"],
            [
                [name, *format_spread(values), f"{statistics.median(values) / best:.1f}"]
                for name, values in rows.items()
            ],
        ),
    ]


def compare_soft_labels(seeds: Iterable[int], load_cached: Cache) -> list[str]:
    """Compare the numbers of strings that are needed with and without soft labels."""
    medians: dict[tuple[str, int], float] = {}
    for kind, options in {"soft": {}, "drawn": {"soft": False}}.items():
        for n in SAMPLES:
            values = [
                load_cached(
                    f"soft/{kind}/{n}/{seed}",
                    lambda seed=seed, n=n, options=options: divergence_from_truth(
                        "reber",
                        distil_student(first_strings(sample_teacher_strings("reber", "gru", seed), n), seed, **options),
                    ),
                )
                for seed in seeds
            ]
            medians[kind, n] = statistics.median(values)
    drawn = {n: medians["drawn", n] for n in SAMPLES}
    rows = []
    for n in SAMPLES:
        needed = strings_needed(medians["soft", n], drawn)
        rows.append([f"{n:,}", f"{medians['soft', n]:.4f}", f"{drawn[n]:.4f}", needed])
    return [
        "## Soft labels",
        "Median divergence of the default method and of the same without soft labels; strings without soft labels that "
        "are needed to come as low (log-linear between the rows).",
        markdown_table(["strings", "soft labels", "drawn symbols", "strings without soft labels"], rows),
    ]


def strings_needed(value: float, curve: Mapping[int, float]) -> str:
    """Return the number of strings at which a decreasing curve reaches a value, by log-linear interpolation."""
    sizes = sorted(curve)
    if curve[sizes[-1]] > value:
        return f"> {sizes[-1]:,}"
    below = next(i for i, size in enumerate(sizes) if curve[size] <= value)
    if below == 0:
        return f"<= {sizes[0]}"
    (n_above, value_above), (n_below, value_below) = ((sizes[i], curve[sizes[i]]) for i in (below - 1, below))
    share = (np.log(value_above) - np.log(value)) / (np.log(value_above) - np.log(value_below))
    return f"{round(n_above * (n_below / n_above) ** share):,}"


def compare_transformer(seeds: Iterable[int], load_cached: Cache) -> list[str]:
    """Compare students of a transformer with a student of the GRU."""
    models: dict[str, Callable[[int], LanguageModel]] = {
        "GRU": lambda seed: load_teacher("reber", "gru", seed),
        "transformer": lambda seed: load_teacher("reber", "transformer", seed),
        "student of the GRU": lambda seed: distil_student(
            first_strings(sample_teacher_strings("reber", "gru", seed), STRINGS), seed
        ),
        "student of the transformer, its hidden vectors": lambda seed: distil_student(
            first_strings(sample_teacher_strings("reber", "transformer", seed), STRINGS), seed
        ),
        "student of the transformer, learned states": lambda seed: distil_student(
            first_strings(sample_teacher_strings("reber", "transformer", seed), STRINGS), seed, features="learned"
        ),
    }
    seeds, rows = list(seeds)[:FEWER_SEEDS], []
    for name, model in models.items():
        values = [
            load_cached(
                f"transformer/{name}/{seed}", lambda seed=seed, model=model: divergence_from_truth("reber", model(seed))
            )
            for seed in seeds
        ]
        rows.append([name, *format_spread(values)])
    return [
        "## A transformer as teacher",
        f"Divergence from the true grammar, nats per symbol, {len(seeds)} seeds. A transformer's hidden vector need "
        "not hold what only later tokens depend on; learned states are those of a small GRU that reads its strings and "
        "learns its distributions.",
        markdown_table(["", "median", "least", "greatest"], rows),
    ]


def measure_determinism(seeds: Iterable[int], load_cached: Cache) -> list[str]:
    """Measure how deterministic automata are, depending on the weight of transitions in the cost of a merge."""
    targets = {"Reber, 10 states": ("reber", 10), "PNFA, 8 states": ("pnfa", 8)}
    seeds = list(seeds)[:FEWER_SEEDS]
    values_by_title: dict[str, np.ndarray] = {}
    for title, (name, states) in targets.items():
        values_by_title[title] = np.array(
            [
                [
                    load_cached(
                        f"determinism/{title}/{weight}/{seed}",
                        lambda seed=seed, weight=weight, name=name, states=states: measure_sharpness(
                            name,
                            distil_student(
                                first_strings(sample_teacher_strings(name, "gru", seed), FEWER_STRINGS),
                                seed,
                                states=states,
                                determinism=weight,
                            ),
                        ),
                    )
                    for seed in seeds
                ]
                for weight in TRANSITION_WEIGHTS
            ]
        )
    plot_determinism(values_by_title)
    rows = [
        [title, f"{weight:g}", *(f"{value:.4f}" for value in np.median(values_by_title[title][i], 0))]
        for title in targets
        for i, weight in enumerate(TRANSITION_WEIGHTS)
    ]
    return [
        "## Determinism",
        f"Medians over {len(seeds)} seeds, {FEWER_STRINGS:,} strings: share of the (state, token) pairs of probability "
        "0.001 and more that lead to one state with probability 0.99 and more; mean probability of the likeliest next "
        "state given state and token; divergence from the truth.",
        markdown_table(["", "weight", "pairs with one successor", "likeliest successor", "divergence"], rows),
    ]


def measure_sharpness(name: str, pfa: PFA) -> tuple[float, float, float]:
    """Return the share of pairs with one successor, the mean probability of the likeliest one, and the divergence."""
    pairs = pfa.transitions.sum(2)
    likeliest_share = pfa.transitions.amax(2) / pairs.clamp_min(1e-300)
    visits = pairs * expected_visits(pfa)
    share_single = (likeliest_share >= 0.99)[pairs >= 1e-3].double().mean()
    return float(share_single), float((likeliest_share * visits).sum() / visits.sum()), divergence_from_truth(name, pfa)


def plot_determinism(values_by_title: Mapping[str, np.ndarray]) -> None:
    """Plot medians and ranges over the seeds against the weight."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    titles = ("pairs with one successor", "mean of the likeliest successor", "KL from the truth, nats per symbol")
    for column, (axes, title) in enumerate(zip(figure.subplots(1, 3), titles, strict=True)):
        for label, values in values_by_title.items():
            axes.plot(TRANSITION_WEIGHTS, np.median(values[..., column], 1), marker=".", label=label)
            axes.fill_between(TRANSITION_WEIGHTS, values[..., column].min(1), values[..., column].max(1), alpha=0.2)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="weight of the transitions", title=title)
    axes.set(yscale="log")
    axes.legend(fontsize="small")
    figure.savefig(FIGURE, dpi=80)


def compare_online(seeds: Iterable[int], load_cached: Cache) -> list[str]:
    """Compare the stochastic algorithm with the one that takes all strings at once."""
    seeds, rows = list(seeds)[:FEWER_SEEDS], []
    for title, name, states in (("Reber", "reber", STATES), ("PNFA, 8 states", "pnfa", 8)):
        values = {
            method.__name__: [
                load_cached(
                    f"online/{name}/{method.__name__}/{seed}",
                    lambda seed=seed, method=method, name=name, states=states: distil_online(
                        method, name, states, seed
                    ),
                )
                for seed in seeds
            ]
            for method in (OTPFA, OnlinePFA)
        }
        ratios = [b / a for a, b in zip(values["OTPFA"], values["OnlinePFA"], strict=True)]
        medians = [f"{statistics.median(divergences):.5f}" for divergences in values.values()]
        rows.append([title, *medians, *format_spread(ratios, 3)])
    return [
        "## One mini-batch at a time",
        f"Divergence from the truth with {ONLINE_STRINGS:,} strings of the GRU: all at once (ot_pfa), and in "
        "mini-batches after 2,000 strings (online_pfa); medians, and the ratio of the second to the "
        f"first, its median, least and greatest over {len(seeds)} seeds.",
        markdown_table(["", "ot_pfa", "online_pfa", "ratio", "least", "greatest"], rows),
    ]


def distil_online(method: type[OTPFA], name: str, states: int, seed: int) -> float:
    """Distil with a distiller that samples its strings; return the divergence of its student from the truth."""
    data, model = load_source(name, seed), load_teacher(name, "gru", seed)
    student = PFA(data.sizes["vocab_size"], states)
    distiller = method(student, model, n_samples=ONLINE_STRINGS, max_length=MAX_LENGTH, seed=seed)
    settings = {"accelerator": "cpu", "max_epochs": 1, "num_sanity_val_steps": 0, "limit_val_batches": 0}
    folder = RESULTS_FOLDER / "online" / f"{name}-{method.__name__}-{seed}"
    strings = distiller.transfer_set(data)
    strings.setup("fit")
    fit(distiller, strings, Training(settings, folder, seed, name))
    return divergence_from_truth(name, student)


def format_spread(values: Iterable[float], digits: int = 5) -> list[str]:
    """Return median, minimum and maximum as cells of a table."""
    values = list(values)
    return [f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))]


SECTIONS: Mapping[str, Callable[[Iterable[int], Cache], list[str]]] = {
    "students": compare_students,
    "soft": compare_soft_labels,
    "transformer": compare_transformer,
    "determinism": measure_determinism,
    "online": compare_online,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of teachers")
    parser.add_argument(
        "--sections", nargs="*", default=list(SECTIONS), choices=list(SECTIONS), help="sections of the study"
    )
    parser.add_argument("--file", type=Path, default=RESULTS_FOLDER / "reber.json", help="where values are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load_cached = partial(load_or_compute, options.file)
    paragraphs = [
        paragraph for name in options.sections for paragraph in SECTIONS[name](range(options.seeds), load_cached)
    ]
    publish(
        "reber",
        "Language models of the embedded Reber grammar into automata",
        f"{options.seeds} GRUs of 48 units, each trained on 4,000 strings of its own. "
        "4,000 fresh true strings measure.",
        *paragraphs,
    )


if __name__ == "__main__":
    main()
