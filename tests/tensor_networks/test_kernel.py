"""The compiled sweep: what it supports, how it is built, what it stores, and that threads change nothing."""

import pytest
import torch

from kdzoo.errors import ConfigError
from kdzoo.tensor_networks import contract, contraction, kernel, make_layout, torch_sweep
from tests.tensor_networks.chains import CHAINS, chain


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


@pytest.mark.parametrize("name", CHAINS)
def test_states_and_exponents_are_those_of_the_torch_engine(name):
    plan, (phi, cores, *starts) = chain(name)
    arguments = phi.detach(), cores.detach(), tuple(start.detach() for start in starts), plan
    ends, log2, _ = kernel.forward(*arguments)
    expected_ends, expected_log2, _ = torch_sweep.forward(*arguments)
    for end, expected in zip(ends, expected_ends, strict=True):
        torch.testing.assert_close(end, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(log2, expected_log2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("samples", [1, 7, 64])
def test_samples_are_padded_to_whole_vectors(samples, dtype):
    padded = kernel.padded_samples(samples, dtype)
    width = kernel.padded_samples(1, dtype)
    assert padded % width == 0
    assert samples <= padded < samples + width
    assert width * dtype.itemsize % 16 == 0  # a vector has at least 16 bytes


def test_a_library_is_found_again_by_source_compiler_and_processor(monkeypatch, tmp_path):
    kernel._compiler.cache_clear()
    fingerprint = kernel._compiler().fingerprint
    other = tmp_path / "sweep.c"
    other.write_text(kernel.SOURCE.read_text() + "\n")
    monkeypatch.setattr(kernel, "SOURCE", other)
    kernel._compiler.cache_clear()
    assert kernel._compiler().fingerprint != fingerprint
    kernel._compiler.cache_clear()


def test_tensors_on_other_devices_are_not_supported():
    assert kernel.available(torch.empty(1, device="meta")) == "it runs on the CPU, got tensors on meta"
