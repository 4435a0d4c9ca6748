"""What is computed from the tensors of a chain: inner products, canonical form, truncation, polynomial, refusals."""

import copy
import re
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError, DataError, NonFiniteLossError
from kdzoo.models import MLP, MPS, MPSClassifier, PatchMPS
from kdzoo.tensor_networks import network
from kdzoo.tensor_networks.chain_module import check_open_chain
from kdzoo.tensor_networks.features import gram_matrices
from kdzoo.tensor_networks.network import reference_outputs


def points(n, atoms=3, seed=1):
    """Equally likely numbers ``[sites, atoms]`` of every site, and all their combinations ``[sites, atoms^n]``."""
    marginals = torch.rand(n, atoms, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    index = torch.tensor(list(product(range(atoms), repeat=n))).T
    return marginals, marginals.gather(1, index)


def powers(x, d=2):
    return torch.stack([x**k for k in range(d)], 1)


def test_only_open_chains_pass_the_check():
    chain = MPS(4, 3, 2)
    assert check_open_chain(chain) is chain
    with pytest.raises(ConfigError, match=r"^student must be a matrix product state \(kdzoo.models.MPS\), got MLP$"):
        check_open_chain(MLP(in_shape=(4,), num_classes=3))
    with pytest.raises(ConfigError, match=r"^teacher must be a matrix product state .*, got Linear$"):
        check_open_chain(nn.Linear(4, 3), "teacher")
    with pytest.raises(ConfigError, match=r"^student must have boundary='open', got 'periodic'$"):
        check_open_chain(MPS(4, 3, 2, boundary="periodic"))


def test_one_value_for_each_site_makes_an_image():
    assert MPSClassifier(in_shape=(3, 4, 5), num_classes=2, bond_dim=1).site_grid((3, 4, 5)) == (3, 4, 5)
    assert PatchMPS(in_shape=(3, 4, 6), num_classes=2, patch=2, bond_dim=1).site_grid((3, 4, 6)) == (1, 2, 3)


def model(**options):
    torch.manual_seed(0)
    return MPS(9, 3, 4, noise=3.0, **options).double()


@pytest.mark.parametrize("out_site", [0, 4, 9])
@pytest.mark.parametrize("boundary", ["open", "periodic"])
def test_the_model_is_the_reference(out_site, boundary):
    chained, x = model(out_site=out_site, boundary=boundary), torch.rand(6, 9).double()
    phi = chained.feature_map(x.T)
    expected = reference_outputs(chained.sites(), chained.centre.detach(), out_site, phi)
    torch.testing.assert_close(chained(x).detach(), expected, rtol=1e-12, atol=1e-12)
    assert len(chained.to_tensornetwork()) == 10
    for one, other in zip(chained.chain().sites, chained.sites(), strict=True):
        assert torch.equal(one.detach(), other)


def test_the_model_becomes_canonical_in_place():
    chained, x = model(), torch.rand(6, 9).double()
    before = chained(x).detach()
    chained.canonicalize()
    assert (chained(x) - before).abs().max() <= 1e-12 * before.abs().max()
    core = chained.sites()[0]
    torch.testing.assert_close(torch.einsum("lkr,lks->rs", core, core), torch.eye(core.shape[2]).double())


def test_a_failed_decomposition_leaves_the_model(monkeypatch):
    chained = model()
    before = {name: value.clone() for name, value in chained.state_dict().items()}

    def fail(*_, **__):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(network._library(), "split_node_full_svd", fail)
    with pytest.raises(NonFiniteLossError, match="SVD did not converge"):
        chained.truncate(bond_dim=2)
    monkeypatch.setattr(np.linalg, "qr", fail)
    with pytest.raises(NonFiniteLossError, match="SVD did not converge"):
        chained.canonicalize()
    assert all(torch.equal(value, before[name]) for name, value in chained.state_dict().items())


def test_what_single_precision_cannot_hold_is_refused():
    chained = MPS(800, 2, 2, feature_map="cos_sin", degree=2)
    before = chained.centre.detach().clone()
    with pytest.raises(
        NonFiniteLossError, match=r"not changed: a tensor would hold .* beyond the largest torch.float32"
    ):
        chained.canonicalize()
    assert torch.equal(chained.centre.detach(), before)


# ---------------------------------------------------------------- inner products, truncation


def test_the_models_inner_product_is_that_of_independent_inputs():
    torch.manual_seed(0)
    one = MPS(3, 2, 3, noise=3.0, order=[2, 0, 1]).double()
    other = MPS(3, 2, 2, noise=3.0, order=[2, 0, 1], feature_map="legendre", degree=2, out_site=0).double()
    marginals, x = points(3)
    expected = (one(x.T) * other(x.T)).sum(1).mean()
    assert float(one.inner(other, marginals.T).detach()) == pytest.approx(float(expected.detach()), rel=1e-11)
    one.inner(other, marginals.T).backward()
    assert all(bool(parameter.grad.any()) for model in (one, other) for parameter in model.parameters())


def test_without_inputs_it_is_that_of_the_coefficients():
    one = MPS(3, 2, 3, noise=3.0).double()
    whole = torch.stack(
        [
            reference_outputs(*one.chain(), torch.eye(2).double()[list(index)][..., None])[0]
            for index in product(range(2), repeat=3)
        ]
    )
    assert float(one.inner(one).detach()) == pytest.approx(float(whole.square().sum().detach()), rel=1e-12)


def test_models_of_other_orders_have_none():
    with pytest.raises(ConfigError, match="the same order of sites, got two orders"):
        MPS(3, 2, 2).inner(MPS(3, 2, 2, order=[1, 0, 2]))


UNFIT = {
    "sites": (MPS(3, 2, 2), MPS(4, 2, 2), "got 3 sites with 2 outputs and 4 sites with 2 outputs"),
    "outputs": (MPS(3, 2, 2), MPS(3, 4, 2), "got 3 sites with 2 outputs and 3 sites with 4 outputs"),
    "periodic": (MPS(3, 2, 2), MPS(3, 2, 2, boundary="periodic"), "an inner product needs boundary='open'"),
}


OTHER_FEATURES = {
    "number": (
        MPS(3, 2, 2),
        MPS(3, 2, 2, degree=2),
        "got Polynomial with 2 features .* and Polynomial with 3 features",
    ),
    "map": (
        MPS(3, 2, 2),
        MPS(3, 2, 2, feature_map="legendre"),
        r"and Legendre with 2 features of numbers in \[0.0, 1.0",
    ),
    "domain": (
        MPS(3, 2, 2, feature_map="legendre", domain=[0.0, 1.0]),
        MPS(3, 2, 2, feature_map="legendre", domain=[-1.0, 1.0]),
        r"numbers in \[0.0, 1.0\] and Legendre with 2 features of numbers in \[-1.0, 1.0\]",
    ),
}


@pytest.mark.parametrize("inputs", [None, torch.rand(5, 3)], ids=["coefficients", "inputs"])
@pytest.mark.parametrize(("one", "other", "line"), UNFIT.values(), ids=UNFIT)
def test_models_that_do_not_fit_have_none(one, other, line, inputs):
    with pytest.raises(ConfigError, match=line):
        one.inner(other, inputs)


@pytest.mark.parametrize(("one", "other", "line"), OTHER_FEATURES.values(), ids=OTHER_FEATURES)
def test_coefficients_of_other_features_have_none(one, other, line):
    with pytest.raises(ConfigError, match=f"without inputs needs chains with the same feature map, .*{line}"):
        one.inner(other)
    assert one.inner(other, torch.rand(5, 3)).isfinite()


def test_many_samples_are_measured_in_parts():
    chained, x = MPS(3, 2, 2).double(), torch.rand(5000, 3).double()
    torch.testing.assert_close(chained.grams(x), gram_matrices(powers(x.T)), rtol=1e-12, atol=1e-12)


def test_the_model_is_truncated_in_place():
    torch.manual_seed(0)
    model, x = (
        MPSClassifier(in_shape=(1, 4, 4), num_classes=3, bond_dim=8, noise=3.0).double(),
        torch.rand(300, 1, 4, 4),
    )
    before = model(x.double()).detach()
    weights = sum(parameter.numel() for parameter in model.parameters())
    error = model.truncate(max_error=0.05, inputs=x.double())
    assert 0 < error <= 0.05
    assert sum(parameter.numel() for parameter in model.parameters()) < weights
    assert float((model(x.double()).detach() - before).norm() / before.norm()) <= 0.1
    again = MPSClassifier(in_shape=(1, 4, 4), num_classes=3, **model.learned_sizes).double()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x.double()), model(x.double()))


def test_the_model_keeps_what_matters_for_its_inputs_as_they_are():
    torch.manual_seed(0)
    base = torch.rand(400, 1, dtype=torch.float64)
    x = base + 0.02 * (torch.rand(400, 8, dtype=torch.float64) - 0.5)  # all inputs are nearly one
    model = MPS(8, 3, 8, noise=3.0).double()
    before, found = model(x).detach(), {}
    for method in ("product", "balanced"):
        smaller = copy.deepcopy(model)
        error = smaller.truncate(bond_dim=2, inputs=x, method=method)
        found[method] = float((smaller(x).detach() - before).norm() / before.norm())
        assert int(smaller.dims.max()) == 2
    assert error == pytest.approx(found["balanced"], rel=1e-6)
    assert found["balanced"] < 0.5 * found["product"]


def test_a_balanced_truncation_that_fails_changes_nothing():
    model = MPS(6, 3, 4, engine="autograd")
    with torch.no_grad():
        model.centre[0] = torch.nan
    before = model.cores
    with pytest.raises(NonFiniteLossError, match="nothing was changed"):
        model.truncate(bond_dim=2, inputs=torch.rand(9, 6), method="balanced")
    assert model.cores is before


@pytest.mark.parametrize(
    "changes", [{"bond_dim": None}, {"inputs": None}, {"max_error": 0.1}], ids=["no-bond", "no-inputs", "error"]
)
def test_balanced_needs_inputs_and_a_bond(changes):
    with pytest.raises(ConfigError, match="method='balanced' needs inputs and bond_dim, and has no max_error; got"):
        MPS(4, 2, 2).truncate(**{"bond_dim": 1, "inputs": torch.rand(5, 4), "method": "balanced", **changes})


LIMITS = {
    "method": ({"bond_dim": 1, "method": "plain"}, "method must be one of product, balanced, got 'plain'"),
    "no-limit": ({}, "truncate needs a limit: bond_dim, max_error or both; got None for both"),
    "bond": ({"bond_dim": 0}, "bond_dim must be an integer >= 1, got 0"),
    "error": ({"max_error": 1.0}, "max_error must be in [0, 1), got 1.0"),
}


@pytest.mark.parametrize(("limits", "line"), LIMITS.values(), ids=LIMITS)
def test_limits_are_checked(limits, line):
    with pytest.raises(ConfigError, match=re.escape(line)):
        MPS(4, 2, 2).truncate(**limits)


def test_a_frozen_chain_stays_frozen():
    model = MPS(8, 3, 4).requires_grad_(False)
    model.truncate(bond_dim=2)
    assert int(model.dims.max()) == 2
    assert not any(one.requires_grad for one in model.parameters())


INPUTS = {
    "none": (torch.rand(0, 6), r"inputs must hold at least one sample, got shape \(0, 6\)"),
    "nan": (torch.full((4, 6), torch.nan), "inputs must be finite"),
    "infinite": (torch.full((4, 6), torch.inf), "inputs must be finite"),
    "sites": (torch.rand(4, 5), "n_sites=6, got inputs of 5 numbers"),
    "domain": (torch.rand(4, 6) + 1, r"takes inputs in \[0, 1\]"),
}


@pytest.mark.parametrize(("inputs", "line"), INPUTS.values(), ids=INPUTS)
def test_inputs_that_measure_nothing_are_refused(inputs, line):
    model = MPS(6, 3, 4, feature_map="legendre")
    before = copy.deepcopy(model.state_dict())
    for act in (
        lambda: model.truncate(bond_dim=2, inputs=inputs),
        lambda: model.truncate(bond_dim=2, inputs=inputs, method="balanced"),
        lambda: model.inner(MPS(6, 3, 2, feature_map="legendre"), inputs),
    ):
        with pytest.raises(DataError, match=line):
            act()
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


# ---------------------------------------------------------------- as a polynomial


def test_the_polynomial_of_a_model_is_in_the_order_of_its_input():
    torch.manual_seed(0)
    model = MPS(4, 2, 3, degree=2, order=[2, 0, 3, 1], noise=3.0, engine="sweep").double()
    x = torch.randn(5, 4, dtype=torch.float64)
    expected = sum(
        c * torch.stack([x[:, i] ** k for i, k in enumerate(one)]).prod(0)[:, None]
        for one, c in model.to_polynomial().items()
    )
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"feature_map": "cos_sin"}, "to_polynomial needs feature_map='polynomial', got CosSin"),
        ({"boundary": "periodic"}, "a polynomial needs boundary='open', got ends that share a bond of dimension 2"),
    ],
    ids=["features", "periodic"],
)
def test_a_model_that_is_not_a_polynomial_is_refused(options, line):
    with pytest.raises(ConfigError, match=f"^{re.escape(line)}$"):
        MPS(4, 2, 2, **options).to_polynomial()
