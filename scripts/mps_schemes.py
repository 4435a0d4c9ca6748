"""Matrix product states distilled in three ways and trained by three schemes, on digits; and locality, on clothes.

    python scripts/mps_schemes.py [--folder outputs/mps_schemes] [--only families schemes locality]
                                  [--seeds 5] [--images 54000] [--epochs 12]

families: the same student at equal steps with the response alone, with hidden layers matched and with relations
matched. schemes: bonds of a fixed dimension against bonds that grow and are cut, and two-site sweeps. locality: orders
of the sites and patches, at about equal parameters. `--images` and `--epochs` are of locality alone, which is long and
only runs where it is named. What is finished is not done again. The table goes to scripts/results/mps_schemes.md.
"""

import argparse
from pathlib import Path

import torch
from bench_common import publish, table
from scipy import stats

import kdzoo
from kdzoo.config import compose

EPOCHS = 40
ADAM = "{_target_:torch.optim.Adam,_partial_:true,lr:0.001}"
LAYERS = "{left:fc.activation,right:fc.activation}"
DIGITS = [
    *("data=digits_labelled", "teacher=cnn", "scheduler=cosine", "optimizer.lr=0.003", f"trainer.max_epochs={EPOCHS}"),
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
"""Relations: weights of distance and angle, first those of the paper, then distances alone."""
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
LOCALITY = {
    **{f"pixels, {order}": ["student=mps", f"student.order={order}"] for order in ("raster", "snake", "hilbert")},
    "patches 2 x 2, D = 20": ["student=patch_mps", "student.patch=2", "student.bond_dim=20"],
    "patches 4 x 4, D = 22": ["student=patch_mps", "student.patch=4", "student.bond_dim=22"],
    "patches 4 x 4, 8 learned, D = 30": [
        *("student=patch_mps", "student.patch=4", "student.learned=8", "student.bond_dim=30"),
    ],
}
"""Bond dimensions give about the parameters of pixels at D = 16."""


def clothes(images: int, epochs: int) -> list[str]:
    """Return the settings of the runs about locality."""
    return [
        *("data=fashion_mnist", f"data.train_size={images}", "teacher=cnn", "distiller=logit_kd", "scheduler=cosine"),
        *("optimizer.lr=0.0007", "trainer.gradient_clip_val=1.0", f"trainer.max_epochs={epochs}", "control=false"),
        *("teacher_training.seed=0", f"teacher_training.max_epochs={epochs}", f"teacher_training.optimizer={ADAM}"),
    ]


def measured(folder: Path, name: str, settings: list[str], seeds: int) -> dict[str, list[float]]:
    """Return test accuracy in percent, parameters and the teacher's accuracy over the seeds of a run."""
    place = folder / "".join(letter if letter.isalnum() else "_" for letter in name)
    paths = [f"seeds={list(range(seeds))}", f"output_dir={place}", f"cache_dir={folder / 'cache'}"]
    report = kdzoo.run(compose(*settings, "distiller.temperature=3.0", *paths))
    students = [kdzoo.load_student(place / f"seed_{seed}" / "student") for seed in range(seeds)]
    accuracy = {role: report[role]["metrics"]["accuracy"] for role in ("student", "teacher")}
    listed = {role: one["values"] if isinstance(one, dict) else [one] for role, one in accuracy.items()}
    return {
        **{role: [100 * value for value in values] for role, values in listed.items()},
        "parameters": [float(sum(one.numel() for one in student.parameters())) for student in students],
    }


def shown(values: list[float]) -> str:
    """Return mean and deviation."""
    found = torch.tensor(values, dtype=torch.float64)
    return f"{found.mean():.2f}" + (f" ± {found.std():.2f}" if len(values) > 1 else "")


def against(ours: list[float], theirs: list[float]) -> str:
    """Return the mean difference over paired seeds, with its 95 % interval and the p-value of the paired t-test."""
    gaps = torch.tensor(ours, dtype=torch.float64) - torch.tensor(theirs, dtype=torch.float64)
    if len(gaps) < 2 or float(gaps.std()) == 0:
        return f"{gaps.mean():+.2f}"
    half = stats.t.ppf(0.975, len(gaps) - 1) * float(gaps.std()) / len(gaps) ** 0.5
    return f"{gaps.mean():+.2f} ± {half:.2f} (p = {stats.ttest_1samp(gaps, 0).pvalue:.2g})"


def part(title: str, found: dict[str, dict[str, list[float]]], base: str, note: str) -> str:
    """Return a section of the page; differences are against the row ``base``."""
    rows = [
        [
            name,
            shown(one["student"]),
            against(one["student"], found[base]["student"]),
            f"{sum(one['parameters']) / len(one['parameters']):,.0f}",
        ]
        for name, one in found.items()
    ]
    head = ["", "test accuracy, %", f"minus {base}, points", "parameters"]
    return f"## {title}\n\n{table(head, rows)}\n\nTeacher {shown(found[base]['teacher'])} %. {note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs/mps_schemes"), help="where runs and cache are kept"
    )
    parser.add_argument(
        "--only", nargs="*", default=["families", "schemes"], choices=["families", "schemes", "locality"]
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--images", type=int, default=54000, help="training images of locality")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of locality")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder, seeds, parts = options.folder, options.seeds, []
    steps = f"{seeds} seeds; {EPOCHS} epochs of Adam with a cosine schedule, batch 64, T = 3. Intervals are of 95 %."
    if "families" in options.only:
        found = {name: measured(folder, name, [*DIGITS, *how], seeds) for name, how in FAMILIES.items()}
        note = f"Digits, D = 16; both states beside the output against the teacher's last hidden layer; {steps}"
        parts.append(part("Response, feature, relation", found, "response", note))
    if "schemes" in options.only:
        found = {name: measured(folder, name, [*DIGITS, *how], seeds) for name, how in SCHEMES.items()}
        note = f"Digits; response has a fixed D = 16; {steps} Sweeps: 6, there and back, without Adam."
        parts.append(part("Fixed, growing and adaptive bonds", found, "response", note))
    if "locality" in options.only:
        base = clothes(options.images, options.epochs)
        where = folder / f"locality_{options.images}_{options.epochs}"
        found = {name: measured(where, name, [*base, *how], seeds) for name, how in LOCALITY.items()}
        note = f"Fashion-MNIST, {options.images:,} images, {options.epochs} epochs, {seeds} seeds with one teacher."
        parts.append(part("Locality", found, "pixels, raster", note))
    publish("mps_schemes", "Matrix product states: ways to distil, schemes of training, locality", *parts)


if __name__ == "__main__":
    main()
