"""Progressive distillation: its loss against the paper's algorithm, and the cascade of its stages."""

import numpy as np
import pytest
import torch

from kdzoo.distillers import ProgressiveDistillation
from kdzoo.distillers.generative.progressive import step_counts
from kdzoo.functional import diffusion
from kdzoo.functional.gaussian_mixture import exact_velocity
from tests.distillers.generative.cases import at_step
from tests.distillers.generative.few_step_cases import noisy_batch, prepared, scaled, train
from tests.reference import diffusion as reference

MEANS = torch.tensor([[-1.0, 0.5], [1.0, 1.0], [0.3, -1.2]], dtype=torch.float64)
NOISE = diffusion.cosine_angle(torch.ones(1, dtype=torch.float64))  # the angle at which sampling begins


@pytest.mark.parametrize(
    ("most", "least", "counts"),
    [(32, 1, (32, 16, 8, 4, 2, 1)), (50, 1, (50, 25, 5, 1)), (12, 4, (12, 4)), (6, 3, (6, 3))],
)
def test_the_numbers_of_steps_fall_by_prime_factors(most, least, counts):
    assert step_counts(most, least) == counts


@pytest.mark.parametrize("uniform", [0.1, 0.6, 0.99])
def test_the_loss_is_that_of_the_papers_algorithm(uniform):
    distiller = prepared(ProgressiveDistillation, steps=2)
    batch = noisy_batch([uniform])

    def sample_by(denoiser):
        def predict(z, time):
            angle = diffusion.cosine_angle(torch.tensor([time], dtype=torch.float64))
            z = torch.as_tensor(z)
            with torch.no_grad():
                return diffusion.sample_from_velocity(z, denoiser(z, angle), angle).numpy()

        return predict

    data = scaled(distiller, batch["input"]).numpy()
    time = (np.floor(uniform * 2) + 1) / 2
    models = sample_by(distiller.teacher.eval().denoiser), sample_by(distiller.student.denoiser)
    expected = reference.progressive_loss(*models, data, batch["noise.z"].numpy(), time, 2)
    assert float(distiller.losses(batch)["velocity"]) == pytest.approx(expected, rel=1e-7)


def test_a_student_that_takes_the_teachers_path_has_no_loss():
    """The velocity of a chord is what a student that is right has to predict, so the loss is 0 for it."""
    distiller = prepared(ProgressiveDistillation, steps=1, teacher_steps=2)
    batch = noisy_batch([0.5])
    z = diffusion.diffuse(scaled(distiller, batch["input"]), batch["noise.z"], NOISE)
    with torch.no_grad():
        reached = diffusion.ddim(distiller.teacher.denoiser, z, 2)
        right = diffusion.chord_velocity(z, reached, NOISE)
    distiller.student.denoiser.forward = lambda *_: right
    assert float(distiller.losses(batch)["velocity"]) < 1e-20


def test_stages_have_equal_shares_of_the_training():
    distiller = prepared(ProgressiveDistillation, teacher_steps=8)
    assert distiller.counts == (8, 4, 2, 1)
    at_step(distiller, 0, 30)
    assert [distiller.stage_at(step) for step in (0, 9, 10, 19, 20, 29, 30)] == [0, 0, 1, 1, 2, 2, 2]


def test_the_averaged_student_of_a_stage_is_the_teacher_of_the_next():
    distiller = prepared(ProgressiveDistillation, teacher_steps=4)
    denoiser = distiller.student.denoiser
    train(distiller, [noisy_batch([0.2, 0.7], seed) for seed in range(6)], rate=1e-2)
    averaged = denoiser.average.weights.clone()
    at_step(distiller, 3, 6).on_train_batch_start(None, 3)
    assert distiller.stage == 1
    assert torch.equal(distiller.stage_weights, averaged)
    assert int(denoiser.average.steps) == 0
    # The stage before is now the teacher: a batch is compared with two steps of its weights, not of the teacher's.
    batch = noisy_batch([0.5])
    z = diffusion.diffuse(scaled(distiller, batch["input"]), batch["noise.z"], NOISE)
    with torch.no_grad():
        reached = diffusion.ddim(denoiser, z, 2)
        error = diffusion.chord_velocity(z, reached, NOISE) - denoiser(z, NOISE)
    expected = diffusion.truncated_snr_weight(NOISE) * error.square().mean(1)
    torch.testing.assert_close(distiller.losses(batch)["velocity"], expected)
    # A later step of the same stage changes nothing.
    at_step(distiller, 4, 6).on_train_batch_start(None, 4)
    assert torch.equal(distiller.stage_weights, averaged)


@pytest.mark.parametrize(("n_steps", "is_noted"), [(1, True), (2, False)])
def test_stages_that_a_short_training_leaves_out_are_noted(n_steps, is_noted):
    distiller = prepared(ProgressiveDistillation, teacher_steps=4)
    train(distiller, [noisy_batch([0.5, 0.9])] * n_steps)
    assert ("stages" in distiller.notes) == is_noted


def test_the_state_of_the_stages_is_in_the_checkpoint():
    distiller = prepared(ProgressiveDistillation)
    assert {
        "stage_weights",
        "student.entries.1.conditional.net.denoiser.average.weights",
    } <= distiller.state_dict().keys()


def test_one_step_of_the_student_reaches_the_samples_of_an_exact_teacher():
    distiller = prepared(ProgressiveDistillation, teacher_steps=4, from_teacher=False)
    distiller.teacher.calibrate(torch.tensor([-1.0, 1.0], dtype=torch.float64) / 2**0.5)  # mean 0, deviation 1
    distiller.prepare({})
    distiller.teacher.denoiser.forward = lambda z, angle: exact_velocity(z, angle, MEANS, 0.5)
    noise = {"z": torch.randn(256, 2, dtype=torch.float64)}

    def error():
        student, teacher = (model.eval().samples(noise) for model in (distiller.student, distiller.teacher))
        distiller.train()
        return float((student - teacher).square().mean().detach())

    generator = torch.Generator().manual_seed(0)
    before, batches = error(), []
    for _ in range(400):
        uniform = torch.rand(64, generator=generator, dtype=torch.float64).tolist()
        batch = noisy_batch(uniform, int(torch.randint(2**31, (), generator=generator)))
        modes = torch.randint(3, (64,), generator=generator)
        batches.append({**batch, "input": MEANS[modes] + 0.5 * batch["input"]})
    train(distiller, batches, rate=1e-2)
    assert error() < 0.1 * before
