"""Matrix product states on the digits: accuracy gain by distillation, truncation, and Sobol indices.

    python scripts/mps_digits.py [--folder outputs/mps_digits]

Runs the experiment ``mps_digits`` with bond dimensions 8 and 16 (ten paired seeds), truncates the distilled chains of
bond dimension 16 of the first three seeds by four methods without labels (the last, ``mps_distance``, minimises the
exact distance to the original chain without data), and compares Sobol indices with Monte Carlo estimates. Takes about
half an hour of CPU time; finished runs are not repeated. The table is written to scripts/results/mps_digits.md.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_common import markdown_table, publish
from scipy import stats
from torch import Tensor

import kdzoo
from kdzoo.config import compose
from kdzoo.data import Digits
from kdzoo.models import MPS
from kdzoo.tensor_networks.sobol import feature_moments, sobol_indices

BONDS, CUT_BONDS, SEEDS = (8, 16), (12, 8, 6, 4), (0, 1, 2)
SAMPLES = 20_000


def measure_gain(folder: Path, bond: int) -> tuple[list[object], dict[str, Any]]:
    """Return a row on the accuracy gain of the student over the control, and the report."""
    report = kdzoo.run(
        compose(
            "experiment=mps_digits",
            f"student.bond_dim={bond}",
            f"output_dir={folder / f'bond_{bond}'}",
            f"cache_dir={folder / 'cache'}",
        )
    )
    student, control, teacher = (
        100 * torch.tensor(report[role]["metrics"]["accuracy"]["values"], dtype=torch.float64)
        for role in ("student", "control", "teacher")
    )
    gains = student - control
    half_width = float(stats.t.ppf(0.975, len(gains) - 1) * gains.std() / len(gains) ** 0.5)
    cells = [f"{accuracies.mean():.2f} ± {accuracies.std():.2f}" for accuracies in (teacher, control, student)]
    n_parameters = f"{report['student']['parameters']:,}"
    return [
        bond,
        n_parameters,
        *cells,
        f"{gains.mean():.2f}, {gains.mean() - half_width:.2f} to {gains.mean() + half_width:.2f}",
    ], report


def load_digits(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return training inputs, test inputs and test labels."""
    data = Digits(labels_per_class=None, seed=seed)
    data.setup()
    train = torch.cat([batch["input"] for batch in data.train_eval_dataloader()])
    test = [(batch["input"], batch["target"]) for batch in data.test_dataloader()]
    return train, torch.cat([x for x, _ in test]), torch.cat([y for _, y in test])


def cut_plain(model: MPS, bond: int, train: Tensor) -> None:  # noqa: ARG001
    """Truncate the singular values of the tensors."""
    model.truncate(bond_dim=bond)


def cut_whitened(model: MPS, bond: int, train: Tensor) -> None:
    """Truncate the singular values after whitening by the marginals of the data."""
    model.truncate(bond_dim=bond, inputs=train)


def cut_balanced(model: MPS, bond: int, train: Tensor) -> None:
    """Truncate by balancing the states of the data on both sides of a bond."""
    model.truncate(bond_dim=bond, inputs=train, method="balanced")


CUTS: dict[str, Callable[[MPS, int, Tensor], None]] = {
    "plain": cut_plain,
    "whitened": cut_whitened,
    "balanced": cut_balanced,
}


def accuracy(model: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the accuracy in percent."""
    with torch.no_grad():
        return 100 * float((model(x).argmax(1) == y).double().mean())


def accuracy_after_cuts(folder: Path) -> list[list[object]]:
    """Return the rows on the accuracy that is lost by truncation."""
    accuracies: dict[tuple[str, int], list[float]] = {}
    for seed in SEEDS:
        model_folder = folder / "bond_16" / f"seed_{seed}" / "student"
        model, (train, x, y) = kdzoo.load_student(model_folder), load_digits(seed)
        accuracies.setdefault(("uncut", 16), []).append(accuracy(model, x, y))
        for bond in CUT_BONDS:
            for name, cut_model in CUTS.items():
                cut_copy = copy.deepcopy(model)
                cut_model(cut_copy, bond, train)
                accuracies.setdefault((name, bond), []).append(accuracy(cut_copy, x, y))
            report = kdzoo.run(
                compose(
                    "distiller=mps_distance",
                    "data=digits_labelled",
                    "scheduler=one_cycle",
                    f"seed={seed}",
                    f"teacher_training.checkpoint={model_folder}",
                    f"student.bond_dim={bond}",
                    "trainer.max_epochs=20",
                    "control=false",
                    f"output_dir={folder / f'distance_{bond}_{seed}'}",
                    f"cache_dir={folder / 'cache'}",
                )
            )
            accuracies.setdefault(("no samples", bond), []).append(100 * report["student"]["metrics"]["accuracy"])
    rows = []
    for bond in CUT_BONDS:
        cells = []
        for name in (*CUTS, "no samples"):
            losses = torch.tensor(accuracies["uncut", 16]) - torch.tensor(accuracies[name, bond])
            cells.append(f"{losses.mean():.2f} ({', '.join(f'{loss:.2f}' for loss in losses)})")
        rows.append([bond, *cells])
    return rows


def compare_sobol_indices(folder: Path) -> str:
    """Return a sentence that compares exact Sobol indices with Monte Carlo estimates (Saltelli's estimators)."""
    model, (train, _, _) = kdzoo.load_student(folder / "bond_16" / "seed_0" / "student").double(), load_digits(0)
    x = train.flatten(1).double()
    exact = sobol_indices(model.sites(), model.centre.detach(), model.out_site, feature_moments(model.features(x)))
    generator = torch.Generator().manual_seed(0)
    sample_indices = torch.randint(len(x), (2, SAMPLES, x.shape[1]), generator=generator)
    first_samples, second_samples = (x.gather(0, index) for index in sample_indices)
    with torch.no_grad():
        first_outputs, second_outputs = model(first_samples), model(second_samples)
        n_within, n_estimates, largest = 0, 0, 0.0
        for site, place in enumerate(model.order.tolist()):
            mixed_samples = first_samples.clone()
            mixed_samples[:, place] = second_samples[:, place]
            mixed_outputs = model(mixed_samples)
            first_order = second_outputs * (mixed_outputs - first_outputs)
            total = 0.5 * (first_outputs - mixed_outputs).square()
            for estimate, indices in ((first_order, exact.first), (total, exact.total)):
                error = (estimate.mean(0) - indices[:, site] * exact.variance).abs()
                deviations = error / (estimate.std(0) / SAMPLES**0.5).clamp_min(1e-300)
                deviations = deviations[estimate.std(0) > 0]
                n_within += int((deviations <= 3).sum())
                n_estimates += len(deviations)
                largest = max(largest, float(deviations.max())) if len(deviations) else largest
    return (
        f"Sobol indices of a chain of 16, first-order and total, against Monte Carlo of {SAMPLES:,} samples: "
        f"{n_within} of {n_estimates} within 3 standard errors ({100 * n_within / n_estimates:.2f} %; 99.73 % of "
        f"normal errors are), the largest {largest:.2f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/mps_digits"), help="where runs and cache are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    gains = [measure_gain(options.folder, bond)[0] for bond in BONDS]
    publish(
        "mps_digits",
        "Matrix product states on the digits",
        "Accuracy in percent of 600 test images, ten seeds; the gain of the teacher is paired, with its 95 % interval.",
        markdown_table(["bond", "parameters", "teacher", "control", "student", "gain"], gains),
        "Points of accuracy that the distilled chain of 16 loses when its bonds are cut; no training, three seeds:",
        markdown_table(["bond", *CUTS, "no samples"], accuracy_after_cuts(options.folder)),
        compare_sobol_indices(options.folder),
    )


if __name__ == "__main__":
    main()
