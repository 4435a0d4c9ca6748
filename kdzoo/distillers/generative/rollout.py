"""What the distillers of graphical models share: what comes with a batch, and the losses of a paired roll-out."""

from collections.abc import Collection, Mapping

from torch import Tensor

from kdzoo.core.batch import Batch
from kdzoo.graphical_models import Graph
from kdzoo.graphical_models.paired import Pair, node_divergence

_NOISE, _GIVEN = "noise.", "given."


def noise_in(batch: Batch, of: str = "") -> dict[str, Tensor]:
    """Return the noise in a batch by node; nothing if the batch has none.

    Args:
        batch: the batch.
        of: which noise, where a batch has several.
    """
    return _stripped(batch, of + _NOISE)


def inputs_in(batch: Batch) -> dict[str, Tensor]:
    """Return the values of inputs that were drawn for a batch, by node; nothing if it has none."""
    return _stripped(batch, _GIVEN)


def named(noise: Mapping[str, Tensor], of: str = "") -> dict[str, Tensor]:
    """Return noise by node as the tensors of a batch, ``of`` being which noise where a batch has several."""
    return {f"{of}{_NOISE}{name}": value for name, value in noise.items()}


def named_inputs(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return drawn inputs by node as the tensors of a batch."""
    return {f"{_GIVEN}{name}": value for name, value in values.items()}


def pair_losses(
    pair: Pair,
    student: Graph,
    *,
    divergence: str = "kl",
    latent_divergence: str = "auto",
    reduction: str = "sum",
    latents: Collection[str] | None = None,
    lengths: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the surrogate loss of targets and the losses of latents that have parameters, by node, [b] each.

    Chen et al. 2023, A unified knowledge distillation framework for deep directed graphical models.

    Args:
        pair: roll-outs of teacher and student.
        student: the model that imitates.
        divergence: of targets, summed over their elements.
        latent_divergence: of latents; ``auto`` takes w2 for continuous and kl for discrete ones.
        reduction: of a latent's divergence over its elements, ``sum`` or ``mean``.
        latents: names of those that are compared; None: all that have parameters.
        lengths: int64 [b], valid steps of sequences.
    """

    def loss(name: str, kind: str, reduction: str) -> Tensor:
        return node_divergence(pair, name, kind, reduction, lengths if student.in_sequence(name) else None)

    terms = {name: loss(name, divergence, "sum") for name in student.targets()}
    for name, latent in student.latents().items():
        kind = latent_divergence
        if kind == "auto":
            kind = "kl" if latent.family.is_discrete else "w2"
        if latent.is_learned if latents is None else name in latents:
            terms[name] = loss(name, kind, reduction)
    return terms


def _stripped(batch: Batch, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in batch.items() if key.startswith(prefix)}
