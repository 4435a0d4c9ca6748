"""What ensembles of classifiers and of language models share: checked members, their weights, and a safe logsumexp."""

from collections.abc import Sequence
from math import fsum, inf

from torch import Tensor, nn

from kdzoo.errors import ConfigError


def module_list(members: Sequence[nn.Module] | nn.ModuleList) -> nn.ModuleList:
    """Return one or more members as a ModuleList, which registers their weights.

    Raises:
        ConfigError: There is no member, or one is not a module.
    """
    if not isinstance(members, Sequence | nn.ModuleList) or len(members) == 0:
        description = "an empty list" if isinstance(members, Sequence) else type(members).__name__
        raise ConfigError(f"members must be a list of at least one module, got {description}")
    for i, member in enumerate(members):
        if not isinstance(member, nn.Module):
            raise ConfigError(f"members[{i}] must be a torch module, got {member!r}")
    return nn.ModuleList(members)


def normalised_weights(weights: Sequence[float | int] | None, count: int) -> tuple[float, ...]:
    """Return weights >= 0 divided by their sum; equal weights for None.

    Raises:
        ConfigError: There are not ``count`` finite numbers >= 0, or all are zero.

    Example:
        >>> normalised_weights([3, 1], 2)
        (0.75, 0.25)
    """
    weights = [1.0] * count if weights is None else weights
    # A Sequence and not a list: weights from a configuration are an OmegaConf ListConfig. A string is a Sequence too.
    is_listed = isinstance(weights, Sequence) and not isinstance(weights, str) and len(weights) == count
    is_valid = is_listed and all(isinstance(w, int | float) and 0 <= w < inf for w in weights)
    if not is_valid or not any(weights):
        raise ConfigError(f"weights must be {count} finite numbers >= 0, not all zero, got {weights!r}")
    largest = max(weights)  # dividing by it first keeps the sum of huge weights finite
    total = fsum(w / largest for w in weights)
    return tuple(float(w / largest / total) for w in weights)


def logsumexp(log_terms: Tensor) -> Tensor:
    """Return the logsumexp over axis 0, also where all terms are -inf: -inf there, with gradient zero.

    ``torch.logsumexp`` gives the right value, but its gradient at nothing but -inf is NaN, and a log_softmax before it
    spreads the NaN over the whole row.
    """
    is_impossible = log_terms.isneginf().all(0)
    return log_terms.masked_fill(is_impossible, 0.0).logsumexp(0).masked_fill(is_impossible, -inf)
