"""Poisoning by distilled examples: what an attack does to networks it has not seen, and whether the check finds it.

    python scripts/poison_study.py [--folder outputs/studies/poison] [--scale 1]

Twenty poisoned and twenty clean sets are made, ten of each from MNIST and from Fashion-MNIST, and inspected by
networks that their maker does not know, on images that the thresholds of the check were not chosen on. Finished sets
are kept in the folder and not made again.
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from automata_common import remember
from bench_common import publish, table
from poison_common import ATTACKERS, DATA, IMAGES, NAME, USERS, Lab, Recipe, made
from scipy import stats
from torch import Tensor

from kdzoo.dataset_distillation import SyntheticSet
from kdzoo.dataset_distillation.evaluation_networks import predict_logits
from kdzoo.dataset_distillation.inspection import MIN_CONTRAST, MIN_DIVERGENCE, inspect
from kdzoo.dataset_distillation.poisoning import PoisoningEffect, poisoning_effect

SEED, MEASURED = 7000, 100
"""First seed of the sets; attacks of so many iterations are measured on the test images too."""
PAIRS = {
    "MNIST": [(2, 0), (4, 7), (1, 0), (5, 3), (8, 6), (6, 1), (7, 8), (0, 8), (9, 6), (3, 4)],
    "Fashion-MNIST": [(2, 1), (5, 4), (0, 3), (7, 1), (3, 5), (1, 8), (8, 6), (6, 7), (4, 1), (9, 8)],
}
"""Source and target: every class is attacked once, and no pair is one that the thresholds were chosen on."""
ATTACKS = [
    Recipe("trained", 1, 100),
    Recipe("trained", 3, 100),
    Recipe("trained", 2, 100, labels="fixed"),
    Recipe("trained", 1, 60, start="noise"),
    Recipe("trained", 1, 50, labels="fixed"),
    Recipe("trained", 3, 50, labels="fixed"),
    Recipe("trained", 2, 30),
    Recipe("trained", 1, 15),
    Recipe("trained", 3, 15, start="noise"),
    Recipe("trained", 2, 20, examples=5),
]
CLEAN = [
    Recipe("trained", 1, 40),
    Recipe("trained", 3, 40, labels="fixed"),
    Recipe("trained", 2, 30, start="noise"),
    Recipe("normal", 5, 50, step_size=0.05),
    Recipe("xavier", 5, 50, step_size=0.05),
    Recipe("kaiming", 3, 50),
    Recipe("random", 10),
    Recipe("mean", 5),
    Recipe("kmeans", 5, examples=100),
    Recipe("herding", 10, examples=100),
]


# ---------------------------------------------------------------- what a set does


def inspected(lab: Lab, few: SyntheticSet, pair: tuple[int, int] | None) -> dict[str, Any]:
    """Return what the check says, and what the attack really did to the user's networks."""
    inner_network, (inputs, targets) = few.inner_networks[NAME], lab.images
    given = few.images.detach(), few.labels.detach(), few.schedule(NAME).detach()
    found = vars(
        inspect(*given, inner_network=inner_network, networks=lab.users, inputs=inputs, targets=targets)
    ).copy()
    if pair is None:
        return found
    weights = (lab.users, trained_on(few, lab.users))
    before, after = (predict_logits(inner_network, networks, inputs).argmax(-1) for networks in weights)
    effect = poisoning_effect(before, after, targets, *pair, num_classes=few.num_classes)
    return {**found, "reached": effect.source_as_target[1], "others": effect.others_lost}


def measured(lab: Lab, few: SyntheticSet, pair: tuple[int, int]) -> dict[str, list[float]]:
    """Return the measures of an attack on the test images, a value for each network that feature_extractors."""
    test = lab.data.splits.test
    after = predict_logits(few.inner_networks[NAME], trained_on(few, lab.feature_extractors), test.inputs).argmax(-1)
    effects = [
        poisoning_effect(*one, test.targets, *pair, num_classes=few.num_classes)
        for one in zip(lab.before, after, strict=True)
    ]
    return {name: [measure(one) for one in effects] for name, measure in MEASURES.items()}


MEASURES: dict[str, Any] = {
    "accuracy before": lambda effect: effect.accuracy[0],
    "accuracy": lambda effect: effect.accuracy[1],
    "modified accuracy": lambda effect: effect.modified_accuracy[1],
    "source as target": lambda effect: effect.source_as_target[1],
    "others lost": lambda effect: effect.others_lost,
    "worst class lost": lambda effect: worst_lost(effect),
}


def worst_lost(effect: PoisoningEffect) -> float:
    """Return the most recall that a class other than the source lost."""
    pairs = enumerate(zip(*effect.class_recall, strict=True))
    return max(before - after for number, (before, after) in pairs if number != effect.source)


def trained_on(few: SyntheticSet, weights: Tensor) -> Tensor:
    """Return networks after their steps on a set."""
    with torch.no_grad():
        return few.train_networks(NAME, weights)


def study(lab: Lab, recipe: Recipe, seed: int, pair: tuple[int, int] | None, scale: float) -> dict[str, Any]:
    """Make a set and return everything about it."""
    start = time.process_time()
    scaled = Recipe(**{**vars(recipe), "iterations": round(scale * recipe.iterations)})
    few = made(lab, scaled, seed, pair)
    seconds = time.process_time() - start
    found = {"cpu": seconds, "step_sizes": few.schedule(NAME).tolist(), **inspected(lab, few, pair)}
    if pair and recipe.iterations >= MEASURED:
        found["test"] = measured(lab, few, pair)
    print(lab.name, pair or "clean", recipe, f"flagged {found['flagged']}: {found['reason']}", flush=True)
    return found


# ---------------------------------------------------------------- tables


def every_set(folder: Path, scale: float) -> Iterator[dict[str, Any]]:
    """Yield all sets with what was found, made now or earlier."""
    for place, name in enumerate(DATA):
        lab = Lab(name, folder)
        jobs = [*zip(ATTACKS, PAIRS[name], strict=True), *((recipe, None) for recipe in CLEAN)]
        for number, (recipe, pair) in enumerate(jobs):
            seed = SEED + 100 * place + number
            key = f"{name}/{number}/{scale:g}"
            found = remember(folder / "poison.json", key, partial(study, lab, recipe, seed, pair, scale))
            yield {**found, "data": name, "recipe": recipe, "pair": pair}


def counted(name: str, hits: Iterable[bool]) -> list[str]:
    """Return a line of counts with the exact interval of Clopper and Pearson."""
    values = list(hits)
    exact = stats.binomtest(sum(values), len(values)).proportion_ci(method="exact")
    return [name, f"{sum(values)} of {len(values)}", f"{100 * exact.low:.0f} to {100 * exact.high:.0f} %"]


def attack_row(one: dict[str, Any]) -> list[str]:
    """Return a line of the table of measures."""
    recipe, values = one["recipe"], {name: 100 * np.array(few) for name, few in one["test"].items()}
    said = f"{one['data']}, {one['pair'][0]} → {one['pair'][1]}"
    met = (values["source as target"] >= 90) & (values["others lost"] <= 5)
    cells = [f"{few.mean():.1f} ± {few.std(ddof=1):.1f}" for few in values.values()]
    return [said, recipe.steps, recipe.labels, *cells, f"{met.sum()} of {len(met)}", f"{one['cpu']:.0f}"]


def set_row(one: dict[str, Any]) -> list[str]:
    """Return a line of the table of all sets."""
    recipe = one["recipe"]
    kind = "clean, " + (recipe.maker if recipe.iterations else f"coreset {recipe.maker}")
    if one["pair"]:
        kind = f"poisoned, {one['pair'][0]} → {one['pair'][1]}"
    how = f"{recipe.labels}, {recipe.start}" if recipe.iterations else "fixed"
    contrast = one["divergence"] / one["next_divergence"]
    said = f"{one['source']} → {one['target']}" if one["flagged"] else "no"
    reached = f"{100 * one['reached']:.0f} %" if one["pair"] else ""
    numbers = [recipe.examples, recipe.steps, recipe.iterations or ""]
    return [f"{one['data']}, {kind}", how, *numbers, reached, f"{one['divergence']:.3f}", f"{contrast:.1f}", said]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/studies/poison"), help="where parts are kept")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all iterations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = list(every_set(options.folder, options.scale))
    poisoned, clean = [one for one in found if one["pair"]], [one for one in found if not one["pair"]]
    caught = [one for one in poisoned if one["flagged"]]
    strong = [one for one in poisoned if one["reached"] >= 0.5]
    publish(
        "poison",
        "Poisoning by distilled examples, and the check",
        "## Attacks",
        f"Test images, mean and deviation over 20 networks that the attack has not seen, in percent; points for what "
        f"the other classes lost. {MEASURED} iterations, 10 examples, {ATTACKERS} networks to learn from. The last "
        "columns are the networks of which at least 90 % of the source is taken for the target while the others lose "
        "at most 5 points on average, and the CPU seconds of the distillation.",
        table(
            ["", "steps", "labels", *MEASURES, "both met", "CPU s"],
            [attack_row(one) for one in poisoned if "test" in one],
        ),
        "## The check",
        f"Thresholds {MIN_DIVERGENCE:g} nats and {MIN_CONTRAST:g} times the next class, as they were before these "
        f"sets were made; {USERS} networks and {IMAGES:,} images of the user's own. Intervals are exact (Clopper and "
        "Pearson), 95 %.",
        table(
            ["", "count", "interval"],
            [
                counted("poisoned sets flagged", (one["flagged"] for one in poisoned)),
                counted("those that moved at least half of the source", (one["flagged"] for one in strong)),
                counted("source named, of the flagged", (one["source"] == one["pair"][0] for one in caught)),
                counted("both named", ((one["source"], one["target"]) == tuple(one["pair"]) for one in caught)),
                counted("clean sets flagged", (one["flagged"] for one in clean)),
            ],
        ),
        "Every set: the share of the source that the user's networks really take for the target, the divergence of the "
        "class that changed most in nats, how many times the next class's it is, and what the check said.",
        table(
            ["", "labels, start", "examples", "steps", "iterations", "reached", "divergence", "contrast", "flagged"],
            [set_row(one) for one in found],
        ),
    )


if __name__ == "__main__":
    main()
