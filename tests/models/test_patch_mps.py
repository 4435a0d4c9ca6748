"""Matrix product states of patches: which numbers a site sees, what they become, and how the chain starts."""

import pytest
import torch

from kdzoo import config
from kdzoo.config import validate
from kdzoo.errors import ConfigError, DataError
from kdzoo.models import MPSClassifier, PatchMPS
from kdzoo.tensor_networks import site_order


def build(in_shape=(1, 8, 12), **options):
    torch.manual_seed(0)
    return PatchMPS(in_shape=in_shape, num_classes=3, **{"patch": 4, "bond_dim": 5, "noise": 1.0, **options}).double()


def by_definition(model, images):
    """One image, one patch and one number at a time."""
    side, outputs = model.patch, []
    rows, columns = (range(0, length - side + 1, model.stride) for length in images.shape[2:])
    corners = [(i, j) for i in rows for j in columns]
    walk = [corners[k] for k in site_order("snake", (len(rows), len(columns)))]
    sites, centre = model.sites(), model.centre.detach()
    for image in images:
        matrices = []
        for site, (i, j) in zip(sites, walk, strict=True):
            patch = image[:, i : i + side, j : j + side].reshape(-1)
            if model.feature_map.weight is not None:
                patch = model.feature_map.weight.detach() @ patch
            matrices.append(site[:, 0] + sum(x * site[:, 1 + k] for k, x in enumerate(patch)))
        left, right = torch.eye(1).double(), torch.eye(1).double()
        for matrix in matrices[: model.out_site]:
            left = left @ matrix
        for matrix in reversed(matrices[model.out_site :]):
            right = matrix @ right
        outputs.append(torch.stack([(left @ centre[:, o] @ right).squeeze() for o in range(3)]))
    return torch.stack(outputs)


@pytest.mark.parametrize("learned", [None, 3], ids=["pixels", "learned"])
@pytest.mark.parametrize("in_shape", [(1, 8, 12), (2, 8, 8)], ids=["grey", "colour"])
def test_outputs_are_those_of_the_definition(in_shape, learned):
    model, images = build(in_shape, learned=learned), torch.rand(4, *in_shape, dtype=torch.float64)
    torch.testing.assert_close(model(images).detach(), by_definition(model, images), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("learned", [None, 3], ids=["pixels", "learned"])
@pytest.mark.parametrize(
    ("in_shape", "stride", "grid"),
    [((1, 8, 12), 2, (3, 5)), ((2, 7, 8), 1, (4, 5)), ((1, 4, 10), 3, (1, 3))],
    ids=["half", "one", "strip"],
)
def test_overlapping_patches_are_those_of_the_definition(in_shape, stride, grid, learned):
    model, images = build(in_shape, stride=stride, learned=learned), torch.rand(4, *in_shape, dtype=torch.float64)
    assert model.grid == grid
    torch.testing.assert_close(model(images).detach(), by_definition(model, images), rtol=1e-11, atol=1e-12)


def test_learned_combinations_are_a_convolution():
    model, images = build((2, 6, 8), stride=2, learned=3), torch.rand(4, 2, 6, 8, dtype=torch.float64)
    kernel = model.feature_map.weight.view(3, 2, 4, 4)
    channels = torch.nn.functional.conv2d(images, kernel, stride=2).flatten(2)  # (images, 3, places)
    phi = model.features(images)
    torch.testing.assert_close(phi[:, 1:], channels.permute(2, 1, 0)[model.order])
    torch.testing.assert_close(phi[:, 0], torch.ones_like(phi[:, 0]))


def test_a_pixel_of_several_patches_has_a_higher_degree():
    torch.manual_seed(0)
    model = PatchMPS(in_shape=(3, 3), num_classes=1, patch=2, stride=1, bond_dim=3, noise=2.0).double()
    steps = torch.arange(6, dtype=torch.float64)
    middle, corner = torch.zeros(2, 6, 3, 3, dtype=torch.float64)
    middle[:, 1, 1], corner[:, 0, 0] = steps, steps  # of four patches, and of one
    differences = [model(images)[:, 0].detach() for images in (middle, corner)]
    for _ in range(2):
        differences = [one.diff() for one in differences]
    assert differences[0].abs().max() > 1e-3
    torch.testing.assert_close(differences[1], torch.zeros_like(differences[1]), atol=1e-10, rtol=0)
    for _ in range(3):
        differences = [one.diff() for one in differences]
    torch.testing.assert_close(differences[0], torch.zeros_like(differences[0]), atol=1e-10, rtol=0)


def test_patches_of_one_pixel_are_the_chain_of_pixels():
    pixels = MPSClassifier(in_shape=(4, 6), num_classes=3, bond_dim=4, order="hilbert").double()
    patches = PatchMPS(in_shape=(4, 6), num_classes=3, patch=1, bond_dim=4, order="hilbert").double()
    patches.load_tensors(pixels.sites(), pixels.centre)
    images = torch.rand(3, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(patches(images), pixels(images))


def test_a_large_image_starts_finite_and_gradients_reach_everything():
    torch.manual_seed(0)
    model = PatchMPS(in_shape=(3, 64, 64), num_classes=10, patch=4, bond_dim=8, learned=6)
    model(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert all(one.grad.isfinite().all() and one.grad.any() for one in model.parameters())


def test_weights_survive_a_state_dict_with_other_bonds():
    model, images = build(bond_dim=6, learned=4), torch.rand(3, 1, 8, 12, dtype=torch.float64)
    other = build(bond_dim=2, learned=4)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(images), other(images))


def test_probes_are_bonds_between_patches():
    model, seen = build(probes=[2]), []
    model.bonds["2"].register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = torch.rand(3, 1, 8, 12, dtype=torch.float64)
    model(images)
    assert [tuple(one.shape) for one in seen] == [(3, 5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 3}, r"^patches of patch=3 with stride=3 must fill images .* got in_shape=\(1, 8, 12\)$"),
        ({"stride": 3}, r"patch=4 with stride=3 must fill .* \(side - patch\) a multiple of stride; got"),
        ({"patch": 9}, "patch=9 with stride=9 must fill"),
        ({"in_shape": (12,)}, r"patch=4 with stride=4 must fill .* got in_shape=\(12,\)"),
        ({"patch": 0}, "patch must be an integer >= 1, got 0"),
        ({"stride": 0}, r"stride must be an integer in 1\.\.4, got 0"),
        ({"stride": 5}, r"stride must be an integer in 1\.\.4, got 5"),
        ({"learned": 0}, "learned must be an integer >= 1, got 0"),
        ({"order": "mutual_information"}, "order must be one of raster, snake, hilbert, got 'mutual_information'"),
    ],
    ids=[
        *("indivisible", "indivisible steps", "larger than the image", "vector", "patch", "no step", "gaps"),
        *("learned", "order"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_images_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"in_shape=\(1, 8, 12\), got inputs of shape \(1, 12, 8\)"):
        build()(torch.rand(2, 1, 12, 8, dtype=torch.float64))


def test_a_configuration_needs_only_the_sizes_of_the_data():
    assert not validate.mistakes(config.compose("student=patch_mps"), config.packaged_targets())
