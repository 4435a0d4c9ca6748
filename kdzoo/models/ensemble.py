"""An ensemble of classifiers as one classifier (Hinton, Vinyals and Dean 2015, sec. 1: the cumbersome model).

Notation: logits z_m (batch, classes) of member m, weights w_m >= 0 that sum to one.
"probabilities": log sum_m w_m softmax(z_m), the arithmetic mean; "logits": sum_m w_m z_m, the geometric mean.
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
    """Weighted mean of the members' predictions; an ensemble of teachers is a teacher.

    With `average="probabilities"` the softmax of the output at temperature 1 is the mean of the members'
    class probabilities; the output is then normalised (its logsumexp is 0). A logit of -inf means probability
    zero and stays exact. Half-precision logits are averaged in float32. Modules to hook: `members.0`, ...

    Args:
        members: Classifiers of the same classes; at least one.
        weights: One number >= 0 per member, not all zero, divided by their sum; None for equal weights.
            A member of weight zero is not evaluated.
        average: "probabilities" or "logits".

    Raises:
        ConfigError: If an argument is outside its range or, in `forward`, logits differ in shape.

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

    def forward(self, input: Any) -> Tensor:
        """Logits (batch, classes) of any input that the members take."""
        weights = [weight for weight in self.weights if weight]
        voters = [member for member, weight in zip(self.members, self.weights, strict=True) if weight]
        logits = [_at_least_float32(member(input)) for member in voters]
        shapes = {tuple(z.shape) for z in logits}
        if len(shapes) > 1:
            raise ConfigError(f"members must agree on the shape of their logits, got {sorted(shapes)}")
        pairs = zip(weights, logits, strict=True)
        if self.average == "logits":
            return torch.stack([w * z for w, z in pairs]).sum(0)
        return logsumexp(torch.stack([log(w) + z.log_softmax(-1) for w, z in pairs]))


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
