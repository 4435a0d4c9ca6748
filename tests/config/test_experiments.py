"""Experiments build what their papers count, and every file composes without a mistake."""

import pytest
import torch

from kdzoo import config
from kdzoo.config import compose, validate
from kdzoo.models import ConvHVAE

NAMES = sorted(path.stem for path in (config.packaged_folder() / "experiment").glob("*.yaml"))
PAPER = {
    "chen2023_celeba": (64, {128: 6.60, 32: 0.44, 16: 0.12, 8: 0.04}),
    "chen2023_svhn": (32, {128: 5.39, 16: 0.10, 8: 0.03, 4: 0.01}),
    "chen2023_cifar10": (32, {128: 5.39, 16: 0.10, 8: 0.03, 4: 0.01}),
}
"""Side of the images, and millions of parameters by width."""
USERS_OWN = {
    "distilbert2019": ("data.path=corpus.txt",),
    "distilbert_sst2": ("teacher.path=folder",),
    "distilbert_sst2_ablation": ("teacher.path=folder",),
}
"""What an experiment cannot bring itself."""


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_has_no_mistake(name):
    brought = USERS_OWN.get(name, ())
    assert not validate.mistakes(compose(f"experiment={name}", *brought), config.packaged_targets())


@pytest.mark.parametrize("name", USERS_OWN)
def test_what_a_user_has_to_bring_is_asked_for(name):
    found = validate.mistakes(compose(f"experiment={name}"), config.packaged_targets())
    assert [line.split(" is missing")[0] for line in found] == [one.partition("=")[0] for one in USERS_OWN[name]]


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_parameter_counts(name):
    side, millions = PAPER[name]
    cfg = compose(f"experiment={name}")
    widths = list(millions)
    assert cfg.teacher.width == widths[0]
    assert cfg.student.width == widths[1]
    for width in widths:
        fixed, free = (ConvHVAE(in_shape=(3, side, side), width=width, scale=scale) for scale in (0.5, None))
        counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (fixed, free)]
        assert round(counts[1] / 1e6, 2) == round(counts[0] / 1e6, 2) == millions[width]
        assert counts[1] - counts[0] == 3 * width  # the half of the head that has no effect
        if width == widths[1]:
            assert cfg.expected[0].value == counts[1]
        if width == 128:
            assert cfg.expected[1].value == counts[1]


def test_the_paper_s_recipe():
    for name in PAPER:
        cfg = compose(f"experiment={name}")
        assert (cfg.data.batch_size, cfg.optimizer.lr, cfg.optimizer.weight_decay) == (128, 1e-4, 1e-4)
        assert (cfg.trainer.max_epochs, cfg.teacher_free.warmup) == (50, 0.5)  # 25 of 50 epochs
        assert torch.isclose(torch.tensor(cfg.student.scale), torch.tensor(0.05).sqrt())
