"""What a report says, in an order for readers: title, verdict, rows of measurements and sentences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kdzoo.core import metric_catalogue
from kdzoo.core.metric_catalogue import Metric

ROLES = ("teacher", "student", "control")


@dataclass(frozen=True)
class Row:
    """One measurement of all models.

    Attributes:
        name: Name of the metric in the report.
        label: What is written in front of the row: the name, whether it compares with the teacher, and an arrow in the
            better direction.
        metric: What the metric means; None for one that the catalogue does not list.
        cells: A text for each model, in the order of :func:`models`.
        best: Number of the best of all models but the teacher; None if no direction is better, or if all models
            that have the metric are equal.
    """

    name: str
    label: str
    metric: Metric | None
    cells: tuple[str, ...]
    best: int | None


def models(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the measurements of teacher, student and controls by role, those that the run has."""
    by_role = {role: report[role] for role in ROLES if report[role]}
    return by_role | {role: values for role, values in report["controls"].items() if role not in by_role}


def rows(report: Mapping[str, Any]) -> list[Row]:
    """Return a row for each measurement: parameters, metrics, closeness to the teacher, and the time of predictions."""
    by_role = models(report)
    row = partial(_row, report["kind"], by_role)
    result = [row("parameters", {role: model["parameters"] for role, model in by_role.items()})]
    for name in dict.fromkeys(name for model in by_role.values() for name in model["metrics"]):
        result.append(row(name, {role: model["metrics"].get(name) for role, model in by_role.items()}))
    for name in report["fidelity"].get("student", ()):
        values = {role: report["fidelity"].get(role, {}).get(name) for role in by_role}
        result.append(row(name, values, " (teacher)"))
    values = {role: model["cpu_ms_per_1000"] for role, model in by_role.items()}
    return [*result, row("cpu_ms_per_1000", values)]


def seeds_of(report: Mapping[str, Any]) -> list[int]:
    """Return the seeds of a run, in the order of the values of each measurement."""
    seed = report["seed"]
    return seed if isinstance(seed, list) else [seed]


def title(report: Mapping[str, Any]) -> str:
    """Return the method, the data and the seeds, such as ``logit_kd on digits, seeds 0, 1``."""
    seeds = seeds_of(report)
    return f"{report['distiller']} on {report['data']}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def verdict(report: Mapping[str, Any]) -> str:
    """Return the comparison of student and control in one sentence; empty without a control."""
    compared = report["comparison"]
    if not compared:
        return ""
    difference, score = compared["difference"], compared["metric"].replace("_", " ")
    spread = f" ± {compared['std']:.2g}" if compared["std"] is not None else ""
    evidence = [_n_seeds(report)]
    if compared["p"] is not None and math.isfinite(compared["p"]):
        evidence.append(f"paired t = {compared['t']:.1f}, p = {compared['p']:.2g}")
    if difference == 0:
        relation = f"The student is as good as its control in {score}"
    else:
        is_better = (difference > 0) == (compared["better"] == "higher")
        relation = f"The student is {'better' if is_better else 'worse'} than its control in {score}"
        relation += f" by {abs(difference):.4g}{spread}"
    closed = compared["gap_closed"]
    gap = f", and closes {closed:.0%} of the gap to the teacher" if closed is not None and closed > 0 else ""
    return f"{relation} ({', '.join(evidence)}){gap}."


def sentences(report: Mapping[str, Any]) -> list[str]:
    """Return what stands below the table: verdict, recommendation, warnings, published results and time."""
    lines = [verdict(report)] if report["comparison"] else []
    lines += [report["recommendation"]] if report.get("recommendation") else []
    lines += [f"Warning: {warning}." for warning in report.get("warnings", ())]
    for row in report["expected"]:
        outcome = "reproduced" if row["reached"] else "not reproduced"
        lines.append(
            f"{row['metric']}: {row['measured']:.4g}, published {row['value']:.4g} ± {row['tolerance']:.4g} "
            f"({row['source']}): {outcome}."
        )
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in report["seconds"].items())
    return [*lines, f"Time: {seconds}."]


def as_text(value: Any) -> str:
    """Return a measurement as text: one number, or the mean and the standard deviation over seeds.

    Example:
        >>> as_text(0.97833), as_text({"mean": 13.4, "std": 2.19, "values": []}), as_text(85002), as_text(None)
        ('0.9783', '13.4 ± 2.2', '85,002', '')
    """
    if value is None:  # a metric that this model does not have
        return ""
    if isinstance(value, Mapping):
        return f"{as_text(value['mean'])} ± {value['std']:.2g}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting as its dotted key and its value.

    Example:
        >>> list(flat({"student": {"hidden": [8]}, "seed": 0}))
        [('student.hidden', [8]), ('seed', 0)]
    """
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _row(kind: str, by_role: Mapping[str, Any], name: str, values: Mapping[str, Any], suffix: str = "") -> Row:
    metric = metric_catalogue.find(name, kind)
    arrow = f" {metric.arrow}" if metric is not None and metric.arrow else ""
    # A name on a page is a phrase; this one would be read as a unit.
    phrase = "CPU ms per 1,000" if name == "cpu_ms_per_1000" else name.replace("_", " ")
    cells = tuple(as_text(values[role]) for role in by_role)
    return Row(name, f"{phrase}{suffix}{arrow}", metric, cells, _best(metric, list(by_role), values))


def _best(metric: Metric | None, roles: Sequence[str], values: Mapping[str, Any]) -> int | None:
    """Return the position of the best value of all models but the teacher, which the others are made to approach."""
    if metric is None or metric.better is None:
        return None
    numbers = {
        i: values[role]["mean"] if isinstance(values[role], Mapping) else values[role]
        for i, role in enumerate(roles)
        if role != "teacher" and values[role] is not None
    }
    if len(set(numbers.values())) < 2:
        return None
    choose = max if metric.better == "higher" else min
    return choose(numbers, key=numbers.__getitem__)


def _n_seeds(report: Mapping[str, Any]) -> str:
    n = len(seeds_of(report))
    return f"{n} seeds" if n > 1 else "one seed"
