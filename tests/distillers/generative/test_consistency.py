"""Consistency distillation: its loss by hand, the boundary condition, and the average that makes the targets."""

import pytest
import torch

from kdzoo.distillers import ConsistencyDistillation
from kdzoo.errors import ConfigError
from kdzoo.functional import diffusion
from tests.distillers.generative.few_step_cases import noisy_batch, prepared, scaled, train


def angle_of(time):
    return diffusion.cosine_angle(torch.tensor([time], dtype=torch.float64))


@pytest.mark.parametrize(
    ("steps", "uniform", "time", "next_time", "end"),
    [(1, 0.3, 0.5, 0.25, 0.0), (1, 0.8, 1.0, 0.75, 0.0), (2, 0.3, 0.5, 0.25, 0.0), (2, 0.8, 1.0, 0.75, 0.5)],
)
def test_the_loss_compares_the_ends_predicted_from_two_points_of_the_teachers_path(
    steps, uniform, time, next_time, end
):
    distiller, batch = prepared(ConsistencyDistillation, steps=steps), noisy_batch([uniform])
    distiller.target.weights.add_(0.1)  # so that it matters which weights are used where
    first, second, last = angle_of(time), angle_of(next_time), angle_of(end)
    z = diffusion.diffuse(scaled(distiller, batch["input"]), batch["noise.z"], first)
    with torch.no_grad():
        z_next = diffusion.rotate(z, distiller.teacher.eval().denoiser(z, first), first - second)
        target = diffusion.rotate(z_next, distiller.target(z_next, second), second - last)
        predicted = diffusion.rotate(z, distiller.student.denoiser.network(z, first), first - last)
        expected = (predicted - target).square().mean(1)
    torch.testing.assert_close(distiller.losses(batch)["consistency"], expected)


def test_at_the_end_of_the_path_the_target_is_the_teachers_point_itself():
    """The boundary condition: c_skip = 1 and c_out = 0 there, so that the averaged network has no effect."""
    distiller, last, earlier = prepared(ConsistencyDistillation), noisy_batch([0.1]), noisy_batch([0.9])
    before = {name: distiller.losses(batch)["consistency"] for name, batch in (("last", last), ("earlier", earlier))}
    distiller.target.weights.mul_(7)
    assert torch.equal(distiller.losses(last)["consistency"], before["last"])
    assert not torch.equal(distiller.losses(earlier)["consistency"], before["earlier"])


def test_the_targets_are_an_average_of_the_student_without_gradient():
    distiller = prepared(ConsistencyDistillation, target_decay=0.5)
    start = distiller.target.weights.clone()
    assert torch.equal(start, distiller.teacher.denoiser.average.weights)
    train(distiller, [noisy_batch([0.3, 0.8])], rate=0.1)
    network = torch.nn.utils.parameters_to_vector(distiller.student.denoiser.network.parameters()).detach()
    decay = 2 / 11  # of the first step, (1 + 1) / (10 + 1)
    torch.testing.assert_close(distiller.target.weights, decay * start + (1 - decay) * network)
    assert "target.weights" in distiller.state_dict()
    assert not any(name.startswith("target") for name, _ in distiller.named_parameters())


def test_the_student_maps_noise_to_the_ends_of_the_teachers_paths():
    distiller = prepared(ConsistencyDistillation)
    noise = {"z": torch.randn(64, 2, dtype=torch.float64)}

    def error():
        student, teacher = (model.eval().samples(noise) for model in (distiller.student, distiller.teacher))
        distiller.train()
        return float((student - teacher).square().mean().detach())

    before = error()
    train(distiller, [noisy_batch(torch.rand(64).tolist(), seed) for seed in range(300)], rate=3e-3)
    assert error() < 0.2 * before


def test_a_bad_decay_raises():
    with pytest.raises(ConfigError, match=r"^target_decay must be in \[0, 1\), got 1.0$"):
        prepared(ConsistencyDistillation, target_decay=1.0)
