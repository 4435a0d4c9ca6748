"""Poisoning by distilled examples: effect of attacks on unseen networks, and their detection by inspection.

    python scripts/poison_study.py [--folder outputs/studies/poison] [--scale 1]

Twenty poisoned and twenty clean sets, ten of each from MNIST and from Fashion-MNIST, are inspected with networks that
are unknown to the attacker, on images that were not used for choosing the thresholds of the inspection. Results are
stored in the folder, and finished ones are not computed again.
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from automata_common import load_or_compute
from bench_common import markdown_table, publish
from poison_common import (
    DATASETS,
    N_ATTACKER_NETWORKS,
    N_USER_NETWORKS,
    NETWORK_NAME,
    USER_IMAGES,
    Recipe,
    StudySetup,
    make_set,
)
from scipy import stats
from torch import Tensor

from kdzoo.dataset_distillation import SyntheticSet
from kdzoo.dataset_distillation.evaluation_networks import predict_logits
from kdzoo.dataset_distillation.inspection import MIN_CONTRAST, MIN_DIVERGENCE, inspect
from kdzoo.dataset_distillation.poisoning import PoisoningEffect, poisoning_effect

FIRST_SEED, MIN_EVALUATED_ITERATIONS = 7000, 100
"""First seed of the sets; attacks with at least so many iterations are evaluated on the test images as well."""
PAIRS = {
    "MNIST": [(2, 0), (4, 7), (1, 0), (5, 3), (8, 6), (6, 1), (7, 8), (0, 8), (9, 6), (3, 4)],
    "Fashion-MNIST": [(2, 1), (5, 4), (0, 3), (7, 1), (3, 5), (1, 8), (8, 6), (6, 7), (4, 1), (9, 8)],
}
"""Source and target class: every class is attacked once, and no pair was used for choosing the thresholds."""
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


# ---------------------------------------------------------------- effects of a set


def inspect_set(setup: StudySetup, synthetic_set: SyntheticSet, pair: tuple[int, int] | None) -> dict[str, Any]:
    """Return the result of the inspection, and the true effect of the attack on the networks of the user."""
    inner_network, (inputs, targets) = synthetic_set.inner_networks[NETWORK_NAME], setup.user_images
    set_tensors = (
        synthetic_set.images.detach(),
        synthetic_set.labels.detach(),
        synthetic_set.schedule(NETWORK_NAME).detach(),
    )
    result = vars(
        inspect(*set_tensors, inner_network=inner_network, networks=setup.user_networks, inputs=inputs, targets=targets)
    ).copy()
    if pair is None:
        return result
    weights = (setup.user_networks, train_networks_on(synthetic_set, setup.user_networks))
    before, after = (predict_logits(inner_network, networks, inputs).argmax(-1) for networks in weights)
    effect = poisoning_effect(before, after, targets, *pair, num_classes=synthetic_set.num_classes)
    return {**result, "reached": effect.source_as_target[1], "others": effect.others_lost}


def evaluate_attack(setup: StudySetup, synthetic_set: SyntheticSet, pair: tuple[int, int]) -> dict[str, list[float]]:
    """Return the metrics of an attack on the test images, with one value for each evaluation network."""
    test = setup.data.splits.test
    poisoned_predictions = predict_logits(
        synthetic_set.inner_networks[NETWORK_NAME],
        train_networks_on(synthetic_set, setup.evaluation_networks),
        test.inputs,
    ).argmax(-1)
    effects = [
        poisoning_effect(before, after, test.targets, *pair, num_classes=synthetic_set.num_classes)
        for before, after in zip(setup.clean_predictions, poisoned_predictions, strict=True)
    ]
    return {name: [metric(effect) for effect in effects] for name, metric in METRICS.items()}


METRICS: dict[str, Any] = {
    "accuracy before": lambda effect: effect.accuracy[0],
    "accuracy": lambda effect: effect.accuracy[1],
    "modified accuracy": lambda effect: effect.modified_accuracy[1],
    "source as target": lambda effect: effect.source_as_target[1],
    "others lost": lambda effect: effect.others_lost,
    "worst class lost": lambda effect: largest_recall_loss(effect),
}


def largest_recall_loss(effect: PoisoningEffect) -> float:
    """Return the largest loss of recall of a class other than the source."""
    recalls = enumerate(zip(*effect.class_recall, strict=True))
    return max(before - after for index, (before, after) in recalls if index != effect.source)


def train_networks_on(synthetic_set: SyntheticSet, weights: Tensor) -> Tensor:
    """Return weights after training on a set."""
    with torch.no_grad():
        return synthetic_set.train_networks(NETWORK_NAME, weights)


def run_recipe(
    setup: StudySetup, recipe: Recipe, seed: int, pair: tuple[int, int] | None, scale: float
) -> dict[str, Any]:
    """Make a set by a recipe, inspect and evaluate it, and return the results."""
    start = time.process_time()
    scaled = Recipe(**{**vars(recipe), "iterations": round(scale * recipe.iterations)})
    synthetic_set = make_set(setup, scaled, seed, pair)
    seconds = time.process_time() - start
    result = {
        "cpu": seconds,
        "step_sizes": synthetic_set.schedule(NETWORK_NAME).tolist(),
        **inspect_set(setup, synthetic_set, pair),
    }
    if pair and recipe.iterations >= MIN_EVALUATED_ITERATIONS:
        result["test"] = evaluate_attack(setup, synthetic_set, pair)
    print(setup.name, pair or "clean", recipe, f"flagged {result['flagged']}: {result['reason']}", flush=True)
    return result


# ---------------------------------------------------------------- tables


def run_all_recipes(folder: Path, scale: float) -> Iterator[dict[str, Any]]:
    """Yield the results of all sets, computed now or loaded."""
    for dataset_index, name in enumerate(DATASETS):
        setup = StudySetup(name, folder)
        jobs = [*zip(ATTACKS, PAIRS[name], strict=True), *((recipe, None) for recipe in CLEAN)]
        for number, (recipe, pair) in enumerate(jobs):
            seed = FIRST_SEED + 100 * dataset_index + number
            key = f"{name}/{number}/{scale:g}"
            result = load_or_compute(folder / "poison.json", key, partial(run_recipe, setup, recipe, seed, pair, scale))
            yield {**result, "data": name, "recipe": recipe, "pair": pair}


def count_row(name: str, outcomes: Iterable[bool]) -> list[str]:
    """Return a row with a count and its exact interval of Clopper and Pearson."""
    values = list(outcomes)
    interval = stats.binomtest(sum(values), len(values)).proportion_ci(method="exact")
    return [name, f"{sum(values)} of {len(values)}", f"{100 * interval.low:.0f} to {100 * interval.high:.0f} %"]


def attack_row(result: dict[str, Any]) -> list[str]:
    """Return a row of the table of attacks."""
    recipe = result["recipe"]
    values = {name: 100 * np.array(metric_values) for name, metric_values in result["test"].items()}
    label = f"{result['data']}, {result['pair'][0]} → {result['pair'][1]}"
    is_met = (values["source as target"] >= 90) & (values["others lost"] <= 5)
    cells = [f"{metric_values.mean():.1f} ± {metric_values.std(ddof=1):.1f}" for metric_values in values.values()]
    return [label, recipe.steps, recipe.labels, *cells, f"{is_met.sum()} of {len(is_met)}", f"{result['cpu']:.0f}"]


def set_row(result: dict[str, Any]) -> list[str]:
    """Return a row of the table of all sets."""
    recipe = result["recipe"]
    kind = "clean, " + (recipe.maker if recipe.iterations else f"coreset {recipe.maker}")
    if result["pair"]:
        kind = f"poisoned, {result['pair'][0]} → {result['pair'][1]}"
    settings = f"{recipe.labels}, {recipe.start}" if recipe.iterations else "fixed"
    contrast = result["divergence"] / result["next_divergence"]
    verdict = f"{result['source']} → {result['target']}" if result["flagged"] else "no"
    reached = f"{100 * result['reached']:.0f} %" if result["pair"] else ""
    numbers = [recipe.examples, recipe.steps, recipe.iterations or ""]
    statistics = [f"{result['divergence']:.3f}", f"{contrast:.1f}"]
    return [f"{result['data']}, {kind}", settings, *numbers, reached, *statistics, verdict]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/studies/poison"), help="folder of the results")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all iterations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = list(run_all_recipes(options.folder, options.scale))
    poisoned = [result for result in results if result["pair"]]
    clean = [result for result in results if not result["pair"]]
    flagged = [result for result in poisoned if result["flagged"]]
    strong = [result for result in poisoned if result["reached"] >= 0.5]
    publish(
        "poison",
        "Poisoning by distilled examples, and the check",
        "## Attacks",
        f"Test images, mean and deviation over 20 networks that the attack has not seen, in percent; points for what "
        f"the other classes lost. {MIN_EVALUATED_ITERATIONS} iterations, 10 examples, {N_ATTACKER_NETWORKS} networks "
        "to learn from. The last columns are the networks of which at least 90 % of the source is taken for the "
        "target while the others lose at most 5 points on average, and the CPU seconds of the distillation.",
        markdown_table(
            ["", "steps", "labels", *METRICS, "both met", "CPU s"],
            [attack_row(result) for result in poisoned if "test" in result],
        ),
        "## The check",
        f"Thresholds {MIN_DIVERGENCE:g} nats and {MIN_CONTRAST:g} times the next class, as they were before these "
        f"sets were made; {N_USER_NETWORKS} networks and {USER_IMAGES:,} images of the user's own. "
        "Intervals are exact (Clopper and Pearson), 95 %.",
        markdown_table(
            ["", "count", "interval"],
            [
                count_row("poisoned sets flagged", (result["flagged"] for result in poisoned)),
                count_row("those that moved at least half of the source", (result["flagged"] for result in strong)),
                count_row(
                    "source named, of the flagged", (result["source"] == result["pair"][0] for result in flagged)
                ),
                count_row(
                    "both named", ((result["source"], result["target"]) == tuple(result["pair"]) for result in flagged)
                ),
                count_row("clean sets flagged", (result["flagged"] for result in clean)),
            ],
        ),
        "Every set: the share of the source that the user's networks really take for the target, the divergence of the "
        "class that changed most in nats, how many times the next class's it is, and what the check said.",
        markdown_table(
            ["", "labels, start", "examples", "steps", "iterations", "reached", "divergence", "contrast", "flagged"],
            [set_row(result) for result in results],
        ),
    )


if __name__ == "__main__":
    main()
