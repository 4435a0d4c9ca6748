"""Matrix product states of patches: which numbers a site sees, what they become, and how the chain starts."""

import pytest
import torch

from kdzoo import config, mistakes
from kdzoo.errors import ConfigError, DataError
from kdzoo.models import MPSClassifier, PatchMPS
from kdzoo.tensor_networks import site_order


def build(in_shape=(1, 8, 12), **options):
    torch.manual_seed(0)
    return PatchMPS(in_shape=in_shape, num_classes=3, **{"patch": 4, "bond_dim": 5, "noise": 1.0, **options}).double()


def by_definition(model, images):
    """One image, one patch and one number at a time."""
    side, outputs = model.patch, []
    height, width = images.shape[2:]
    corners = [(i, j) for i in range(0, height, side) for j in range(0, width, side)]
    walk = [corners[k] for k in site_order("snake", (height // side, width // side))]
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
        ({"patch": 3}, r"patch=3 must divide height and width .* got in_shape=\(1, 8, 12\)"),
        ({"in_shape": (12,)}, r"patch=4 must divide .* got in_shape=\(12,\)"),
        ({"patch": 0}, "patch must be an integer >= 1, got 0"),
        ({"learned": 0}, "learned must be an integer >= 1, got 0"),
        ({"order": "mutual_information"}, "order must be one of raster, snake, hilbert, got 'mutual_information'"),
    ],
    ids=["indivisible", "vector", "patch", "learned", "order"],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_images_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"in_shape=\(1, 8, 12\), got inputs of shape \(1, 12, 8\)"):
        build()(torch.rand(2, 1, 12, 8, dtype=torch.float64))


def test_a_configuration_needs_only_the_sizes_of_the_data():
    assert not mistakes.in_settings(config.compose("student=patch_mps"), config.packaged_targets())
