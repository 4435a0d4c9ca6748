"""Matrix product states: three kinds of distillation and of bond growth on digits, locality on Fashion-MNIST.

    python scripts/mps_schemes.py [--folder outputs/mps_schemes] [--only families schemes locality]
                                  [--seeds 5] [--images 15000] [--epochs 4]

families: one student at equal steps, distilled from the response alone, with matched hidden layers, and with matched
relations. schemes: bonds of fixed dimension, bonds that grow and are truncated, and two-site sweeps. locality: orders
of the sites, adjacent and overlapping patches, at about equal numbers of parameters and equal steps, each with the
learning rate that is best on held-out training images. `--images` and `--epochs` affect only locality, which is not
run by default. Finished runs are not repeated. The tables are written to scripts/results/mps_schemes.md; sections that
`--only` does not name keep their tables.
"""

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench_common import RESULTS, markdown_table, publish
from scipy import stats

import kdzoo
from kdzoo.config import compose
from kdzoo.data import FashionMNIST

EPOCHS = 40
ADAM = "{_target_:torch.optim.Adam,_partial_:true,lr:0.001}"
LAYERS = "{left:fc.activation,right:fc.activation}"
DIGITS = [
    *(
        "data=digits_labelled",
        "teacher=convnet_32_64",
        "scheduler=cosine",
        "optimizer.lr=0.003",
        f"trainer.max_epochs={EPOCHS}",
    ),
    *("teacher_training.max_epochs=60", f"teacher_training.optimizer={ADAM}"),
    *("teacher_training.data={augment:{shift:1}}", "control=false"),
]
RESPONSE = ["distiller=logit_kd", "student=mps"]
FAMILIES = {
    "response": RESPONSE,
    "response + feature": ["distiller=feature_kd", f"distiller.layers={LAYERS}", "student=mps"],
    "response + relation (25, 50)": ["distiller=relational_kd", f"distiller.layers={LAYERS}", "student=mps"],
    "response + relation (1, 0)": [
        *("distiller=relational_kd", f"distiller.layers={LAYERS}", "student=mps"),
        *("distiller.loss_weights.distance=1.0", "distiller.loss_weights.angle=0.0"),
    ],
}
"""Settings by row. In brackets: weights of distance and angle, first those of the paper, then distances alone."""
SMALL = "student.bond_dim=4"
SCHEMES = {
    "fixed, D = 4": [*RESPONSE, SMALL],
    "fixed, D = 8": [*RESPONSE, "student.bond_dim=8"],
    "response": RESPONSE,
    "growing from D = 4": ["distiller=growing_mps", SMALL, "distiller.grow=[[5,8],[10,16]]"],
    **{
        f"growing from D = 4, cut to {error}": [
            *("distiller=growing_mps", SMALL, "distiller.grow=[[5,8],[10,16]]", f"distiller.cut=[[24,{error}]]"),
        ]
        for error in (0.05, 0.1)
    },
    "two-site sweeps from D = 4": [
        *("distiller=sweep_mps", SMALL, "trainer.max_epochs=6", "distiller.damping=0.1", "distiller.max_error=0.04"),
    ],
}
PATCHES = ["student=patch_mps", "student.patch=4"]
LOCALITY = {
    **{
        f"pixels, {order.replace('_', ' ')}": ["student=mps", f"student.order={order}"]
        for order in ("raster", "snake", "hilbert", "mutual_information")
    },
    "patches 4 x 4, D = 22": [*PATCHES, "student.bond_dim=22"],
    "patches 4 x 4, 8 learned, D = 30": [*PATCHES, "student.learned=8", "student.bond_dim=30"],
    "overlapping 4 x 4, 8 learned, D = 16": [*PATCHES, "student.stride=2", "student.learned=8"],
}
"""Settings by row. With these bond dimensions, all have about as many parameters as pixels at D = 16."""
LEARNING_RATES = (0.0007, 0.002)
TITLES = {
    "families": "Response, feature, relation",
    "schemes": "Fixed, growing and adaptive bonds",
    "locality": "Locality",
}


def locality_settings(images: int, epochs: int) -> list[str]:
    """Return the settings that all locality runs share."""
    return [
        *(
            "data=fashion_mnist",
            f"data.train_size={images}",
            "teacher=convnet_32_64",
            "distiller=logit_kd",
            "scheduler=cosine",
        ),
        *("trainer.gradient_clip_val=1.0", f"trainer.max_epochs={epochs}", "control=false"),
        *("teacher_training.seed=0", f"teacher_training.max_epochs={2 * epochs}", f"teacher_training.optimizer={ADAM}"),
    ]


def with_best_rate(
    folder: Path, name: str, settings: list[str], seeds: int, batches: list[dict[str, Any]]
) -> tuple[dict[str, list[float]], float, float]:
    """Return the measurements at the learning rate that is best on held-out images, the held-out accuracy and the rate.

    The rate is chosen with the first seed.
    """
    results = {}
    for rate in LEARNING_RATES:
        label = f"{name} at {rate}"
        measurements = measure_runs(folder, label, [*settings, f"optimizer.lr={rate}"], [0])
        student = kdzoo.load_student(run_folder(folder, label) / "seed_0" / "student")
        results[rate] = accuracy(student, batches), measurements
    rate = max(LEARNING_RATES, key=lambda rate: results[rate][0])
    held_out_accuracy, measurements = results[rate]
    if seeds > 1:
        label = f"{name} at {rate}, {seeds} seeds"
        further_measurements = measure_runs(folder, label, [*settings, f"optimizer.lr={rate}"], range(1, seeds))
        measurements = {key: [*values, *further_measurements[key]] for key, values in measurements.items()}
    return measurements, held_out_accuracy, rate


def accuracy(model: torch.nn.Module, batches: list[dict[str, Any]]) -> float:
    """Return the accuracy in percent."""
    with torch.no_grad():
        is_correct = [model(batch["input"]).argmax(1) == batch["target"] for batch in batches]
    return 100 * float(torch.cat(is_correct).double().mean())


def run_folder(folder: Path, name: str) -> Path:
    """Return the output folder of a run."""
    return folder / "".join(letter if letter.isalnum() else "_" for letter in name)


def measure_runs(folder: Path, name: str, settings: list[str], seeds: Sequence[int]) -> dict[str, list[float]]:
    """Run all seeds; return test accuracies of student and teacher in percent, and numbers of parameters."""
    output_dir = run_folder(folder, name)
    paths = [f"seeds={list(seeds)}", f"output_dir={output_dir}", f"cache_dir={folder / 'cache'}"]
    report = kdzoo.run(compose(*settings, "distiller.temperature=3.0", *paths))
    students = [kdzoo.load_student(output_dir / f"seed_{seed}" / "student") for seed in seeds]
    accuracies = {role: report[role]["metrics"]["accuracy"] for role in ("student", "teacher")}
    # A run with a single seed reports a number instead of a list.
    lists = {role: value["values"] if isinstance(value, dict) else [value] for role, value in accuracies.items()}
    return {
        **{role: [100 * value for value in values] for role, values in lists.items()},
        "parameters": [float(sum(parameter.numel() for parameter in student.parameters())) for student in students],
    }


def mean_and_deviation(values: list[float]) -> str:
    """Return mean and standard deviation."""
    tensor = torch.tensor(values, dtype=torch.float64)
    return f"{tensor.mean():.2f}" + (f" ± {tensor.std():.2f}" if len(values) > 1 else "")


def paired_difference(values: list[float], baseline: list[float]) -> str:
    """Return the mean difference over paired seeds, with its 95 % interval and the p-value of the paired t-test."""
    differences = torch.tensor(values, dtype=torch.float64) - torch.tensor(baseline, dtype=torch.float64)
    if len(differences) < 2 or float(differences.std()) == 0:
        return f"{differences.mean():+.2f}"
    half_width = stats.t.ppf(0.975, len(differences) - 1) * float(differences.std()) / len(differences) ** 0.5
    return f"{differences.mean():+.2f} ± {half_width:.2f} (p = {stats.ttest_1samp(differences, 0).pvalue:.2g})"


def make_section(
    section: str, measurements: dict[str, dict[str, list[float]]], base: str, note: str, **further_columns: list[object]
) -> str:
    """Return a section of the page, with differences from the row ``base`` and further columns by header."""
    rows = [
        [
            name,
            mean_and_deviation(row["student"]),
            paired_difference(row["student"], measurements[base]["student"]),
            f"{sum(row['parameters']) / len(row['parameters']):,.0f}",
            *(column[i] for column in further_columns.values()),
        ]
        for i, (name, row) in enumerate(measurements.items())
    ]
    headers = ["", "test accuracy, %", f"minus {base}, points", "parameters"]
    headers += [header.replace("_", " ") for header in further_columns]
    date = f"Measured on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}."
    teacher = f"Teacher {mean_and_deviation(measurements[base]['teacher'])} %."
    return f"## {TITLES[section]}\n\n{markdown_table(headers, rows)}\n\n{teacher} {note} {date}"


def merge_sections(page: str, new_sections: dict[str, str]) -> list[str]:
    """Return the sections of a page in the order of ``TITLES``, with new sections in place of old ones."""
    old_body = page.rpartition("\n\n")[0]  # without date and versions
    old_sections = {section.partition("\n")[0]: f"## {section}" for section in old_body.split("\n\n## ")[1:]}
    sections = {name: new_sections.get(name, old_sections.get(title)) for name, title in TITLES.items()}
    return [section for section in sections.values() if section is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs/mps_schemes"), help="where runs and cache are kept"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        default=["families", "schemes"],
        choices=["families", "schemes", "locality"],
        help="sections to measure",
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--images", type=int, default=15000, help="training images of locality")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of locality")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder, seeds, sections = options.folder, options.seeds, {}
    steps = f"{seeds} seeds; {EPOCHS} epochs of Adam with a cosine schedule, batch 64, T = 3. Intervals are of 95 %."
    if "families" in options.only:
        measurements = {
            name: measure_runs(folder, name, [*DIGITS, *overrides], range(seeds))
            for name, overrides in FAMILIES.items()
        }
        note = f"Digits, D = 16; both states beside the output against the teacher's last hidden layer; {steps}"
        sections["families"] = make_section("families", measurements, "response", note)
    if "schemes" in options.only:
        measurements = {
            name: measure_runs(folder, name, [*DIGITS, *overrides], range(seeds)) for name, overrides in SCHEMES.items()
        }
        note = f"Digits; response has a fixed D = 16; {steps} Sweeps: 6, there and back, without Adam."
        sections["schemes"] = make_section("schemes", measurements, "response", note)
    if "locality" in options.only:
        settings = locality_settings(options.images, options.epochs)
        locality_folder = folder / f"locality_{options.images}_{options.epochs}"
        data = FashionMNIST(train_size=options.images)
        data.prepare_data()
        data.setup("fit")
        batches = list(data.val_dataloader())
        best_results = {
            name: with_best_rate(locality_folder, name, [*settings, *overrides], seeds, batches)
            for name, overrides in LOCALITY.items()
        }
        note = (
            f"Fashion-MNIST, {options.images:,} training images, {options.epochs} epochs of Adam with a cosine "
            f"schedule, batch 128, T = 3, {seeds} seeds with one teacher of {2 * options.epochs} epochs. The rate of "
            f"each row is that of {LEARNING_RATES} with the better accuracy of the first seed on "
            f"{sum(len(batch['target']) for batch in batches):,} held-out training images."
        )
        measurements = {name: result[0] for name, result in best_results.items()}
        further_columns: dict[str, list[object]] = {
            "held_out_(first_seed),_%": [
                f"{held_out_accuracy:.2f}" for _, held_out_accuracy, _ in best_results.values()
            ],
            "rate": [rate for *_, rate in best_results.values()],
        }
        sections["locality"] = make_section("locality", measurements, "pixels, raster", note, **further_columns)
    page = (RESULTS / "mps_schemes.md").read_text(encoding="utf-8")
    publish(
        "mps_schemes",
        "Matrix product states: ways to distil, schemes of training, locality",
        *merge_sections(page, sections),
    )


if __name__ == "__main__":
    main()
