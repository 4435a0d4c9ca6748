"""Matrix product states on the digits: the gain of a teacher, truncation, Sobol indices.

    python scripts/mps_digits.py [--folder outputs/mps_digits]

Runs the experiment ``mps_digits`` with bonds of 8 and 16 (ten paired seeds), cuts the distilled chains of 16 of the
first three seeds to smaller bonds in four ways without training them again (the last, ``mps_distance``, descends the
exact distance to the chain of 16, without data), and compares Sobol indices with Monte Carlo. Takes about half an hour
of CPU time; what is finished is not done again. The table goes to scripts/results/mps_digits.md.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_common import publish, table
from scipy import stats
from torch import Tensor

import kdzoo
from kdzoo.config import compose
from kdzoo.data import Digits
from kdzoo.models import MPS
from kdzoo.tensor_networks.sobol import feature_moments, sobol_indices

BONDS, TRUNCATED, SEEDS = (8, 16), (12, 8, 6, 4), (0, 1, 2)
SAMPLES = 20_000


def gain(folder: Path, bond: int) -> tuple[list[object], dict[str, Any]]:
    """Return a row on the gain of the teacher, and the report."""
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
    half = float(stats.t.ppf(0.975, len(gains) - 1) * gains.std() / len(gains) ** 0.5)
    cells = [f"{one.mean():.2f} ± {one.std():.2f}" for one in (teacher, control, student)]
    sizes = f"{report['student']['parameters']:,}"
    return [bond, sizes, *cells, f"{gains.mean():.2f}, {gains.mean() - half:.2f} to {gains.mean() + half:.2f}"], report


def parts(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return training inputs, test inputs and test classes."""
    data = Digits(labels_per_class=None, seed=seed)
    data.setup()
    train = torch.cat([batch["input"] for batch in data.train_eval_dataloader()])
    test = [(batch["input"], batch["target"]) for batch in data.test_dataloader()]
    return train, torch.cat([x for x, _ in test]), torch.cat([y for _, y in test])


def plain(model: MPS, bond: int, train: Tensor) -> None:  # noqa: ARG001
    """Cut singular values of the tensors as they are."""
    model.truncate(bond_dim=bond)


def whitened(model: MPS, bond: int, train: Tensor) -> None:
    """Cut singular values under the marginals of the data."""
    model.truncate(bond_dim=bond, inputs=train)


def balanced_cut(model: MPS, bond: int, train: Tensor) -> None:
    """Keep what matters for the states of the data."""
    model.truncate(bond_dim=bond, inputs=train, method="balanced")


CUTS: dict[str, Callable[[MPS, int, Tensor], None]] = {"plain": plain, "whitened": whitened, "balanced": balanced_cut}


def accuracy(model: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the percentage of right decisions."""
    with torch.no_grad():
        return 100 * float((model(x).argmax(1) == y).double().mean())


def cut(folder: Path) -> list[list[object]]:
    """Return the rows on accuracies after truncation."""
    found: dict[tuple[str, int], list[float]] = {}
    for seed in SEEDS:
        home = folder / "bond_16" / f"seed_{seed}" / "student"
        model, (train, x, y) = kdzoo.load_student(home), parts(seed)
        found.setdefault(("whole", 16), []).append(accuracy(model, x, y))
        for bond in TRUNCATED:
            for name, way in CUTS.items():
                smaller = copy.deepcopy(model)
                way(smaller, bond, train)
                found.setdefault((name, bond), []).append(accuracy(smaller, x, y))
            report = kdzoo.run(
                compose(
                    "distiller=mps_distance",
                    "data=digits_labelled",
                    "scheduler=one_cycle",
                    f"seed={seed}",
                    f"teacher_training.checkpoint={home}",
                    f"student.bond_dim={bond}",
                    "trainer.max_epochs=20",
                    "control=false",
                    f"output_dir={folder / f'distance_{bond}_{seed}'}",
                    f"cache_dir={folder / 'cache'}",
                )
            )
            found.setdefault(("no samples", bond), []).append(100 * report["student"]["metrics"]["accuracy"])
    rows = []
    for bond in TRUNCATED:
        cells = []
        for name in (*CUTS, "no samples"):
            lost = torch.tensor(found["whole", 16]) - torch.tensor(found[name, bond])
            cells.append(f"{lost.mean():.2f} ({', '.join(f'{one:.2f}' for one in lost)})")
        rows.append([bond, *cells])
    return rows


def indices(folder: Path) -> str:
    """Return a sentence on Sobol indices of one chain, exact and by Monte Carlo (Saltelli's estimators)."""
    model, (train, _, _) = kdzoo.load_student(folder / "bond_16" / "seed_0" / "student").double(), parts(0)
    x = train.flatten(1).double()
    exact = sobol_indices(model.sites(), model.centre.detach(), model.out_site, feature_moments(model.features(x)))
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(x), (2, SAMPLES, x.shape[1]), generator=generator)
    a, b = (x.gather(0, one) for one in rows)
    with torch.no_grad():
        f_a, f_b = model(a), model(b)
        within, count, largest = 0, 0, 0.0
        for site, place in enumerate(model.order.tolist()):
            mixed = a.clone()
            mixed[:, place] = b[:, place]
            f_mixed = model(mixed)
            first, total = f_b * (f_mixed - f_a), 0.5 * (f_a - f_mixed).square()
            for estimate, index in ((first, exact.first), (total, exact.total)):
                error = (estimate.mean(0) - index[:, site] * exact.variance).abs()
                deviations = error / (estimate.std(0) / SAMPLES**0.5).clamp_min(1e-300)
                deviations = deviations[estimate.std(0) > 0]
                within += int((deviations <= 3).sum())
                count += len(deviations)
                largest = max(largest, float(deviations.max())) if len(deviations) else largest
    return (
        f"Sobol indices of a chain of 16, first-order and total, against Monte Carlo of {SAMPLES:,} samples: {within} "
        f"of {count} within 3 standard errors ({100 * within / count:.2f} %; 99.73 % of normal errors are), the "
        f"largest {largest:.2f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/mps_digits"), help="where runs and cache are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    gains = [gain(options.folder, bond)[0] for bond in BONDS]
    publish(
        "mps_digits",
        "Matrix product states on the digits",
        "Accuracy in percent of 600 test images, ten seeds; the gain of the teacher is paired, with its 95 % interval.",
        table(["bond", "parameters", "teacher", "control", "student", "gain"], gains),
        "Points of accuracy that the distilled chain of 16 loses when its bonds are cut; no training, three seeds:",
        table(["bond", *CUTS, "no samples"], cut(options.folder)),
        indices(options.folder),
    )


if __name__ == "__main__":
    main()
