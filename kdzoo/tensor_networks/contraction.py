"""Contraction of a chain with the features of a batch, as one differentiable operator.

Three engines give the same results: ``compiled`` (C, on the CPU), ``sweep`` (torch, any device) and ``autograd`` (plain
torch, which is slow and can be differentiated any number of times). The first two are operators of torch with their own
backward pass, so that ``torch.compile`` and ``vmap`` can handle them.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kdzoo.core.validation import choice
from kdzoo.errors import ConfigError, DataError, KdzooWarning, NonFiniteLossError
from kdzoo.tensor_networks import kernel, torch_sweep
from kdzoo.tensor_networks.layout import Layout, from_text, make_layout

Ends = tuple[Tensor, Tensor, Tensor]
Chain = tuple[Tensor, Tensor, tuple[Tensor, Tensor]]
Stop = Callable[[Tensor], Tensor]
ENGINES = ("auto", "compiled", "sweep", "autograd")
_SWEEPS: dict[str, ModuleType] = {"compiled": kernel, "sweep": torch_sweep}


def contract(
    phi: Tensor,
    cores: Tensor,
    starts: tuple[Tensor, Tensor],
    plan: Layout,
    engine: str = "auto",
    stops: Mapping[tuple[int, int], Stop] | None = None,
) -> Ends:
    """Return the states of both sides next to the output core.

    Args:
        phi: Features ``[sites, d, samples]`` in the chain's order.
        cores: All cores in one vector.
        starts: State ``[bond, samples]`` at the left and at the right end of the chain.
        plan: Where the cores lie.
        engine: ``compiled``, ``sweep``, ``autograd``, or ``auto`` for the fastest one that supports these tensors.
        stops: Modules by (side, step), with side 0 for the left one, through which the state ``[samples, bond]`` before
            the core of that step passes.

    Returns:
        States ``[bond, samples]`` of the left and of the right side, and exponents ``[samples]``: the product of the
        two states must be multiplied by 2 to the power of the exponent. Gradients do not pass through the exponents,
        because the powers of two cancel.

    Raises:
        ConfigError: The chosen engine does not support these tensors.
        DataError: The tensors do not fit each other in shape, dtype or device.
        NonFiniteLossError: A state is not finite; the message names the site. The engine ``autograd`` does not check.
    """
    _check_fit(phi, cores, starts, plan)
    if stops:
        return _with_stops(phi, cores, starts, plan, engine, stops)
    if engine == "autograd" or phi.shape[2] == 0:
        return _contract_plainly(phi, cores, starts, plan)
    # torch.compile sees an operator with its registered gradient, functorch a function: each fails with the other one.
    sweep = _sweep if torch.compiler.is_compiling() else _Sweep.apply
    left, right, log2 = sweep(phi, cores, *starts, plan.text, engine)[:3]
    return left, right, log2.sum(0)


def _with_stops(
    phi: Tensor,
    cores: Tensor,
    starts: tuple[Tensor, Tensor],
    plan: Layout,
    engine: str,
    stops: Mapping[tuple[int, int], Stop],
) -> Ends:
    """Contract the two sides independently, in pieces between their stops."""
    ends, exponents = [], phi.new_zeros(phi.shape[2])
    for side, current in enumerate(starts):
        bonds, last = plan.sides[side], len(plan.sides[side]) - 1
        cuts = sorted({0, last, *(step for stop_side, step in stops if stop_side == side)})
        for first, end in pairwise(cuts):
            # Cores are oriented towards the output, so a piece of either side is a left side, with an empty right one.
            piece = make_layout(plan.d, bonds[first : end + 1], (1,), (side, first, plan.n_sites))
            piece_cores = torch.cat([plan.core(cores, side, step).flatten() for step in range(first, end)])
            ones = phi.new_ones(1, phi.shape[2])
            piece_phi = phi[list(plan.sites[side][first:end])]
            current, _, log2 = contract(piece_phi, piece_cores, (current, ones), piece, engine)
            if (side, end) in stops:  # a hook must get the true state, so its exponent is multiplied back in
                current = stops[side, end]((current * log2.exp2()).T).T
            else:
                exponents = exponents + log2
        ends.append(current)
    return ends[0], ends[1], exponents


def select_engine(like: Tensor, engine: str) -> str:
    """Return the engine for tensors such as ``like``.

    Raises:
        ConfigError: The engine is unknown or does not support such tensors.
    """
    if choice("engine", engine, ENGINES) not in ("auto", "compiled"):
        return engine
    reason = kernel.available(like)
    if reason is None:
        return "compiled"
    if engine == "compiled":
        raise ConfigError(f"engine='compiled' cannot be used: {reason}; allowed here: 'sweep', 'autograd', 'auto'")
    if like.device.type == "cpu":
        _announce(reason)
    return "sweep"


@cache  # once for each reason
def _announce(reason: str) -> None:
    warnings.warn(f"matrix product states use the slower engine 'sweep': {reason}", KdzooWarning, stacklevel=2)


def _check_fit(phi: Tensor, cores: Tensor, starts: tuple[Tensor, Tensor], plan: Layout) -> None:
    """Reject tensors that do not fit: the compiled engine reads memory where the layout says, unchecked."""
    samples = phi.shape[-1]
    expected = {
        "features": (plan.n_sites, plan.d, samples),
        "cores": (plan.n_cores,),
        "left start": (plan.left[0], samples),
        "right start": (plan.right[0], samples),
    }
    for (name, shape), tensor in zip(expected.items(), (phi, cores, *starts), strict=True):
        if tuple(tensor.shape) != shape:
            raise DataError(f"{name} of the chain must be of shape {shape}, got {tuple(tensor.shape)}")
        if tensor.dtype != cores.dtype or tensor.device != cores.device:
            raise DataError(
                f"{name} must have the dtype and device of the cores, {cores.dtype} on {cores.device}, "
                f"got {tensor.dtype} on {tensor.device}"
            )


def _contract_plainly(phi: Tensor, cores: Tensor, starts: tuple[Tensor, Tensor], plan: Layout) -> Ends:
    ends, exponents = [], phi.new_zeros(phi.shape[2])
    for side, current in enumerate(starts):
        for step, position in enumerate(plan.sites[side]):
            current = torch.einsum("kb,lb,klr->rb", phi[position], current, plan.core(cores, side, step))
            if (step + 1) % torch_sweep.EVERY == 0:
                exponent = torch.frexp(current.detach().abs().amax(0)).exponent
                current = current * torch.ldexp(torch.ones_like(exponents), -exponent)
                exponents = exponents + exponent
        ends.append(current)
    return ends[0], ends[1], exponents


@torch.library.custom_op("kdzoo::sweep", mutates_args=())
def _sweep(
    phi: Tensor,
    cores: Tensor,
    left: Tensor,
    right: Tensor,
    chain: str,
    engine: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return both ends, the sums of exponents ``[2, samples]``, and what the backward pass needs.

    ``chain`` is the text of the layout.
    """
    plan = from_text(chain)
    starts = left, right
    ends, log2, saved = _SWEEPS[select_engine(phi, engine)].forward(phi, cores, starts, plan)
    if phi.shape[2]:
        _check_range(ends, log2, (phi, cores, starts), plan)
    # The ends are views of the states; outputs of an operator must not share memory.
    return ends[0].clone(), ends[1].clone(), log2, *saved


@_sweep.register_fake
def _(phi, cores, left, right, chain, engine):  # type: ignore[no-untyped-def]
    del cores, left, right
    plan, samples = from_text(chain), phi.shape[2]
    padded, rows = samples, plan.n_states
    if select_engine(phi, engine) == "compiled":
        padded, rows = kernel.padded_samples(samples, phi.dtype), kernel.stored_states(plan).rows
    rescalings = (max(len(plan.left), len(plan.right)) - 1) // torch_sweep.EVERY
    return (
        phi.new_empty(plan.left[-1], samples),
        phi.new_empty(plan.right[-1], samples),
        phi.new_empty(2, samples),
        phi.new_empty(rows, padded),
        phi.new_empty(2, rescalings, padded),
    )


@torch.library.custom_op("kdzoo::sweep_backward", mutates_args=())
def _sweep_backward(
    phi: Tensor,
    cores: Tensor,
    states: Tensor,
    scales: Tensor,
    left: Tensor,
    right: Tensor,
    chain: str,
    engine: str,
    of_phi: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of features (empty unless asked for), cores and starts from those of the ends."""
    plan = from_text(chain)
    of_features, of_cores, starts = _SWEEPS[select_engine(phi, engine)].backward(
        phi, cores, (states, scales), (left, right), plan, of_phi=of_phi
    )
    of_features = phi.new_empty(0) if of_features is None else of_features.contiguous()
    return of_features, of_cores, starts[0].clone(), starts[1].clone()


@_sweep_backward.register_fake
def _(phi, cores, states, scales, left, right, chain, engine, of_phi):  # type: ignore[no-untyped-def]
    del states, scales, left, right, engine
    plan, samples = from_text(chain), phi.shape[2]
    starts = phi.new_empty(plan.left[0], samples), phi.new_empty(plan.right[0], samples)
    return torch.empty_like(phi) if of_phi else phi.new_empty(0), torch.empty_like(cores), *starts


def _save_for_backward(ctx: Any, inputs: Any, output: Any) -> None:
    """Save features, cores, states and scales."""
    phi, cores, _, _, *ctx.settings = inputs
    ctx.save_for_backward(phi, cores, output[3], output[4])


def _differentiate(ctx: Any, operator: Any, left: Tensor | None, right: Tensor | None) -> Any:
    """Return the gradients of features, cores and starts, and None for every setting.

    ``left`` and ``right`` are the gradients of the ends; None means 0.
    """
    of_phi, (phi, *_) = ctx.needs_input_grad[0], ctx.saved_tensors
    ends = [
        phi.new_zeros(bonds[-1], phi.shape[2]) if end is None else end
        for end, bonds in zip((left, right), from_text(ctx.settings[0]).sides, strict=True)
    ]
    gradients = operator(*ctx.saved_tensors, *ends, *ctx.settings, of_phi)
    return gradients[0] if of_phi else None, *gradients[1:], None, None


_sweep.register_autograd(  # for torch.compile; _Sweep is for everything else
    lambda ctx, left, right, *_: _differentiate(ctx, _sweep_backward, left, right), setup_context=_save_for_backward
)


class _Sweep(torch.autograd.Function):
    """The operator with its derivative, for everything but ``torch.compile``."""

    @staticmethod
    def forward(*arguments: Any) -> Any:
        """Return what the operator returns."""
        return _sweep(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep what the backward pass needs."""
        _save_for_backward(ctx, inputs, output)
        ctx.set_materialize_grads(False)  # the states have no gradient; by default autograd would allocate zeros for it
        ctx.mark_non_differentiable(*output[2:])

    @staticmethod
    def backward(ctx: Any, left: Tensor | None, right: Tensor | None, *_: Any) -> Any:
        """Return the gradients of features, cores and starts."""
        return _differentiate(ctx, _SweepBackward.apply, left, right)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        """Contract one element after the other: the engines have no further batch dimension."""
        return _one_by_one(_Sweep.apply, info, in_dims, arguments)


class _SweepBackward(torch.autograd.Function):
    """The backward operator, which cannot be differentiated again."""

    @staticmethod
    def forward(*arguments: Any) -> Any:
        """Return what the operator returns."""
        return _sweep_backward(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing."""

    @staticmethod
    def backward(*_: Any) -> Any:
        """Reject a second derivative.

        Raises:
            ConfigError: In any case.
        """
        raise ConfigError("second derivatives of a chain need engine='autograd', got engine='compiled' or 'sweep'")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        """Differentiate one element after the other."""
        return _one_by_one(_SweepBackward.apply, info, in_dims, arguments)


def _one_by_one(function: Any, info: Any, in_dims: Any, arguments: Any) -> Any:
    """Call ``function`` for every element of the mapped dimension; return stacked results and their dimensions."""
    elements = (
        [
            argument.select(dim, i) if isinstance(dim, int) else argument
            for argument, dim in zip(arguments, in_dims, strict=True)
        ]
        for i in range(info.batch_size)
    )
    results = tuple(map(torch.stack, zip(*(function(*element) for element in elements), strict=True)))
    return results, (0,) * len(results)


def _check_range(ends: tuple[Tensor, Tensor], log2: Tensor, chain: Chain, plan: Layout) -> None:
    """Reject ends that are not finite, and a product whose exponent is outside of the normal numbers of the dtype."""
    # Minimum and maximum are NaN if any value is, and need no tensor as large as the ends, as isfinite would.
    if not all(math.isfinite(float(extreme)) for end in ends for extreme in end.aminmax()):
        raise NonFiniteLossError(_not_finite(chain, plan))
    exponents, most = log2.sum(0), math.log2(torch.finfo(log2.dtype).max)
    if float(exponents.max()) > most:
        sample = int(exponents.argmax())
        raise NonFiniteLossError(
            f"the contraction is about 2^{int(exponents[sample])} for sample {sample}, beyond 2^{most:.0f}, the "
            f"largest {log2.dtype}; {_too_large(chain, sample, plan, most)}"
        )
    least = math.log2(torch.finfo(log2.dtype).tiny)
    if float(exponents.min()) < least:
        sample = int(exponents.argmin())
        raise NonFiniteLossError(
            f"the contraction is about 2^{int(exponents[sample])} for sample {sample}, below 2^{least:.0f}, the "
            f"smallest {log2.dtype}, so that outputs and gradients would be 0; calibrate the chain on such inputs, or "
            "choose a feature map with a feature that is 1 for all inputs, such as polynomial"
        )


def _not_finite(chain: Chain, plan: Layout) -> str:
    """Return a message with the first state that is not finite, from another sweep that keeps all of them."""
    states, _ = torch_sweep.forward(*chain, plan)[2]
    for side, bonds in enumerate(plan.sides):
        for step in range(len(bonds)):
            bad = ~torch.isfinite(torch_sweep.state(states, plan, side, step)).all(0)
            if bad.any():
                end, at = plan.place(side, step)
                return f"the contraction from the {end} end is not finite {at}, sample {int(bad.nonzero()[0])}"
    return "the contraction is not finite"


def _too_large(chain: Chain, sample: int, plan: Layout, most: float) -> str:
    """Return words for the first state of a sample that is beyond 2^most without its rescaling."""
    phi, cores, starts = chain
    only = slice(sample, sample + 1)
    states, scales = torch_sweep.forward(phi[..., only], cores, (starts[0][:, only], starts[1][:, only]), plan)[2]
    for side, bonds in enumerate(plan.sides):
        exponent = 0.0
        for step in range(len(bonds)):
            if step and step % torch_sweep.EVERY == 0:
                exponent -= float(scales[side, step // torch_sweep.EVERY - 1].log2())
            largest = float(torch_sweep.state(states, plan, side, step).abs().max())
            if largest and exponent + math.log2(largest) > most:
                end, at = plan.place(side, step)
                return f"from the {end} end it is beyond that {at}"
    return "neither side of the output is alone"
