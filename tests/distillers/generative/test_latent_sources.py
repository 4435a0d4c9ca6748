"""Whose latents the student's nodes read."""

import pytest
import torch

from kdzoo.distillers.generative.latent_sources import LATENT_CHOICE, MixedLatents, make_latent_source
from kdzoo.errors import ConfigError

BATCH = {"input": torch.zeros(4, 0), LATENT_CHOICE: torch.tensor([0.0, 0.3, 0.6, 0.9])}


def test_sources_that_do_not_change():
    assert make_latent_source("student", mixing=0.5).teacher_latents(["z1", "z2"], BATCH, 0.0) == {}
    teacher = make_latent_source("teacher", mixing=0.5)
    assert teacher.teacher_latents(["z1", "z2"], BATCH, 1.0) == {"z1": True, "z2": True}
    assert teacher.mixing == 0
    assert teacher.missing_bound == ""


@pytest.mark.parametrize(
    ("elapsed", "expected"),
    [(0.0, [True] * 4), (0.5, [True, True, False, False]), (1.0, [False] * 4)],
    ids=["start", "half", "end"],
)
def test_a_mixture_takes_the_teachers_latents_for_a_share_that_falls_to_zero(elapsed, expected):
    source = make_latent_source("mixed", mixing=0.25)
    assert source.mixing == 0.25
    chosen = source.teacher_latents(["z1", "z2"], BATCH, elapsed)
    assert {name: value.tolist() for name, value in chosen.items()} == {"z1": expected, "z2": expected}
    assert source.missing_bound.startswith("latents_from=mixed")


def test_a_mixture_draws_what_the_batch_lacks():
    torch.manual_seed(0)
    chosen = MixedLatents(1.0).teacher_latents(["z"], {"input": torch.zeros(4000, 0)}, 0.25)["z"]
    assert float(chosen.float().mean()) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    ("name", "mixing", "message"),
    [
        ("both", 0.5, "^latents_from must be one of student, teacher, mixed, got 'both'$"),
        ("mixed", 0.0, "^mixing must be finite and > 0, got 0.0$"),
        ("mixed", 2.0, r"^mixing must be a finite number in \[0, 1\], got 2.0$"),
        ("student", 2.0, "^mixing must be"),
    ],
    ids=["name", "zero", "large", "unused"],
)
def test_an_invalid_argument_raises(name, mixing, message):
    with pytest.raises(ConfigError, match=message):
        make_latent_source(name, mixing=mixing)
