"""Matrix product states of images and vectors: the order of the sites, and the packaged files."""

import re
from pathlib import Path

import pytest
import torch

from kdzoo.config import signatures
from kdzoo.config.instantiate import parameters
from kdzoo.errors import ConfigError
from kdzoo.models import MPSClassifier, PatchMPS
from kdzoo.tensor_networks.orders import mutual_information_order, site_order
from tests.models.chains import dense
from tests.models.packaged import packaged

CONF = Path(__file__).parents[2] / "conf"
FILES = {"teacher/mps": MPSClassifier, "student/mps": MPSClassifier, "student/patch_mps": PatchMPS}


@pytest.mark.parametrize("order", ["raster", "snake", "hilbert", "mutual_information"])
def test_images_in_any_order(order):
    torch.manual_seed(0)
    model = MPSClassifier(in_shape=(1, 4, 4), num_classes=3, bond_dim=4, order=order).double()
    x = torch.rand(50, 1, 4, 4, dtype=torch.float64)
    model.calibrate(x)
    assert torch.allclose(model(x), dense(model, x.flatten(1)), rtol=1e-12)


@pytest.mark.parametrize("order", ["raster", "snake", "hilbert"])
def test_the_order_follows_from_the_shape(order):
    model = MPSClassifier(in_shape=(2, 4, 4), num_classes=3, bond_dim=2, order=order)
    before = model.order.clone()
    assert torch.equal(before, site_order(order, (2, 4, 4)))
    model.calibrate(torch.rand(9, 2, 4, 4))
    assert torch.equal(model.order, before)


def test_mutual_information_reorders_the_sites_by_the_training_data():
    torch.manual_seed(0)
    walk = torch.randn(500, 8).cumsum(1)[:, torch.randperm(8)]
    model = MPSClassifier(in_shape=(8,), num_classes=2, bond_dim=2, order="mutual_information")
    model.calibrate(walk)
    assert torch.equal(model.order, mutual_information_order(walk))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"order": "spiral"}, "order must be one of raster, snake, hilbert, mutual_information, got 'spiral'"),
        ({"num_classes": 0}, "num_classes must be an integer >= 1, got 0"),
        ({"feature_map": "fourier"}, "feature_map must be one of"),
        ({"out_site": 17}, "out_site must be an integer in 0..16, got 17"),
    ],
)
def test_bad_arguments_are_refused(options, line):
    with pytest.raises(ConfigError, match=re.escape(line)):
        MPSClassifier(**{"in_shape": (1, 4, 4), "num_classes": 3, **options})


@pytest.mark.parametrize("name", FILES)
def test_packaged_files_list_every_argument_with_its_default(name):
    node = packaged(*name.split("/"))
    target = node.pop("_target_")
    expected = {key: p.default for key, p in parameters(FILES[name]).items() if key not in ("in_shape", "num_classes")}
    assert node == {key: list(value) if isinstance(value, tuple) else value for key, value in expected.items()}
    assert set(signatures.describe(target).parameters) == set(parameters(FILES[name]))
