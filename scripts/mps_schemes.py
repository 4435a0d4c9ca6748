"""Matrix product states distilled in three ways and trained by three schemes, on digits; and locality, on clothes.

    python scripts/mps_schemes.py [--folder outputs/mps_schemes] [--only families schemes locality]
                                  [--seeds 5] [--images 15000] [--epochs 4]

families: the same student at equal steps with the response alone, with hidden layers matched and with relations
matched. schemes: bonds of a fixed dimension against bonds that grow and are cut, and two-site sweeps. locality: orders
of the sites, patches beside each other and overlapping ones, at about equal parameters and equal steps, each with the
learning rate that is best on held-out training images. `--images` and `--epochs` are of locality alone, which
only runs where it is named. What is finished is not done again. The tables go to scripts/results/mps_schemes.md, where
those of parts that are not named stay as they are.
"""

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench_common import RESULTS, publish, table
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
"""Bond dimensions give about the parameters of pixels at D = 16."""
RATES = (0.0007, 0.002)
TITLES = {
    "families": "Response, feature, relation",
    "schemes": "Fixed, growing and adaptive bonds",
    "locality": "Locality",
}


def clothes(images: int, epochs: int) -> list[str]:
    """Return the settings of the runs about locality."""
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
    """Return what :func:`measured` finds at the rate that is best on held-out images, that accuracy and the rate.

    The rate is chosen with the first seed.
    """
    tried = {}
    for rate in RATES:
        label = f"{name} at {rate}"
        found = measured(folder, label, [*settings, f"optimizer.lr={rate}"], [0])
        tried[rate] = accuracy(kdzoo.load_student(place_of(folder, label) / "seed_0" / "student"), batches), found
    rate = max(RATES, key=lambda one: tried[one][0])
    held_out, found = tried[rate]
    if seeds > 1:
        label = f"{name} at {rate}, {seeds} seeds"
        others = measured(folder, label, [*settings, f"optimizer.lr={rate}"], range(1, seeds))
        found = {key: [*values, *others[key]] for key, values in found.items()}
    return found, held_out, rate


def accuracy(model: torch.nn.Module, batches: list[dict[str, Any]]) -> float:
    """Return the percentage of right decisions."""
    with torch.no_grad():
        right = [model(batch["input"]).argmax(1) == batch["target"] for batch in batches]
    return 100 * float(torch.cat(right).double().mean())


def place_of(folder: Path, name: str) -> Path:
    """Return where a run of a name is kept."""
    return folder / "".join(letter if letter.isalnum() else "_" for letter in name)


def measured(folder: Path, name: str, settings: list[str], seeds: Sequence[int]) -> dict[str, list[float]]:
    """Return test accuracy in percent, parameters and the teacher's accuracy over the seeds of a run."""
    place = place_of(folder, name)
    paths = [f"seeds={list(seeds)}", f"output_dir={place}", f"cache_dir={folder / 'cache'}"]
    report = kdzoo.run(compose(*settings, "distiller.temperature=3.0", *paths))
    students = [kdzoo.load_student(place / f"seed_{seed}" / "student") for seed in seeds]
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


def part(name: str, found: dict[str, dict[str, list[float]]], base: str, note: str, **more: list[object]) -> str:
    """Return a section of the page; differences are against the row ``base``, ``more`` are columns of one's own."""
    rows = [
        [
            name,
            shown(one["student"]),
            against(one["student"], found[base]["student"]),
            f"{sum(one['parameters']) / len(one['parameters']):,.0f}",
            *(column[i] for column in more.values()),
        ]
        for i, (name, one) in enumerate(found.items())
    ]
    head = ["", "test accuracy, %", f"minus {base}, points", "parameters", *(one.replace("_", " ") for one in more)]
    when = f"Measured on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}."
    teacher = f"Teacher {shown(found[base]['teacher'])} %."
    return f"## {TITLES[name]}\n\n{table(head, rows)}\n\n{teacher} {note} {when}"


def with_new(page: str, parts: dict[str, str]) -> list[str]:
    """Return the sections of a page in the order of ``TITLES``, some of them new ones."""
    body = page.rpartition("\n\n")[0]  # without date and versions
    old = {one.partition("\n")[0]: f"## {one}" for one in body.split("\n\n## ")[1:]}
    sections = {name: parts.get(name, old.get(title)) for name, title in TITLES.items()}
    return [one for one in sections.values() if one is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs/mps_schemes"), help="where runs and cache are kept"
    )
    parser.add_argument(
        "--only", nargs="*", default=["families", "schemes"], choices=["families", "schemes", "locality"]
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--images", type=int, default=15000, help="training images of locality")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of locality")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder, seeds, parts = options.folder, options.seeds, {}
    steps = f"{seeds} seeds; {EPOCHS} epochs of Adam with a cosine schedule, batch 64, T = 3. Intervals are of 95 %."
    if "families" in options.only:
        found = {name: measured(folder, name, [*DIGITS, *how], range(seeds)) for name, how in FAMILIES.items()}
        note = f"Digits, D = 16; both states beside the output against the teacher's last hidden layer; {steps}"
        parts["families"] = part("families", found, "response", note)
    if "schemes" in options.only:
        found = {name: measured(folder, name, [*DIGITS, *how], range(seeds)) for name, how in SCHEMES.items()}
        note = f"Digits; response has a fixed D = 16; {steps} Sweeps: 6, there and back, without Adam."
        parts["schemes"] = part("schemes", found, "response", note)
    if "locality" in options.only:
        base = clothes(options.images, options.epochs)
        where = folder / f"locality_{options.images}_{options.epochs}"
        data = FashionMNIST(train_size=options.images)
        data.prepare_data()
        data.setup("fit")
        batches = list(data.val_dataloader())
        best = {name: with_best_rate(where, name, [*base, *how], seeds, batches) for name, how in LOCALITY.items()}
        note = (
            f"Fashion-MNIST, {options.images:,} training images, {options.epochs} epochs of Adam with a cosine "
            f"schedule, batch 128, T = 3, {seeds} seeds with one teacher of {2 * options.epochs} epochs. The rate of "
            f"each row is that of {RATES} with the better accuracy of the first seed on "
            f"{sum(len(one['target']) for one in batches):,} held-out training images."
        )
        found = {name: one[0] for name, one in best.items()}
        more: dict[str, list[object]] = {
            "held_out_(first_seed),_%": [f"{one[1]:.2f}" for one in best.values()],
            "rate": [one[2] for one in best.values()],
        }
        parts["locality"] = part("locality", found, "pixels, raster", note, **more)
    page = (RESULTS / "mps_schemes.md").read_text(encoding="utf-8")
    publish(
        "mps_schemes", "Matrix product states: ways to distil, schemes of training, locality", *with_new(page, parts)
    )


if __name__ == "__main__":
    main()
