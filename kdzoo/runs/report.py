"""The report of a run: what was measured, over all seeds, as JSON, Markdown and a table on screen."""

import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from scipy import stats

from kdzoo.errors import ConfigError

EXPECTED_KEYS = {"metric", "value", "tolerance", "better", "source"}
# Measurements that do not depend on the seed, so that a mean and a deviation would say nothing.
SAME_FOR_ALL_SEEDS = ("parameters",)
ROLES = ("teacher", "student", "control")
# The packages whose version can change a number in the report.
PACKAGES = ("kdzoo", "torch", "pytorch-lightning", "hydra-core", "torchmetrics", "numpy")


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
        ``t`` and ``p`` are None for a single seed or equal differences, ``gap_closed`` is None if the teacher is not
        better than the control.
    """
    student, control, teacher = roles["student"], roles.get("control"), roles.get("teacher")
    if not student or not control:
        return None
    difference = np.subtract(student, control)
    spread = float(np.std(difference, ddof=1)) if len(difference) > 1 else None
    # Paired, because student and control of one seed share their initial weights and the order of the samples.
    t, p = stats.ttest_rel(student, control) if spread else (None, None)
    gap = float(np.mean(teacher) - np.mean(control)) if teacher else 0.0
    return {
        "metric": score,
        "difference": float(difference.mean()),
        "std": spread,
        "t": None if t is None else float(t),
        "p": None if p is None else float(p),
        "gap_closed": float(difference.mean()) / gap if (gap < 0 if lower_is_better else gap > 0) else None,
    }


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


def to_table(report: Mapping[str, Any]) -> Table:
    """Return the table that is shown at the end of a run."""
    headers, rows = _rows(report)
    table = Table(title=_title(report), box=box.SIMPLE)
    for i, header in enumerate(headers):
        table.add_column(header, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def to_markdown(report: Mapping[str, Any], figures: Sequence[str]) -> str:
    """Return the report as Markdown; ``figures`` are paths relative to the run folder."""
    headers, rows = _rows(report)
    lines = [
        f"# {_title(report)}",
        "",
        "| " + " | ".join(headers) + " |",
        "|---" + "|---:" * (len(headers) - 1) + "|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", *_summary(report), "", "Run again:", "", "```", report["command"], "```", ""]
    lines += [f"![{figure}]({figure})" for figure in figures]
    lines += [
        "",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in report["versions"].items()),
        "",
    ]
    return "\n".join(lines)


def show(report: Mapping[str, Any]) -> None:
    """Print the table and its summary on standard output."""
    console = Console(highlight=False)
    table = to_table(report)
    # A table wider than the terminal is wrapped by the terminal; rich would cut off its columns.
    console.width = max(console.width, Measurement.get(console, console.options.update(max_width=1000), table).maximum)
    console.print(table)
    for sentence in _summary(report):
        console.print(sentence)


def _title(report: Mapping[str, Any]) -> str:
    seeds = report["seed"] if isinstance(report["seed"], list) else [report["seed"]]
    return f"{report['distiller']} on {report['data']}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _rows(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return a column for each model and a row for each measurement."""
    models = {role: report[role] for role in ROLES if report[role]}
    models |= {name: values for name, values in report["controls"].items() if name not in models}
    rows = [["parameters", *(f"{model['parameters']:,}" for model in models.values())]]
    for metric in dict.fromkeys(metric for model in models.values() for metric in model["metrics"]):
        rows.append([metric, *(_format(model["metrics"].get(metric)) for model in models.values())])
    for key in report["fidelity"].get("student", ()):
        rows.append([f"{key} (teacher)", *(_format(report["fidelity"].get(name, {}).get(key)) for name in models)])
    rows.append(["CPU ms per 1000 predictions", *(_format(model["cpu_ms_per_1000"]) for model in models.values())])
    return ["", *models], [[row[0].replace("_", " "), *row[1:]] for row in rows]


def _format(value: Any) -> str:
    """Return a measurement as text: one number, or the mean and the standard deviation over seeds."""
    if value is None:  # a metric that this model does not have
        return "-"
    if isinstance(value, Mapping):
        return f"{_format(value['mean'])} ± {value['std']:.2g}"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _summary(report: Mapping[str, Any]) -> list[str]:
    """Return the sentences below the table: comparison, recommendation, published results and time."""
    compared, lines = report["comparison"], []
    if compared:
        line = f"Student against control: {compared['difference']:+.4f} {compared['metric']}"
        if compared["p"] is not None and math.isfinite(compared["p"]):
            line += f" ± {compared['std']:.4f} (paired t = {compared['t']:.1f}, p = {compared['p']:.2g})"
        lines.append(line + ".")
        if compared["gap_closed"] is not None:
            lines.append(f"{compared['gap_closed']:.0%} of the gap between control and teacher is closed.")
    lines += [report["recommendation"]] if report.get("recommendation") else []
    for row in report["expected"]:
        verdict = "reproduced" if row["reached"] else "not reproduced"
        lines.append(
            f"{row['metric']}: {row['measured']:.4g}, published {row['value']:.4g} ± {row['tolerance']:.4g} "
            f"({row['source']}): {verdict}."
        )
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in report["seconds"].items())
    return [*lines, f"Time: {seconds}."]
