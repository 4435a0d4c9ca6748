"""The library behind one module: the definition against a sum over all indices, canonical forms, spectra, splits."""

import re
from itertools import pairwise, product

import numpy as np
import pytest
import tensornetwork
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.tensor_networks.network import as_nodes, canonical_form, reference_outputs, spectra, split_svd, tensor_row


def chain(bonds, out_site, d=2, outputs=3, seed=0):
    """Random cores around an output core; ``bonds`` are those of the row of tensors, the ends among them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [
        torch.randn(n_in, outputs if i == out_site else d, n_out, generator=generator, dtype=torch.float64)
        for i, (n_in, n_out) in enumerate(pairwise(bonds))
    ]
    centre = tensors.pop(out_site)
    return tensors, centre, out_site


def coefficients(sites, centre, out_site):
    """All coefficients (outputs, feature of site 0, ...), one product of matrices each."""
    legs = [core.shape[1] for core in sites]
    whole = torch.zeros(centre.shape[1], *legs, dtype=torch.float64)
    for o in range(centre.shape[1]):
        for index in product(*map(range, legs)):
            matrices = [core[:, k] for core, k in zip(sites, index, strict=True)]
            matrices.insert(out_site, centre[:, o])
            whole[o][index] = torch.linalg.multi_dot(matrices).trace()
    return whole


def values(sites, centre, out_site, phi):
    """Outputs (samples, outputs) as the sum over all coefficients."""
    found = coefficients(sites, centre, out_site)
    rows = []
    for sample in phi.unbind(2):
        left = found
        for numbers in sample.flip(0):
            left = left @ numbers
        rows.append(left)
    return torch.stack(rows)


def features(n, d=2, samples=5, seed=1):
    return torch.randn(n, d, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SHAPES = {
    "output-first": ([1, 2, 3, 2, 1], 0),
    "output-inside": ([1, 3, 2, 4, 1], 2),
    "output-last": ([1, 2, 4, 3, 1], 3),
    "periodic": ([3, 2, 4, 2, 3], 1),
    "periodic-output-first": ([2, 2, 4, 3, 2], 0),
}


@pytest.mark.parametrize(("bonds", "out_site"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("d", [2, 3])
def test_reference_is_the_sum_over_all_indices(bonds, out_site, d):
    tensors, phi = chain(bonds, out_site, d), features(3, d)
    expected = values(*tensors, phi)
    torch.testing.assert_close(reference_outputs(*tensors, phi), expected, rtol=1e-12, atol=1e-12)


def test_reference_can_be_differentiated():
    sites, centre, m = chain([1, 2, 3, 1], 1)
    tensors = [one.requires_grad_() for one in (*sites, centre, features(2, samples=2))]
    assert torch.autograd.gradcheck(lambda a, b, c, phi: reference_outputs([a, b], c, m, phi), tensors)


@pytest.mark.parametrize(("bonds", "out_site"), SHAPES.values(), ids=SHAPES)
def test_nodes_contract_to_all_coefficients(bonds, out_site):
    tensors = chain(bonds, out_site)
    made = as_nodes(*tensors)
    names = ["site 0", "site 1", "site 2"]
    assert [node.name for node in made] == [*names[:out_site], "output", *names[out_site:]]
    dangling = [node["output" if node.name == "output" else "feature"] for node in made]
    whole = tensornetwork.contractors.optimal(made, output_edge_order=dangling).tensor
    torch.testing.assert_close(whole.movedim(out_site, 0), coefficients(*tensors), rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=9), st.data())
def test_canonical_form_is_the_same_function_of_isometries(inner, data):
    out_site = data.draw(st.integers(0, len(inner)))
    sites, centre, _ = tensors = chain([1, *inner, 1], out_site, seed=len(inner))
    phi = features(len(inner))
    before = [one.clone() for one in (*sites, centre)]
    found, core = canonical_form(*tensors)
    expected = reference_outputs(*tensors, phi)
    assert (reference_outputs(found, core, out_site, phi) - expected).abs().max() <= 1e-12 * expected.abs().max()
    for one in found[:out_site]:
        torch.testing.assert_close(torch.einsum("lkr,lks->rs", one, one), torch.eye(one.shape[2]).double())
    for one in found[out_site:]:
        torch.testing.assert_close(torch.einsum("lkr,mkr->lm", one, one), torch.eye(one.shape[0]).double())
    assert all(torch.equal(one, kept) for one, kept in zip((*sites, centre), before, strict=True))
    chained = [one.shape for one in tensor_row(found, core, out_site)]
    assert all(one[2] <= was for one, was in zip(chained, inner, strict=False))


@pytest.mark.parametrize("out_site", [0, 2, 4])
def test_spectra_are_singular_values_of_the_coefficients(out_site):
    tensors = chain([1, 2, 4, 4, 2, 1], out_site)
    whole = coefficients(*tensors).movedim(0, out_site)  # legs in the order of the row
    for bond, found in enumerate(spectra(*tensors), start=1):
        expected = np.linalg.svd(whole.reshape(whole.shape[:bond].numel(), -1).numpy(), compute_uv=False)
        np.testing.assert_allclose(found, expected[: len(found)], rtol=1e-10, atol=1e-12)
        assert expected[len(found) :].max(initial=0) <= 1e-10 * expected[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.floats(0, 0.99), st.integers(0, 5))
def test_split_keeps_what_it_is_told(most, error, seed):
    tensor = torch.randn(3, 2, 4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    left, right, kept, weight = split_svd(tensor, most, error)
    size, rank = float(tensor.square().sum()), len(kept)
    whole = torch.einsum("las,s,sbr->labr", left, kept, right)
    assert weight == pytest.approx(float((whole - tensor).square().sum()), abs=1e-9 * size)
    assert 1 <= rank <= min(most, 6)
    assert rank == min(most, 6) or weight <= error**2 * size * (1 + 1e-12)
    torch.testing.assert_close(left.flatten(0, 1).T @ left.flatten(0, 1), torch.eye(rank).double())
    torch.testing.assert_close(right.flatten(1) @ right.flatten(1).T, torch.eye(rank).double())


def test_split_of_nothing_keeps_one_value():
    left, right, kept, weight = split_svd(torch.zeros(2, 2, 2, 2), 3, 0.1)
    assert (left.shape, right.shape, kept.tolist(), weight) == ((2, 2, 1), (1, 2, 2), [0.0], 0.0)


BAD = {
    "bond": (0, None, "max_bond must be an integer >= 1, got 0"),
    "error": (None, 1.0, "max_error must be in [0, 1), got 1.0"),
}


@pytest.mark.parametrize(("most", "error", "line"), BAD.values(), ids=BAD)
def test_split_refuses(most, error, line):
    with pytest.raises(ConfigError, match=re.escape(line)):
        split_svd(torch.ones(2, 2, 2, 2), most, error)


@pytest.mark.parametrize("function", [canonical_form, spectra])
def test_periodic_chains_have_no_canonical_form(function):
    with pytest.raises(ConfigError, match=r"needs boundary='open', got ends that share a bond of dimension 3"):
        function(*chain([3, 2, 2, 3], 1))


@pytest.mark.parametrize("function", [canonical_form, spectra])
@pytest.mark.parametrize("number", [float("nan"), 1e200], ids=["not-a-number", "overflow"])
def test_a_failure_is_one_line(function, number):
    sites, centre, m = chain([1, 2, 2, 2, 1], 1)
    with pytest.raises(NonFiniteLossError, match="failed, and nothing was changed"):
        function([one * number for one in sites], centre, m)


# ---------------------------------------------------------------- the model
