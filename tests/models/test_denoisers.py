"""The networks of diffusion models: shapes, sizes of the maps, and that the angle and the condition matter."""

import pytest
import torch

from kdzoo.models.denoisers import PointDenoiser, UNet


def build(shape, conditions=0):
    torch.manual_seed(0)
    return (UNet if len(shape) == 3 else PointDenoiser)(shape, 4, 1, conditions)


@pytest.mark.parametrize("shape", [(2,), (3, 4), (1, 8, 8), (1, 28, 28), (3, 5, 6), (2, 1, 3)])
def test_the_result_has_the_shape_of_the_input(shape):
    z, angle = torch.randn(2, *shape), torch.tensor([0.1, 1.5])
    network = build(shape, 3)
    result = network(z, angle, torch.eye(3)[:2])
    assert result.shape == z.shape
    # Each sample is treated alone, and angle and condition change its result.
    torch.testing.assert_close(network(z[:1], angle[:1], torch.eye(3)[:1]), result[:1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(z, angle.flip(0), torch.eye(3)[:2]), result)
    assert not torch.allclose(network(z, angle, torch.eye(3)[1:]), result)


@pytest.mark.parametrize(("side", "sizes"), [(8, 2), (28, 3), (32, 4), (5, 1)])
def test_images_are_halved_to_four_pixels_at_least(side, sizes):
    assert len(build((1, side, side)).down) == sizes
