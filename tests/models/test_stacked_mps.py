"""Two matrix product states, one after the other: exact polynomials, the start near the copies, and training."""

import copy
import inspect
import re
from itertools import product
from math import prod
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from kdzoo.errors import ConfigError
from kdzoo.models import MPS, StackedMPS
from kdzoo.tensor_networks.orders import site_order
from kdzoo.tensor_networks.polynomial import copying_layer

FILE = Path(__file__).parents[2] / "conf" / "student" / "stacked_mps.yaml"


def whole_numbers(*shape):
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(0))


def value(coefficients, x):
    return [
        sum(c[o] * prod(xi**k for xi, k in zip(x, one, strict=True)) for one, c in coefficients.items()) for o in (0, 1)
    ]


@pytest.mark.parametrize(("n", "z"), [(1, 1), (1, 4), (2, 2), (3, 2), (2, 3)])
def test_a_polynomial_is_exact(n, z):
    exponents = list(product(range(z + 1), repeat=n))
    numbers = torch.randint(-9, 10, (len(exponents), 2), generator=torch.Generator().manual_seed(1)).tolist()
    coefficients = dict(zip(exponents, numbers, strict=True))
    model = StackedMPS.from_polynomial(coefficients)
    points = whole_numbers(30, n)
    with torch.no_grad():
        found = model(points.double())
    assert found.tolist() == [value(coefficients, point) for point in points.tolist()]


def test_a_constant_is_a_polynomial():
    model = StackedMPS.from_polynomial({(0, 0): 3})
    assert model(torch.randn(2, 2).double()).flatten().tolist() == [3.0, 3.0]


def test_a_polynomial_can_be_trained_further():
    model = StackedMPS.from_polynomial({(2, 0): 1, (0, 1): 1}, engine="sweep")
    model(torch.randn(4, 2).double()).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_layers_are_one_chain_each():
    """The copies plus what the first layer adds are a chain: the direct sum of the copying layer and `first`."""
    torch.manual_seed(0)
    model = StackedMPS(in_shape=(5,), num_classes=3, copies=2, hidden_bond_dim=2).double()
    sites, centre, m = copying_layer(5, 2)
    own, own_centre = model.first.sites(), model.first.centre.detach()

    def beside(one, other):
        """Block matrices of cores (left, d, right) of two chains; the ends are shared."""
        left = 1 if one.shape[0] == other.shape[0] == 1 else one.shape[0] + other.shape[0]
        right = 1 if one.shape[2] == other.shape[2] == 1 else one.shape[2] + other.shape[2]
        both = torch.zeros(left, one.shape[1], right, dtype=torch.float64)
        both[: one.shape[0], :, : one.shape[2]] += one
        both[left - other.shape[0] :, :, right - other.shape[2] :] += other
        return both

    whole = MPS(5, 10, 1).double()
    assert whole.out_site == m
    whole.load_tensors([beside(*pair) for pair in zip(sites, own, strict=True)], beside(centre, own_centre))
    x, seen = torch.randn(6, 5, dtype=torch.float64), []
    model.copied.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        model(x)
        torch.testing.assert_close(whole(x), seen[0])


def test_the_start_is_near_the_copies():
    torch.manual_seed(0)
    model, seen = StackedMPS(in_shape=(1, 8, 8), num_classes=10), []
    model.copied.register_forward_hook(lambda *args: seen.append(args[2]))
    x = torch.rand(20, 1, 8, 8)
    out = model(x)
    copies = x.flatten(1)[:, site_order("snake", (1, 8, 8))].repeat_interleave(2, 1)
    difference = (seen[0].detach() - copies).square().mean().sqrt()
    assert 0 < float(difference) < 0.15
    assert out.isfinite().all()


def test_without_noise_it_starts_with_the_copies():
    model, seen = StackedMPS(in_shape=(6,), num_classes=2, noise=0.0), []
    model.copied.register_forward_hook(lambda *args: seen.append(args[2]))
    x = torch.randn(3, 6)
    model(x)
    assert torch.equal(seen[0], x.repeat_interleave(2, 1))


def test_it_learns_a_square_that_a_single_layer_cannot():
    torch.manual_seed(0)
    x = torch.rand(400, 3) * 2 - 1
    target = x[:, :1] ** 2
    errors = {}
    for name, model in (
        ("stacked", StackedMPS(in_shape=(3,), num_classes=1, bond_dim=2, hidden_bond_dim=2)),
        ("single", MPS(3, 1, 2)),
    ):
        optimizer = torch.optim.Adam(model.parameters(), 0.03)
        for _ in range(300):
            optimizer.zero_grad()
            loss = (model(x) - target).square().mean()
            loss.backward()
            optimizer.step()
        errors[name] = loss.item() / float(target.var())
    assert errors["stacked"] < 0.02
    assert errors["single"] > 0.9


def test_gradients_are_exact():
    torch.manual_seed(0)
    model = StackedMPS(in_shape=(3,), num_classes=2, bond_dim=2, hidden_bond_dim=2, engine="sweep").double()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (x,))


def test_weights_survive_a_state_dict_of_other_bonds():
    model = StackedMPS.from_polynomial({(2, 1): 2, (0, 1): -1})
    twin = StackedMPS(in_shape=(2,), num_classes=1, copies=2, bond_dim=1, hidden_bond_dim=1, order="raster").double()
    twin.load_state_dict(copy.deepcopy(model.state_dict()))
    rebuilt = StackedMPS(in_shape=(2,), num_classes=1, copies=2, order="raster", **model.learned_sizes).double()
    rebuilt.load_state_dict(model.state_dict())
    x = torch.randn(4, 2, dtype=torch.float64)
    assert torch.equal(twin(x), model(x))
    assert torch.equal(rebuilt(x), model(x))


REFUSED = {
    "core": ({"in_shape": (3, 64, 64), "hidden_bond_dim": 64}, "need an output core of 100663296 numbers; allowed are"),
    "copies": ({"copies": 0}, "copies must be an integer >= 1, got 0"),
    "order": ({"order": "spiral"}, "order must be one of raster, snake, hilbert, got 'spiral'"),
    "information": ({"order": "mutual_information"}, "order must be one of raster, snake, hilbert"),
    "classes": ({"num_classes": 0}, "num_classes must be an integer >= 1, got 0"),
}


@pytest.mark.parametrize(("options", "line"), REFUSED.values(), ids=REFUSED)
def test_unfit_arguments_are_refused(options, line):
    with pytest.raises(ConfigError, match=re.escape(line)):
        StackedMPS(**({"in_shape": (1, 4, 4), "num_classes": 3} | options))


def test_no_polynomial_is_refused():
    with pytest.raises(ConfigError):
        StackedMPS.from_polynomial({})


def test_the_packaged_file_says_what_the_signature_says():
    config = OmegaConf.to_container(OmegaConf.load(FILE))
    assert config.pop("_target_") == "kdzoo.models.StackedMPS"
    signature = inspect.signature(StackedMPS).parameters
    assert config == {n: p.default for n, p in signature.items() if n not in ("in_shape", "num_classes")}
    assert all("  # " in line for line in FILE.read_text().splitlines()[2:])
