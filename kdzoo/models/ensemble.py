"""An ensemble of classifiers as one classifier (the "cumbersome model" of Hinton, Vinyals and Dean 2015, sec. 1).

Notation: logits z_m ``[batch, classes]`` of member m, weights w_m >= 0 that sum to 1. The average is
log sum_m w_m softmax(z_m) for ``probabilities``, the arithmetic mean of the distributions, and sum_m w_m z_m for
``logits``, their geometric mean.
"""

from collections.abc import Sequence
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.models.ensemble_members import logsumexp, module_list, normalised_weights


class Ensemble(nn.Module):
    """Weighted mean of the members' predictions, for example of several teachers.

    With ``average="probabilities"`` the softmax of the output at temperature 1 is the mean of the members' class
    probabilities, and the logsumexp of the output is 0. A logit of -inf is a probability of zero and stays exact.
    Half-precision logits are averaged in float32. Modules to hook: ``members.0``, ...

    Args:
        members: Classifiers of the same classes; at least one.
        weights: One number >= 0 per member, not all zero, divided by their sum; None for equal weights. A member of
            weight zero is not evaluated.
        average: ``probabilities`` or ``logits``.

    Attributes:
        weights: The weights divided by their sum.

    Raises:
        ConfigError: An argument is outside its range or, in ``forward``, the members' logits differ in shape.

    Example:
        >>> import torch
        >>> sure, unsure = torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(1, 2, bias=False)
        >>> _ = sure.weight.data.copy_(torch.tensor([[0.0], [-torch.inf]])), unsure.weight.data.zero_()
        >>> Ensemble([sure, unsure])(torch.ones(1, 1)).softmax(-1)
        tensor([[0.7500, 0.2500]], grad_fn=<SoftmaxBackward0>)

    References:
        Hinton, Vinyals, Dean: Distilling the knowledge in a neural network. arXiv:1503.02531, 2015.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        weights: Sequence[float] | None = None,
        average: str = "probabilities",
    ) -> None:
        super().__init__()
        self.members = module_list(members)
        self.weights = normalised_weights(weights, len(members))
        self.average = validation.choice("average", average, ("probabilities", "logits"))

    def weighted_members(self) -> list[tuple[nn.Module, float]]:
        """Return each member with its weight."""
        return list(zip(self.members, self.weights, strict=True))

    def forward(self, input: Any) -> Tensor:
        """Return the logits ``[batch, classes]`` for any input that the members take."""
        evaluated = [(member, weight) for member, weight in self.weighted_members() if weight]
        weights = [weight for _, weight in evaluated]
        logits = [_at_least_float32(member(input)) for member, _ in evaluated]
        shapes = {tuple(z.shape) for z in logits}
        if len(shapes) > 1:  # broadcasting would average them without an error
            raise ConfigError(f"members must agree on the shape of their logits, got {sorted(shapes)}")
        pairs = zip(weights, logits, strict=True)
        if self.average == "logits":
            return torch.stack([w * z for w, z in pairs]).sum(0)
        return logsumexp(torch.stack([log(w) + z.log_softmax(-1) for w, z in pairs]))


def _at_least_float32(logits: Tensor) -> Tensor:
    """Return logits in float32, or in their own precision if it is higher."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
