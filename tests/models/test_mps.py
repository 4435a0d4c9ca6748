"""Matrix product states of vectors: outputs for every option, and refused arguments."""

import pytest
import torch

from kdzoo.errors import ConfigError, DataError
from kdzoo.models import MPS
from kdzoo.tensor_networks import FEATURE_MAPS
from tests.models.chains import dense


@pytest.mark.parametrize("feature_map", FEATURE_MAPS)
@pytest.mark.parametrize("out_site", [0, 1, 4, 7])
@pytest.mark.parametrize("boundary", ["open", "periodic"])
def test_outputs_are_the_sum_over_all_bonds(feature_map, out_site, boundary):
    torch.manual_seed(0)
    options = {"feature_map": feature_map, "degree": 2, "out_site": out_site, "boundary": boundary, "noise": 3.0}
    model = MPS(7, 3, 4, order=torch.randperm(7), **options).double()
    x = torch.rand(5, 7, dtype=torch.float64)
    assert torch.allclose(model(x), dense(model, x), rtol=1e-12)


def test_bad_arguments_are_refused():
    for options, message in (
        ({"bond_dim": 0}, "bond_dim"),
        ({"out_site": 9}, "out_site"),
        ({"boundary": "closed"}, "boundary"),
        ({"order": [0, 1, 1, 2]}, "order must hold each of 0..3 once"),
        ({"probes": [4]}, "probes"),
        ({"probes": [1], "boundary": "periodic"}, "probes need boundary='open'"),
        ({"engine": "gpu"}, "engine"),
        ({"noise": -1.0}, "noise"),
    ):
        with pytest.raises(ConfigError, match=message):
            MPS(4, 2, **{"bond_dim": 2, **options})
    with pytest.raises(DataError, match="n_sites=4, got inputs of 5 numbers"):
        MPS(4, 2, 2)(torch.rand(3, 5))


def test_sites_follow_the_given_order():
    torch.manual_seed(0)
    order = [2, 0, 3, 1]
    model, plain = MPS(4, 2, 2, order=order, noise=3.0).double(), MPS(4, 2, 2).double()
    plain.load_tensors(model.sites(), model.centre)
    x = torch.rand(5, 4, dtype=torch.float64)
    torch.testing.assert_close(model(x), plain(x[:, order]))
