"""Generative adversarial networks on digits: what keeps the discriminator from winning.

    python scripts/gan_study.py [--folder outputs/gan_study] [--seeds 3] [--epochs 100]

Finished runs are not repeated. The table is written to scripts/results/gan_study.md.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from bench_common import markdown_table, publish
from generator_common import cell, run

WIDTH = "student.width=32"
WITHOUT_PENALTY = "distiller.penalty=none"
DISCRIMINATORS = {
    "`penalty=r1` (default)": [],
    "`penalty=r1`, weight 0.1": ["distiller.loss_weights.penalty=0.1"],
    "`penalty=gradient form=wasserstein`, weight 10, three steps": [
        *("distiller.penalty=gradient", "distiller.form=wasserstein", "distiller.opponent_steps=3"),
        "distiller.loss_weights.penalty=10",
    ],
    "`penalty=none student.spectral_norm=true`": [WITHOUT_PENALTY, "student.spectral_norm=true"],
    "`penalty=none`": [WITHOUT_PENALTY],
    "`penalty=r1 optimizer=adam` (more momentum)": ["optimizer=adam"],
}
"""Settings by row; all other settings are the defaults."""


def discriminators(folder: Path, seeds: int, epochs: int) -> tuple[list[list[str]], str]:
    """Return the rows of the table of discriminators, and the distance of training images from test images."""
    rows, reference = [], ""
    for name, settings in DISCRIMINATORS.items():
        length = [f"trainer.max_epochs={epochs}", f"trainer.check_val_every_n_epoch={epochs}"]
        report = run(folder, seeds, "distiller=adversarial", WIDTH, "control=false", *length, *settings)
        rows.append([name, *(cell(report, "student", metric) for metric in ("frechet", "precision", "recall"))])
        reference = cell(report, "data", "frechet")
    return rows, reference


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/gan_study"))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of each run")
    parser.add_argument("--epochs", type=int, default=100, help="epochs of each run")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folder, seeds, epochs = options.folder, options.seeds, options.epochs
    rows, reference = discriminators(folder, seeds, epochs)
    publish(
        "gan_study",
        "Generative adversarial networks on digits",
        f"{epochs} epochs, {seeds} seeds, mean and deviation. Frechet distances are those of a report, by the features "
        f"of a small classifier, between samples and test images; that of training images is {reference}. Settings "
        "that are not named are the defaults, with a generator of width 32.",
        markdown_table(["discriminator", "Frechet distance", "precision", "recall"], rows),
    )


if __name__ == "__main__":
    main()
