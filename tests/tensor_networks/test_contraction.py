"""Contractions of chains: every engine against the definition, in values and gradients."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.errors import ConfigError, DataError, NonFiniteLossError
from kdzoo.models import MPS
from kdzoo.tensor_networks import FEATURE_MAPS, contract, contraction, kernel, make_layout
from tests.tensor_networks.chains import CHAINS, chain, definition

ENGINES = ["compiled", "sweep", "autograd"]


def results(ends, arguments):
    """Return a scalar of both ends, the ends' product and all gradients."""
    left, right = ends
    weights = [torch.linspace(1, 2, one.numel(), dtype=one.dtype).view_as(one) for one in ends]
    values = (left * weights[0]).sum(0) * (right * weights[1]).sum(0)
    gradients = torch.autograd.grad(values.sum(), arguments, allow_unused=True)
    return [values.detach(), *(torch.zeros(1) if one is None else one for one in gradients)]


def scaled(found):
    left, right, log2 = found
    return left * log2.exp2(), right


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_engines_are_the_definition(name, engine, dtype, tolerance):
    plan, exact = chain(name)
    expected = results(definition(plan, *exact), exact)
    plan, arguments = chain(name, dtype)
    phi, cores, *starts = arguments
    found = results(scaled(contract(phi, cores, tuple(starts), plan, engine)), arguments)
    for one, other in zip(found, expected, strict=True):
        assert float((one.double() - other).abs().max()) <= tolerance * float(other.abs().max() + 1e-300)


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_those_of_differences(engine):
    plan, arguments = chain("uneven")
    small = [one[..., :3].detach().requires_grad_() if one.ndim > 1 else one for one in arguments]
    assert torch.autograd.gradcheck(lambda phi, cores, a, b: contract(phi, cores, (a, b), plan, engine)[:2], small)


def test_second_derivatives_need_the_plain_engine():
    plan, (phi, cores, a, b) = chain("even")
    for engine in ENGINES:
        left = contract(phi, cores, (a, b), plan, engine)[0].square().sum()
        (first,) = torch.autograd.grad(left, cores, create_graph=True)
        if engine == "autograd":
            assert torch.autograd.grad(first.sum(), cores)[0].abs().sum() > 0
        else:
            with pytest.raises(ConfigError, match="engine='autograd'"):
                first.sum().backward()


@given(st.integers(0, 60), st.integers(1, 12), st.sampled_from(["compiled", "sweep"]))
def test_scales_cancel(exponent, sites, engine):
    """Cores a power of two larger make outputs larger by exactly the product of these powers."""
    sites = 16 * sites
    plan = make_layout(2, (1, *(3,) * sites), (1,))
    generator = torch.Generator().manual_seed(sites)
    phi = torch.rand(sites, 2, 4, generator=generator, dtype=torch.float64)
    cores = torch.randn(plan.n_cores, generator=generator, dtype=torch.float64) / 2
    ones = torch.ones(1, 4, dtype=torch.float64)
    left, _, log2 = contract(phi, cores, (ones, ones), plan, engine)
    larger, _, log2_larger = contract(phi, cores * 2.0 ** (exponent % 5), (ones, ones), plan, engine)
    assert torch.equal(left, larger)
    assert torch.equal(log2_larger - log2, torch.full((4,), float(exponent % 5 * sites), dtype=torch.float64))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_vanishes_and_explodes_on_the_way_is_exact(engine):
    """The left half is about 2^-600 and the right one 2^600: single precision holds the product."""
    n = 300
    plan = make_layout(1, (1, *(1,) * n), (1, *(1,) * n))
    cores = torch.empty(2 * n)
    cores[list(plan.cores[0])] = 0.25
    cores[list(plan.cores[1])] = 4.0
    cores.requires_grad_()
    phi, ones = torch.ones(2 * n, 1, 2), torch.ones(1, 2)
    left, right, log2 = contract(phi, cores, (ones, ones), plan, engine)
    value = left * log2.exp2() * right
    assert torch.equal(value, torch.ones(1, 2))
    value.sum().backward()
    assert torch.allclose(cores.grad, 2 / cores.detach(), rtol=1e-5)


def test_the_site_that_is_not_finite_is_named():
    plan, (phi, cores, a, b) = chain("even")
    with torch.no_grad():
        plan.core(cores, 1, 1)[:] = torch.nan
    for engine in ("compiled", "sweep"):
        with pytest.raises(NonFiniteLossError, match="right end is not finite after site 4 of 6"):
            contract(phi, cores, (a, b), plan, engine)


@pytest.mark.parametrize("engine", ["compiled", "sweep"])
@pytest.mark.parametrize("site", [2, 11, 25, 38])
def test_the_site_in_the_whole_chain_is_named_with_probes(engine, site):
    """Every piece between the probes of either side is a chain of its own to the engine."""
    model = MPS(40, 2, 3, probes=(5, 20, 30), engine=engine)
    side, step = (0, site) if site < 20 else (1, 39 - site)
    with torch.no_grad():
        model.layout.core(model.cores, side, step)[:] = torch.nan
    end = ("left", "right")[side]
    with pytest.raises(NonFiniteLossError, match=f"the {end} end is not finite after site {site} of 40 .*, sample 0"):
        model(torch.rand(3, 40))


@pytest.mark.parametrize("engine", ["compiled", "sweep"])
def test_a_start_that_is_not_finite_is_named(engine):
    plan, (phi, cores, a, b) = chain("even")
    with pytest.raises(NonFiniteLossError, match="the right end is not finite at its start, sample 2"):
        contract(phi, cores, (a, torch.where(torch.arange(5) == 2, torch.inf, b)), plan, engine)


@pytest.mark.parametrize("engine", ["compiled", "sweep"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("end", ["left", "right"])
def test_the_site_after_which_a_state_is_too_large_is_named(engine, dtype, end):
    """The state of the second sample is 8 to the power of the number of sites."""
    sites = 400
    plan = make_layout(1, (1,) * (sites + 1), (1,)) if end == "left" else make_layout(1, (1,), (1,) * (sites + 1))
    phi = torch.ones(sites, 1, 2, dtype=dtype)
    phi[:, :, 1] = 8
    most = {torch.float32: 128, torch.float64: 1024}[dtype]
    first = most // 3 + 1  # the first power of 8 above 2^most
    site = first - 1 if end == "left" else sites - first
    ones = torch.ones(1, 2, dtype=dtype)
    message = rf"2\^1201 for sample 1, .*{end} end .* after site {site} of {sites} "
    with pytest.raises(NonFiniteLossError, match=message):
        contract(phi, torch.ones(sites, dtype=dtype), (ones, ones), plan, engine)


def test_sides_that_are_too_large_together_are_refused():
    plan = make_layout(1, (1,) * 33, (1,) * 33)
    phi, ones = torch.full((64, 1, 2), 8.0), torch.ones(1, 2)
    with pytest.raises(NonFiniteLossError, match=r"beyond 2\^128, .*; neither side of the output is alone"):
        contract(phi, torch.ones(64), (ones, ones), plan, "sweep")


def test_outputs_beyond_the_largest_number_are_refused():
    model = MPS(200, 2, 3)
    with torch.no_grad():
        model.cores *= 4.0
    with pytest.raises(NonFiniteLossError, match=r"beyond 2\^128, the largest .* from the left end .* site"):
        model(torch.rand(3, 200))


@pytest.mark.parametrize("engine", ["sweep", "auto"])
def test_outputs_below_the_smallest_number_are_refused(engine):
    """Images that are dark almost everywhere, in a chain that was calibrated on bright ones: all outputs would be 0."""
    model = MPS(784, 2, 3, feature_map="cos_sin", engine=engine)
    torch.manual_seed(0)
    model.calibrate(torch.rand(32, 784))
    dark = torch.zeros(3, 784)
    with pytest.raises(
        NonFiniteLossError, match=r"about 2\^-2\d\d for sample 0, below 2\^-126, .* calibrate the chain"
    ):
        model(dark)
    model.calibrate(dark)
    outputs = model(dark)
    assert 0.01 < float(outputs.abs().mean()) < 10
    outputs.sum().backward()
    assert bool(model.cores.grad.any())


@pytest.mark.parametrize("feature_map", ["cos_sin", "polynomial"])
@pytest.mark.parametrize("n_sites", [784, 3072])
def test_calibrated_outputs_are_near_one_for_black_images_of_any_size(feature_map, n_sites):
    model, black = MPS(n_sites, 10, 8, feature_map=feature_map), torch.zeros(4, n_sites)
    model.calibrate(black)
    assert 0.01 < float(model(black).abs().mean()) < 10


def test_ten_thousand_sites_are_finite():
    for name in FEATURE_MAPS:
        model = MPS(10_000, 3, 8, feature_map=name)
        model(torch.rand(4, 10_000)).logsumexp(1).sum().backward()
        assert torch.isfinite(model.cores.grad).all()


def test_single_precision_gradients_are_those_of_double_precision():
    torch.manual_seed(0)
    model = MPS(784, 10, 16)
    x = torch.rand(8, 784)
    gradients = []
    for number in (torch.float32, torch.float64):
        model.to(number).zero_grad()
        model(x.to(number)).logsumexp(1).sum().backward()
        gradients.append(model.cores.grad.double().clone())
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-5


@pytest.mark.parametrize("engine", ["compiled", "sweep"])
def test_vmap_over_weights_is_a_loop(engine):
    models = [MPS(12, 3, 4, engine=engine).double() for _ in range(3)]
    weights, buffers = torch.func.stack_module_state(models)
    x = torch.rand(5, 12, dtype=torch.float64)

    def loss(weights, buffers):
        return torch.func.functional_call(models[0], (weights, buffers), (x,)).square().sum()

    values, gradients = torch.func.vmap(lambda w, b: torch.func.grad_and_value(loss)(w, b)[::-1])(weights, buffers)
    for i, model in enumerate(models):
        model(x).square().sum().backward()
        assert torch.allclose(gradients["cores"][i], model.cores.grad, rtol=1e-5)
        assert torch.allclose(values[i], model(x).square().sum())


def test_compiled_code_holds_the_operator():
    model = MPS(12, 3, 4)
    x = torch.rand(5, 12)
    model(x).square().sum().backward()
    expected, model.cores.grad = model.cores.grad.clone(), None
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    compiled(x).square().sum().backward()
    assert torch.equal(model.cores.grad, expected)


def test_without_a_compiler_the_torch_engine_is_announced_once(monkeypatch):
    monkeypatch.setattr(kernel, "available", lambda like: "there is no C compiler")
    contraction._announce.cache_clear()
    with pytest.warns(UserWarning, match="slower engine 'sweep': there is no C compiler"):
        assert contraction.select_engine(torch.ones(1), "auto") == "sweep"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert contraction.select_engine(torch.ones(1), "auto") == "sweep"
    with pytest.raises(ConfigError, match="there is no C compiler"):
        contraction.select_engine(torch.ones(1), "compiled")


BAD = {
    "sites": (lambda phi, cores, a, b: (phi[1:], cores, a, b), "features of the chain must be of shape"),
    "order": (lambda phi, cores, a, b: (phi.transpose(1, 2), cores, a, b), "features of the chain must be of shape"),
    "cores": (lambda phi, cores, a, b: (phi, cores[1:], a, b), "cores of the chain must be of shape"),
    "starts": (lambda phi, cores, a, b: (phi, cores, a[:, 1:], b), "left start of the chain must be of shape"),
    "dtype": (
        lambda phi, cores, a, b: (phi.float(), cores, a, b),
        "features must have the dtype and device of the cores",
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("engine", ENGINES)
def test_tensors_that_do_not_fit_are_refused(name, engine):
    plan, arguments = chain("even")
    change, message = BAD[name]
    phi, cores, a, b = change(*arguments)
    with pytest.raises(DataError, match=message):
        contract(phi, cores, (a, b), plan, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_of_none(engine):
    model = MPS(20, 3, 4, engine=engine)
    out = model(torch.rand(0, 20))
    assert out.shape == (0, 3)
    out.sum().backward()


def test_inputs_of_another_dtype_become_that_of_the_chain():
    model, x = MPS(40, 3, 4), torch.rand(5, 40)
    assert torch.allclose(model(x.double()), model(x), rtol=1e-5)
    assert model.double()(x).dtype == torch.float64
