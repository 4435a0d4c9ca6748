"""The numbers of a report over all seeds: means and deviations, the paired comparison, published results."""

import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from kdzoo.errors import ConfigError

EXPECTED_KEYS = {"metric", "value", "tolerance", "better", "source"}
# Measurements that do not depend on the seed, so that a mean and a deviation would say nothing.
SAME_FOR_ALL_SEEDS = ("parameters",)
# The packages whose version can change a number in the report.
PACKAGES = ("kdzoo", "torch", "pytorch-lightning", "hydra-core", "torchmetrics", "numpy")

Scores = npt.NDArray[np.floating]


def over_seeds(values: Sequence[Any]) -> Any:
    """Merge the same measurement of several seeds: numbers become ``{mean, std, values}``.

    The standard deviation is that of a sample (n - 1). Mappings are merged key by key, except for measurements that do
    not depend on the seed; the measurement of a single seed is returned unchanged.

    Example:
        >>> over_seeds([{"accuracy": 0.5}, {"accuracy": 1.0}])["accuracy"]["mean"]
        0.75
    """
    first = values[0]
    if len(values) == 1 or first is None:
        return first
    if isinstance(first, Mapping):
        return {
            key: first[key] if key in SAME_FOR_ALL_SEEDS else over_seeds([value[key] for value in values])
            for key in first
        }
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "values": list(values)}


def means(merged: Any) -> Any:
    """Return a result of :func:`over_seeds` with the mean in place of every ``{mean, std, values}``.

    Example:
        >>> means({"student": {"kl": over_seeds([0.5, 1.5])}})
        {'student': {'kl': 1.0}}
    """
    if not isinstance(merged, Mapping):
        return merged
    return merged["mean"] if "values" in merged else {key: means(value) for key, value in merged.items()}


def comparison(
    score: str, roles: Mapping[str, Sequence[float] | None], *, lower_is_better: bool = False
) -> dict[str, Any] | None:
    """Compare student and control over the same seeds.

    Args:
        score: The name of the score.
        roles: The scores of ``student``, ``control`` and ``teacher``, one for each seed.
        lower_is_better: Whether lower scores are better.

    Returns:
        The mean paired difference of the score, its standard deviation, Student's paired t with its two-sided p-value,
        and the share of the gap between control and teacher that is closed (means over seeds). None without a control;
        ``t`` and ``p`` are None for a single seed or equal differences; ``gap_closed`` is None as :func:`gap_closed`
        says.
    """
    student, control, teacher = roles["student"], roles.get("control"), roles.get("teacher")
    if not student or not control:
        return None
    difference = np.subtract(student, control)
    spread = float(np.std(difference, ddof=1)) if len(difference) > 1 else None
    # Paired, because student and control of one seed share their initial weights and the order of the samples.
    t, p = stats.ttest_rel(student, control) if spread else (None, None)
    sign = -1 if lower_is_better else 1
    return {
        "metric": score,
        "better": "lower" if lower_is_better else "higher",
        "difference": float(difference.mean()),
        "std": spread,
        "t": None if t is None else float(t),
        "p": None if p is None else float(p),
        "gap_closed": gap_closed(*(sign * np.array(scores or []) for scores in (student, control, teacher))),
    }


def gap_closed(student: Scores, control: Scores, teacher: Scores) -> float | None:
    """Return the share of the gap between control and teacher that the student closes, by the means over the seeds.

    Args:
        student: Scores, of which larger ones are better, one for each seed.
        control: The same of the control.
        teacher: The same of the teacher; empty without one.

    Returns:
        The share. None if the teacher is not better than the control, with several seeds by two standard errors of the
        mean gap; and None if the student is worse than the control, whose distance a small gap would make very large.
    """
    if not len(teacher):
        return None
    gaps, difference = teacher - control, float((student - control).mean())
    noise = 2 * float(np.std(gaps, ddof=1)) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
    gap = float(gaps.mean())
    return difference / gap if gap > noise and difference >= 0 else None


def compare_with_expected(report: Mapping[str, Any], expected: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare measurements with published results.

    Args:
        report: The report.
        expected: Published results, each with ``metric`` (a path in the report such as ``student.metrics.errors``),
            ``value``, ``tolerance`` (how much worse than the value a measurement may be), ``better`` (``lower`` or
            ``higher``; a measurement that is better by any amount is accepted) and ``source``.

    Returns:
        The same entries with ``measured`` and ``reached``.

    Raises:
        ConfigError: An entry has other keys, or its metric is not a number in the report.
    """
    rows = []
    for entry in expected:
        if set(entry) != EXPECTED_KEYS or entry["better"] not in ("lower", "higher"):
            raise ConfigError(f"expected needs {sorted(EXPECTED_KEYS)}, with better lower or higher, got {dict(entry)}")
        measured: Any = report
        for part in str(entry["metric"]).split("."):
            measured = measured.get(part) if isinstance(measured, Mapping) else None
        if isinstance(measured, Mapping):
            measured = measured.get("mean")
        if not isinstance(measured, int | float):
            raise ConfigError(f"expected.metric {entry['metric']!r} is not a number in the report")
        # How much worse than published; negative if better.
        excess = (measured - entry["value"]) * (1 if entry["better"] == "lower" else -1)
        rows.append({**entry, "measured": measured, "reached": excess <= entry["tolerance"]})
    return rows


def versions() -> dict[str, str]:
    """Return the versions that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
