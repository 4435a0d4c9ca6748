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
from kdzoo.tensor_networks.polynomial import copy_layer

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


def by_brute_force(model, n, copies):
    """Exponents -> coefficients of whole numbers: a sum over all products of copies, multiplied out one by one."""

    def times(one, other):
        found = {}
        for (a, x), (b, y) in product(one.items(), other.items()):
            key = tuple(i + j for i, j in zip(a, b, strict=True))
            found[key] = found.get(key, 0) + x * y
        return found

    def coefficients(chain):
        """Subset of the sites -> a whole number for each output, by products of matrices."""
        sites, centre, m = chain.sites(), chain.centre.detach(), chain.out_site
        for subset in product((0, 1), repeat=len(sites)):
            matrices = [core[:, k] for core, k in zip(sites, subset, strict=True)]
            left = right = torch.eye(1, dtype=torch.float64)
            for matrix in matrices[:m]:
                left = left @ matrix
            for matrix in reversed(matrices[m:]):
                right = matrix @ right
            yield subset, [int(v) for v in torch.einsum("al,lor,rb->o", left, centre, right)]

    numbers = [{tuple(int(i == k // copies) for i in range(n)): 1} for k in range(n * copies)]
    for subset, values in coefficients(model.first):
        for number, value in zip(numbers, values, strict=True):
            number[subset] = number.get(subset, 0) + value
    whole = {}
    for subset, values in coefficients(model.second):
        term = {(0,) * n: 1}
        for k in [k for k, taken in enumerate(subset) if taken]:
            term = times(term, numbers[k])
        for key, x in term.items():
            whole[key] = [v + x * value for v, value in zip(whole.get(key, [0] * len(values)), values, strict=True)]
    return {key: values for key, values in whole.items() if any(values)}


@pytest.mark.filterwarnings("ignore:bond_dim=2 is more than")
@pytest.mark.parametrize(("n", "copies"), [(1, 1), (1, 3), (2, 2), (3, 1), (3, 2)])
def test_the_polynomial_of_a_stack_is_that_of_its_products(n, copies):
    model = StackedMPS(in_shape=(n,), num_classes=2, copies=copies, bond_dim=2, hidden_bond_dim=2).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape, generator=generator))
    found = {key: value.tolist() for key, value in model.to_polynomial().items()}
    assert found == by_brute_force(model, n, copies)
    assert max(max(key) for key in found) > copies or n == 1  # more than copies of the inputs alone could be


@pytest.mark.parametrize(("in_shape", "copies"), [((2,), 3), ((2, 2), 1), ((2, 2), 2)])
def test_the_polynomial_of_a_stack_is_the_stack(in_shape, copies):
    torch.manual_seed(0)
    model = StackedMPS(in_shape=in_shape, num_classes=3, copies=copies, bond_dim=3, hidden_bond_dim=2, noise=3.0)
    model.double()
    x = torch.rand(8, *in_shape, dtype=torch.float64) * 2 - 1
    terms = [
        c * torch.stack([x.flatten(1)[:, i] ** k for i, k in enumerate(one)]).prod(0)[:, None]
        for one, c in model.to_polynomial().items()
    ]
    size = float(torch.stack(terms).abs().sum(0).max())  # terms may cancel
    with torch.no_grad():
        torch.testing.assert_close(model(x), torch.stack(terms).sum(0), rtol=0, atol=1e-13 * size)


@pytest.mark.parametrize(("n", "z"), [(1, 4), (2, 3), (3, 2), (8, 2)])
def test_a_polynomial_comes_back(n, z):
    """With 8 inputs a trained stack would be too large; copies alone have powers up to z only."""
    generator = torch.Generator().manual_seed(2)
    exponents = {tuple(torch.randint(0, z + 1, (n,), generator=generator).tolist()) for _ in range(12)} | {(z,) * n}
    coefficients = {one: [i + 1, -i] for i, one in enumerate(sorted(exponents))}
    found = StackedMPS.from_polynomial(coefficients).to_polynomial()
    assert {one: value.tolist() for one, value in found.items()} == coefficients


def test_a_large_stack_has_no_polynomial():
    model = StackedMPS(in_shape=(5,), num_classes=2, copies=2)
    with pytest.raises(ConfigError, match=r"10 sites, .* 5 inputs, .* up to 1.61e\+05 monomials; .* allows 65536"):
        model.to_polynomial()
    with pytest.raises(ConfigError, match=r"64 sites .* up to 1.84e\+19 monomials; .* allows 65536"):
        StackedMPS(in_shape=(1, 8, 8), num_classes=2).to_polynomial()


def test_the_layers_are_one_chain_each():
    """The copies plus what the first layer adds are a chain: the direct sum of the copying layer and `first`."""
    torch.manual_seed(0)
    model = StackedMPS(in_shape=(5,), num_classes=3, copies=2, hidden_bond_dim=2).double()
    sites, centre, m = copy_layer(5, 2)
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
