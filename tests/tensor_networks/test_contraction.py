"""Contractions of chains: every engine against the definition, in values and gradients."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.errors import ConfigError, DataError, NonFiniteLossError
from kdzoo.models import MPS
from kdzoo.tensor_networks import FEATURE_MAPS, contract, contraction, kernel, make_layout, torch_sweep
from kdzoo.tensor_networks.layout import from_text

ENGINES = ["compiled", "sweep", "autograd"]
CHAINS = {
    "even": ((1, 2, 4, 4), (1, 2, 4, 4), 2, 5),
    "uneven": ((1, 3, 2, 5, 7), (1, 2), 3, 37),
    "wide": ((4, 4, 4, 4, 4, 4), (4, 4, 4, 4), 2, 16),
    "one_sided": ((1,), (1, 3, 3, 3, 2), 2, 3),
    "long": ((1, 2, *(3,) * 40), (1, 2, *(3,) * 35), 2, 7),
    "tiles": ((1, 9, 17, 8), (1, *(11,) * 20), 4, 33),
    "large": ((1, 3, 13, 16, 10), (1, 24, 24, 6), 3, 130),
    "one_feature": ((1, 2, 2), (1, 2), 1, 2),
}


def chain(name, dtype=torch.float64, scale=0.5):
    left, right, d, samples = CHAINS[name]
    plan = make_layout(d, left, right)
    generator = torch.Generator().manual_seed(len(name))
    shapes = [(plan.n_sites, d, samples), (plan.n_cores,), (left[0], samples), (right[0], samples)]
    factors = [1, scale, 1, 1]
    made = [f * torch.randn(*s, generator=generator, dtype=torch.float64) for s, f in zip(shapes, factors, strict=True)]
    return plan, [one.to(dtype).requires_grad_() for one in made]


def definition(plan, phi, cores, left, right):
    """Multiply the matrices of every sample one after the other, core by core as the layout's text says."""
    ends = []
    for side, start in enumerate((left, right)):
        states = []
        for b in range(phi.shape[2]):
            state = start[:, b]
            for step in range(len(plan.sides[side]) - 1):
                at = plan.cores[side][step]
                d, n_in, n_out = plan.d, plan.sides[side][step], plan.sides[side][step + 1]
                core = cores[at : at + d * n_in * n_out].reshape(d, n_in, n_out)
                matrix = sum(phi[plan.sites[side][step], k, b] * core[k] for k in range(d))
                state = state @ matrix
            states.append(state)
        ends.append(torch.stack(states, 1))
    return ends


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


@pytest.mark.parametrize("part", [None, (1, 3, 9)])
def test_a_layout_is_read_from_its_text(part):
    plan = make_layout(2, (1, 2, 3), (1,), part)
    assert from_text(plan.text) is plan


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


def test_numbers_that_the_kernel_does_not_take_are_swept_by_torch():
    assert "float16" in kernel.available(torch.ones(1, dtype=torch.float16))
    with pytest.raises(ConfigError, match="got 'fast'"):
        contraction.select_engine(torch.ones(1), "fast")


def test_the_kernel_needs_a_compiler(monkeypatch, tmp_path):
    kernel._compiler.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(kernel.NoKernelError, match="no C compiler"):
        kernel._compiler()
    kernel._compiler.cache_clear()


def test_two_threads_give_the_numbers_of_one():
    plan, (phi, cores, a, b) = chain("long")
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        left, right, _ = contract(phi, cores, (a, b), plan, "compiled")
        found.append([left, right, *torch.autograd.grad(left.sum() + right.sum(), [phi, cores])])
    torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_every_second_state_is_kept_and_the_last():
    plan = make_layout(2, (1, 2, 4, 8, 8), (1, 2, 4))
    kept = kernel.stored_states(plan)
    assert kept.places == ([0, -1, 1, -1, 5], [13, -1, 14])
    assert kept.rows == 18
    phi, starts = torch.rand(6, 2, 5), (torch.ones(1, 5), torch.ones(1, 5))
    ends, _, (states, _) = kernel.forward(phi, torch.rand(plan.n_cores), starts, plan)
    assert len(states) == 18
    assert [len(end) for end in ends] == [8, 4]


def test_a_compiler_without_openmp_will_do(tmp_path):
    script = tmp_path / "cc"
    script.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec cc "$@"\n')
    script.chmod(0o755)
    kernel._build(str(script), "float", tmp_path / "one.so")
    assert (tmp_path / "one.so").is_file()
    script.write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
    with pytest.raises(kernel.NoKernelError, match="it is broken"):
        kernel._build(str(script), "float", tmp_path / "other.so")


def test_gradients_are_products_of_stacks_where_cores_lie_in_a_row():
    plan = make_layout(2, (1, 2, *(4,) * 70), (1, 2, *(4,) * 70))
    runs = [(run.first, run.last, run.sides) for run in torch_sweep._runs(plan)]
    assert runs == [(0, 1, (0, 1)), (1, 2, (0, 1)), (2, 34, (0, 1)), (34, 66, (0, 1)), (66, 71, (0, 1))]


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
