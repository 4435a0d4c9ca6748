"""The loss terms of the distillers, one position at a time in float64 NumPy, as the papers write them.

A position is a row of logits; ``valid_rows`` and ``labelled_rows`` say which positions have a term, in row-major order.
"""

import numpy as np
from torch.nn import CrossEntropyLoss

IGNORE = CrossEntropyLoss().ignore_index  # the value that torch's losses skip, whatever kdzoo says


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of one row of logits at a temperature (Hinton et al. 2015, equation 1)."""
    powers = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    return powers / powers.sum()


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) of two distributions."""
    return float(sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q, strict=True) if a > 0))


def valid_rows(mask: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Which of the positions, flattened, are valid."""
    return np.ones(shape, bool).ravel() if mask is None else mask.ravel()


def labelled_rows(target: np.ndarray | None, mask: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Which of the positions, flattened, are valid and have a label."""
    if target is None:
        return np.zeros(shape, bool).ravel()
    return valid_rows(mask, shape) & (target.ravel() != IGNORE)


def soft(student: np.ndarray, teacher: np.ndarray, rows: np.ndarray, temperature: float) -> list[float]:
    """T^2 KL(teacher || student) at temperature T (Hinton et al. 2015, section 2)."""
    pairs = zip(_flat(student)[rows], _flat(teacher)[rows], strict=True)
    return [temperature**2 * divergence(probabilities(t, temperature), probabilities(s, temperature)) for s, t in pairs]


def hard(student: np.ndarray, target: np.ndarray | None, rows: np.ndarray) -> list[float]:
    """The negative log-probability of the label."""
    if target is None:
        return []
    pairs = zip(_flat(student)[rows], target.ravel()[rows], strict=True)
    return [float(-np.log(probabilities(s)[y])) for s, y in pairs]


def match(student: np.ndarray, teacher: np.ndarray, rows: np.ndarray) -> list[float]:
    """Half the mean squared difference of zero-meaned logits (Hinton et al. 2015, section 2.1)."""
    pairs = zip(_flat(student)[rows], _flat(teacher)[rows], strict=True)
    return [float(np.mean(((s - s.mean()) - (t - t.mean())) ** 2) / 2) for s, t in pairs]


def decoupled(
    student: np.ndarray, teacher: np.ndarray, target: np.ndarray | None, rows: np.ndarray, temperature: float
) -> tuple[list[float], list[float]]:
    """TCKD and NCKD times T^2 (Zhao et al. 2022, equations 6 and 7); the teacher's choice where no label is."""
    classes = np.full(len(rows), IGNORE) if target is None else target.ravel()
    target_terms, other_terms = [], []
    for s, t, y in zip(_flat(student)[rows], _flat(teacher)[rows], classes[rows], strict=True):
        label = int(t.argmax()) if y == IGNORE else int(y)
        p, q = probabilities(t, temperature), probabilities(s, temperature)
        binary = [np.array([r[label], 1 - r[label]]) for r in (p, q)]
        others = [np.delete(r, label) / (1 - r[label]) for r in (p, q)]
        target_terms.append(temperature**2 * divergence(*binary))
        other_terms.append(temperature**2 * divergence(*others))
    return target_terms, other_terms


def mean_of_probabilities(members: list[np.ndarray]) -> np.ndarray:
    """The logarithm of the mean of the members' probabilities, logits [b, c] each."""
    rows = zip(*members, strict=True)
    return np.array([np.log(np.mean([probabilities(member) for member in row], axis=0)) for row in rows])


def linear(features: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A linear map of the last axis."""
    return np.einsum("...i,oi->...o", features, weight) + bias


def pointwise(features: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A linear map of the channels of [b, c, h, w], the same at every pixel."""
    return np.einsum("bihw,oi->bohw", features, weight[:, :, 0, 0]) + bias[:, None, None]


def _flat(logits: np.ndarray) -> np.ndarray:
    return logits.reshape(-1, logits.shape[-1]).astype(np.float64)
