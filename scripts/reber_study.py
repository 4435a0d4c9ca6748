"""Embedded Reber grammar: language models into automata of 20 states, stage by stage, against other ways to one.

    python scripts/reber_study.py [--seeds 5] [--sections students soft transformer determinism online]

Every seed has its own training strings and its own GRU, which writes the strings that all methods learn from. Methods
choose among restarts and settings by held-out strings of the GRU; the true grammar only measures. What was computed is
kept under ``outputs`` and not computed again.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from automata_common import remember, sample_and_trace, teacher_of
from bench_common import publish, table
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

FOLDER = Path("outputs/studies")
FIGURE = Path(__file__).parents[1] / "docs" / "experiments" / "determinism.png"
STATES, STRINGS, MAX_LENGTH, PSEUDOCOUNT = 20, 2500, 100, 0.01
GRU = {"_target_": "kdzoo.models.RNNLM", "embedding": 16, "hidden": 48}
TRANSFORMER = {"_target_": "kdzoo.models.TransformerLM", "width": 32, "layers": 2, "heads": 2, "max_length": 128}
SAMPLES = (25, 50, 100, 200, 400, 1000, 2000, 4000)
DETERMINISM = (0.25, 0.5, 1.0, 1.25, 1.5, 2.0, 4.0)
ONLINE_STRINGS = 20_000
FEW, FEW_STRINGS = 2, 1000  # seeds of the longer parts, and strings
SECTIONS = ("students", "soft", "transformer", "determinism", "online")

Student = Callable[..., LanguageModel]
"""What a method makes of trajectories, given ``seed``."""


def ours(seen: TracedSequences, seed: int, **options: Any) -> LanguageModel:
    """Return the distilled automaton."""
    return distill([seen], **{"states": STATES, "seed": seed, **options}).pfa


def baseline(seen: TracedSequences, seed: int, *, name: str) -> LanguageModel:
    """Return what another method makes of the strings."""
    return BASELINES[name](seen, STATES, seed)


def reference(seen: TracedSequences, seed: int, *, alpha: float, loss: str) -> LanguageModel:
    """Return the automaton of the fused barycenter: lowest objective of each kind of start, then the likelier one."""
    points, edges = seen.features("hidden"), Edges(*seen.strings.edges())
    settings = BarycenterSettings(alpha, loss, n_init=2, tol=1e-6, seed=seed)
    labels = [
        fgw_barycenter(points, edges, STATES, settings, init=init, n_tokens=seen.n_tokens).labels
        for init in ("kmeans", "random")
    ]
    return likeliest(seen, labels)


def pot(seen: TracedSequences, seed: int, *, alpha: float, strings: int = 100) -> LanguageModel:
    """Return the automaton of POT's barycenter of few strings without tokens; other points go to the nearest centroid.

    The adjacency is multiplied by the number of points, so that alpha means what it means here.
    """
    import ot

    some, points = seen.select(torch.arange(strings)), seen.features("hidden").double()
    n = some.n_prefixes
    adjacency = np.zeros((n, n))
    source, target, _ = some.strings.edges()
    adjacency[source, target] = n
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
    return likeliest(seen, labels)


def likeliest(seen: TracedSequences, labels: Iterable[Tensor]) -> PFA:
    """Return the counted automaton of the labels that suit held-out strings best."""
    train, held = held_out_split(seen.strings)
    fitted, points, judged = seen.select(train), seen.prefixes_of(train), seen.strings.select(held)

    def counted(data: TracedSequences, own: Tensor) -> PFA:
        return count(data, own, n_clusters=STATES, soft=False).to_pfa(PSEUDOCOUNT)

    best = max(labels, key=lambda own: float(counted(fitted, own[points]).log_prob(judged).sum()))
    return counted(seen, best)


OURS: Mapping[str, Student] = {
    "clusters merged, counts": partial(ours, soft=False, em=False),
    "clusters merged, soft labels": partial(ours, em=False),
    "clusters merged, Baum-Welch on drawn tokens": partial(ours, soft=False),
    "all stages (default)": ours,
}
OTHERS: Mapping[str, Student] = {
    "k-means on hidden states, best of 20": partial(kmeans_counts, states=STATES, restarts=20),
    "k-means on hidden states and distributions, best of 20": partial(
        kmeans_counts, states=STATES, restarts=20, features="both"
    ),
    "k-means, 100 states": partial(kmeans_counts, states=100, restarts=20, features="both"),
    "Baum-Welch, best of 10": partial(random_baum_welch, states=STATES, restarts=10, steps=100),
    "spectral": partial(baseline, name="spectral"),
    "ALERGIA": partial(baseline, name="alergia"),
    "3-gram": partial(baseline, name="ngram3"),
    "5-gram": partial(baseline, name="ngram5"),
    **{
        f"fused barycenter, {loss}, alpha = {alpha:g}": partial(reference, alpha=alpha, loss=loss)
        for loss in ("kl", "l2")
        for alpha in (0.99, 0.5)
    },
    **{f"POT's fused barycenter, alpha = {alpha:g}": partial(pot, alpha=alpha) for alpha in (0.99, 0.5)},
}


# ---------------------------------------------------------------- sources


@cache
def source(name: str, seed: int) -> GeneratedTokenSequences:
    """Return the strings of a seed; the test strings are those of all seeds."""
    sizes = {"n_train": 4000, "n_val": 0, "n_test": 4000, "max_length": MAX_LENGTH, "seed": seed}
    made = Reber(**sizes) if name == "reber" else RandomAutomaton(kind="pnfa", states=8, symbols=4, **sizes)
    made.setup()
    return made


@cache
def teacher(name: str, kind: str, seed: int) -> LanguageModel:
    """Return the GRU or the transformer of a seed."""
    node, epochs, rate = (GRU, 15, 5e-3) if kind == "gru" else (TRANSFORMER, 20, 3e-3)
    data = source(name, seed)
    node = {**node, "vocab_size": data.sizes["vocab_size"]}
    return teacher_of(data, node, name=f"{name}-{kind}", epochs=epochs, lr=rate, seed=seed)


@cache
def written(name: str, kind: str, seed: int, strings: int = max(SAMPLES)) -> TracedSequences:
    """Return strings of the teacher of a seed."""
    return sample_and_trace(teacher(name, kind, seed), strings, seed=seed, max_length=MAX_LENGTH)


def divergence(name: str, model: LanguageModel) -> float:
    """Return the divergence from the truth to a model over fresh true strings, nats per symbol."""
    data = source(name, 0)
    return kl_monte_carlo(data.automaton(), model, data.corpus.test).value


def first(seen: TracedSequences, strings: int) -> TracedSequences:
    """Return the first strings."""
    return seen.select(torch.arange(strings))


# ---------------------------------------------------------------- sections

Known = Callable[[str, Callable[[], Any]], Any]
"""Value of a key, computed if it is not known yet."""


def students(seeds: Iterable[int], known: Known) -> list[str]:
    """Compare what all methods make of the same strings."""
    rows: dict[str, list[float]] = {"GRU (teacher)": []}
    for seed in seeds:
        rows["GRU (teacher)"].append(
            known(f"teacher/gru/{seed}", lambda seed=seed: divergence("reber", teacher("reber", "gru", seed)))
        )
        for name, student in {**OURS, **OTHERS}.items():
            value = known(
                f"students/{name}/{seed}",
                lambda seed=seed, student=student: divergence(
                    "reber", student(first(written("reber", "gru", seed), STRINGS), seed=seed)
                ),
            )
            rows.setdefault(name, []).append(value)
    best = statistics.median(rows["all stages (default)"])
    return [
        f"## {STATES} states from {STRINGS:,} strings of the GRU",
        "Divergence from the true grammar, nats per symbol: median, least and greatest of the seeds, and the median "
        "as a multiple of that of all stages. Spectral estimate, ALERGIA and n-grams choose their own sizes.",
        table(
            ["", "median", "least", "greatest", "multiple"],
            [[name, *spread(values), f"{statistics.median(values) / best:.1f}"] for name, values in rows.items()],
        ),
    ]


def soft(seeds: Iterable[int], known: Known) -> list[str]:
    """Compare the numbers of strings that are needed with soft labels and without."""
    found: dict[tuple[str, int], float] = {}
    for kind, options in {"soft": {}, "drawn": {"soft": False}}.items():
        for n in SAMPLES:
            values = [
                known(
                    f"soft/{kind}/{n}/{seed}",
                    lambda seed=seed, n=n, options=options: divergence(
                        "reber", ours(first(written("reber", "gru", seed), n), seed, **options)
                    ),
                )
                for seed in seeds
            ]
            found[kind, n] = statistics.median(values)
    drawn = {n: found["drawn", n] for n in SAMPLES}
    rows = []
    for n in SAMPLES:
        needed = strings_for(found["soft", n], drawn)
        rows.append([f"{n:,}", f"{found['soft', n]:.4f}", f"{drawn[n]:.4f}", needed])
    return [
        "## Soft labels",
        "Median divergence of the default method and of the same without soft labels; strings without soft labels that "
        "are needed to come as low (log-linear between the rows).",
        table(["strings", "soft labels", "drawn symbols", "strings without soft labels"], rows),
    ]


def strings_for(value: float, curve: Mapping[int, float]) -> str:
    """Return the number of strings at which a falling curve comes down to a value."""
    sizes = sorted(curve)
    if curve[sizes[-1]] > value:
        return f"> {sizes[-1]:,}"
    below = next(i for i, n in enumerate(sizes) if curve[n] <= value)
    if below == 0:
        return f"<= {sizes[0]}"
    (n, y), (m, z) = ((sizes[i], curve[sizes[i]]) for i in (below - 1, below))
    share = (np.log(y) - np.log(value)) / (np.log(y) - np.log(z))
    return f"{round(n * (m / n) ** share):,}"


def transformer(seeds: Iterable[int], known: Known) -> list[str]:
    """Compare the student of a transformer with that of the GRU."""
    models: dict[str, Callable[[int], LanguageModel]] = {
        "GRU": lambda seed: teacher("reber", "gru", seed),
        "transformer": lambda seed: teacher("reber", "transformer", seed),
        "student of the GRU": lambda seed: ours(first(written("reber", "gru", seed), STRINGS), seed),
        "student of the transformer, its hidden vectors": lambda seed: ours(
            first(written("reber", "transformer", seed), STRINGS), seed
        ),
        "student of the transformer, learned states": lambda seed: ours(
            first(written("reber", "transformer", seed), STRINGS), seed, features="learned"
        ),
    }
    seeds, rows = list(seeds)[:FEW], []
    for name, model in models.items():
        values = [
            known(f"transformer/{name}/{seed}", lambda seed=seed, model=model: divergence("reber", model(seed)))
            for seed in seeds
        ]
        rows.append([name, *spread(values)])
    return [
        "## A transformer as teacher",
        f"Divergence from the true grammar, nats per symbol, {len(seeds)} seeds. A transformer's hidden vector need "
        "not hold what only later tokens depend on; learned states are those of a small GRU that reads its strings and "
        "learns its distributions.",
        table(["", "median", "least", "greatest"], rows),
    ]


def determinism(seeds: Iterable[int], known: Known) -> list[str]:
    """Measure how deterministic automata are against the weight of the transitions in the cost of a merge."""
    targets = {"Reber, 10 states": ("reber", 10), "PNFA, 8 states": ("pnfa", 8)}
    seeds = list(seeds)[:FEW]
    found: dict[str, np.ndarray] = {}
    for title, (name, states) in targets.items():
        found[title] = np.array(
            [
                [
                    known(
                        f"determinism/{title}/{weight}/{seed}",
                        lambda seed=seed, weight=weight, name=name, states=states: sharpness(
                            name,
                            ours(
                                first(written(name, "gru", seed), FEW_STRINGS), seed, states=states, determinism=weight
                            ),
                        ),
                    )
                    for seed in seeds
                ]
                for weight in DETERMINISM
            ]
        )
    draw(found)
    rows = [
        [title, f"{weight:g}", *(f"{value:.4f}" for value in np.median(found[title][i], 0))]
        for title in targets
        for i, weight in enumerate(DETERMINISM)
    ]
    return [
        "## Determinism",
        f"Medians over {len(seeds)} seeds, {FEW_STRINGS:,} strings: share of the (state, token) pairs of probability "
        "0.001 and more that lead to one state with probability 0.99 and more; mean probability of the likeliest next "
        "state given state and token; divergence from the truth.",
        table(["", "weight", "pairs with one successor", "likeliest successor", "divergence"], rows),
    ]


def sharpness(name: str, pfa: PFA) -> tuple[float, float, float]:
    """Return the share of pairs with one successor, the mean of the likeliest one, and the divergence."""
    pairs = pfa.transitions.sum(2)
    likeliest_share = pfa.transitions.amax(2) / pairs.clamp_min(1e-300)
    visits = pairs * expected_visits(pfa)
    single = (likeliest_share >= 0.99)[pairs >= 1e-3].double().mean()
    return float(single), float((likeliest_share * visits).sum() / visits.sum()), divergence(name, pfa)


def draw(found: Mapping[str, np.ndarray]) -> None:
    """Draw medians and ranges over the seeds against the weight."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    heads = ("pairs with one successor", "mean of the likeliest successor", "KL from the truth, nats per symbol")
    for column, (axes, head) in enumerate(zip(figure.subplots(1, 3), heads, strict=True)):
        for title, values in found.items():
            axes.plot(DETERMINISM, np.median(values[..., column], 1), marker=".", label=title)
            axes.fill_between(DETERMINISM, values[..., column].min(1), values[..., column].max(1), alpha=0.2)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="weight of the transitions", title=head)
    axes.set(yscale="log")
    axes.legend(fontsize="small")
    figure.savefig(FIGURE, dpi=80)


def online(seeds: Iterable[int], known: Known) -> list[str]:
    """Compare the stochastic version with the one that sees all strings together."""
    seeds, rows = list(seeds)[:FEW], []
    for title, name, states in (("Reber", "reber", STATES), ("PNFA, 8 states", "pnfa", 8)):
        values = {
            method.__name__: [
                known(
                    f"online/{name}/{method.__name__}/{seed}",
                    lambda seed=seed, method=method, name=name, states=states: streamed(method, name, states, seed),
                )
                for seed in seeds
            ]
            for method in (OTPFA, OnlinePFA)
        }
        ratios = [b / a for a, b in zip(values["OTPFA"], values["OnlinePFA"], strict=True)]
        rows += [[title, *(f"{statistics.median(one):.5f}" for one in values.values()), *spread(ratios, 3)]]
    return [
        "## One mini-batch at a time",
        f"Divergence from the truth with {ONLINE_STRINGS:,} strings of the GRU: all at once (ot_pfa), and in "
        "mini-batches after 2,000 strings (online_pfa); medians, and the ratio of the second to the "
        f"first, its median, least and greatest over {len(seeds)} seeds.",
        table(["", "ot_pfa", "online_pfa", "ratio", "least", "greatest"], rows),
    ]


def streamed(method: type[OTPFA], name: str, states: int, seed: int) -> float:
    """Return the divergence of the student of a distiller that writes its strings itself."""
    data, model = source(name, seed), teacher(name, "gru", seed)
    student = PFA(data.sizes["vocab_size"], states)
    distiller = method(student, model, n_samples=ONLINE_STRINGS, max_length=MAX_LENGTH, seed=seed)
    settings = {"accelerator": "cpu", "max_epochs": 1, "num_sanity_val_steps": 0, "limit_val_batches": 0}
    folder = FOLDER / "online" / f"{name}-{method.__name__}-{seed}"
    strings = distiller.transfer_set(data)
    strings.setup("fit")
    fit(distiller, strings, Training(settings, folder, seed, name))
    return divergence(name, student)


def spread(values: Iterable[float], digits: int = 5) -> list[str]:
    """Return median, least and greatest."""
    values = list(values)
    return [f"{one:.{digits}f}" for one in (statistics.median(values), min(values), max(values))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of teachers")
    parser.add_argument("--sections", nargs="*", default=SECTIONS, choices=SECTIONS, help="parts of the study")
    parser.add_argument("--file", type=Path, default=FOLDER / "reber.json", help="where values are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = [
        part
        for section in options.sections
        for part in globals()[section](range(options.seeds), partial(remember, options.file))
    ]
    publish(
        "reber",
        "Language models of the embedded Reber grammar into automata",
        f"{options.seeds} GRUs of 48 units, each taught by 4,000 strings of its own. 4,000 fresh true strings measure.",
        *parts,
    )


if __name__ == "__main__":
    main()
