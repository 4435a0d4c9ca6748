"""Many runs side by side: ranked by the student's score, and told apart by the settings in which they differ.

Runs that differ in their seeds alone are one row, with the mean and the standard deviation over all their seeds.
"""

import csv
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kdzoo.config import FREE_KEYS, registry
from kdzoo.config.override_values import as_override
from kdzoo.config.overrides import folders_of
from kdzoo.core import metric_catalogue
from kdzoo.errors import ConfigError, RunFolderError
from kdzoo.reports.content import as_text, flat, seeds_of
from kdzoo.storage import run_folder

SEED_KEYS = ("seed", "seeds")
"""Last parts of the keys that hold seeds, such as ``data.seed``."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Its folder.
        settings: Its settings by dotted key; those that change no result are left out.
        report: Its report.
    """

    folder: Path
    settings: Mapping[str, Any]
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seeds alone.

    Attributes:
        settings: The settings in which the rows of a board differ, by dotted key.
        scores: Score over all seeds of each role: ``student``, and ``control`` and ``teacher`` if there are any.
        gaps_closed: Share of the gap between control and teacher that the student closes, of each run that knows it.
        parameters: Number of the student's parameters.
        runs: The runs.
    """

    settings: Mapping[str, Any]
    scores: Mapping[str, Sequence[float]]
    gaps_closed: Sequence[float]
    parameters: int
    runs: Sequence[Run]

    def text(self, role: str) -> str:
        """Return the score of a role as text: one number, or mean and deviation; empty if there is none."""
        values = self.scores.get(role, ())
        if len(values) < 2:
            return as_text(values[0]) if values else ""
        return as_text({"mean": statistics.mean(values), "std": statistics.stdev(values)})

    @property
    def gap_closed(self) -> float | None:
        """The mean of the shares of the gap that the runs close; None if none of them is known."""
        return statistics.mean(self.gaps_closed) if self.gaps_closed else None

    @property
    def gap_text(self) -> str:
        """The share of the gap as text: one percentage, or mean and deviation over runs; empty if it is not known."""
        if len(self.gaps_closed) > 1:
            return f"{100 * statistics.mean(self.gaps_closed):.0f} ± {statistics.stdev(self.gaps_closed):.0%}"
        return "" if self.gap_closed is None else f"{self.gap_closed:.0%}"

    @property
    def setting_text(self) -> str:
        """The settings of this row as they are typed; the distiller where no setting differs."""
        return " ".join(self.setting_lines) or self.runs[0].report["distiller"]

    @property
    def setting_lines(self) -> list[str]:
        """Each setting of this row as it is typed, such as ``seed=null``."""
        return [f"{key}={as_override(value)}" for key, value in self.settings.items()]

    @property
    def score(self) -> float:
        """The mean of the student's score."""
        return statistics.mean(self.scores["student"])

    @property
    def deviation(self) -> float:
        """The standard deviation of the student's score over seeds; NaN for one seed."""
        values = self.scores["student"]
        return statistics.stdev(values) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Board:
    """Runs that can be compared: they have the same score on the same data, and as many test samples.

    Attributes:
        data: Name of the data.
        metric: Name of the score.
        better: ``higher`` or ``lower``.
        rows: The rows, the best one first.
    """

    data: str
    metric: str
    better: str
    rows: Sequence[Row]

    @property
    def varied(self) -> list[str]:
        """The settings in which the rows differ."""
        return list(self.rows[0].settings)

    @property
    def title(self) -> str:
        """The score and the data, such as ``accuracy ↑ on digits``."""
        return f"{self.metric.replace('_', ' ')} {'↑' if self.better == 'higher' else '↓'} on {self.data}"

    @property
    def best(self) -> str:
        """The best row in one sentence."""
        row = self.rows[0]
        control = f", its control {row.text('control')}" if "control" in row.scores else ""
        name = self.metric.replace("_", " ")
        return f"Best of {len(self.rows)}: {name} {row.text('student')} with {row.setting_text}{control}."


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """Return the finished runs in folders and below them.

    Raises:
        ConfigError: There is no such folder, or none of them holds a finished run.
        RunFolderError: A report or a configuration cannot be read.
    """
    folders, runs = list(folders), {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"kdzoo report {folder}: there is no such folder")
        for path in sorted(folder.rglob("report.json")):
            if (path.parent / "config.yaml").exists():
                runs[path.parent.resolve()] = _read(path.parent)
    if not runs:
        raise ConfigError(f"kdzoo report {' '.join(map(str, folders))}: there is no finished run in it")
    return list(runs.values())


def boards(runs: Iterable[Run]) -> list[Board]:
    """Return a board for each combination of data, test samples and score among the runs, in the order of the runs."""
    comparable: dict[tuple[str, str, int], list[Run]] = {}
    for run in runs:
        # Trial runs measure fewer samples than others on the same data.
        n_test = run.report["splits"]["n_test"]
        comparable.setdefault((run.report["data"], run.report["score"], n_test), []).append(run)
    return [_board(data, metric, group) for (data, metric, _), group in comparable.items()]


def varied_settings(runs: Sequence[Run]) -> list[str]:
    """Return the keys that all runs have and in which they differ, other than seeds."""
    first = runs[0].settings
    common = [key for key in first if all(key in run.settings for run in runs)]
    return [key for key in common if not is_seed(key) and any(run.settings[key] != first[key] for run in runs)]


def is_seed(key: str) -> bool:
    """Return whether a dotted key holds a seed."""
    return key.rpartition(".")[2] in SEED_KEYS


def write_csv(boards: Iterable[Board], path: Path) -> None:
    """Write a line for each row of all boards, with plain numbers."""
    lines = [line for board in boards for line in _lines(board)]
    # Boards of other data can have other settings and scores; a cell that a line lacks stays empty.
    names = list(dict.fromkeys(name for line in lines for name in line))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(lines)


def _read(folder: Path) -> Run:
    report = run_folder.read_report(folder / "report.json")
    settings = run_folder.read_settings(folder / "config.yaml")
    if report is None:
        raise RunFolderError(f"{folder} does not hold the report and the configuration of a run")
    return Run(folder, {key: value for key, value in flat(settings) if key.split(".")[0] not in FREE_KEYS}, report)


def _board(data: str, metric: str, runs: Sequence[Run]) -> Board:
    varied = varied_settings(runs)
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        # Runs that differ in a key that only some of them have are different rows as well.
        others = {key: _number_or_same(value) for key, value in run.settings.items() if not is_seed(key)}
        by_settings.setdefault(repr(sorted(others.items())), []).append(run)
    rows = [_row(varied, metric, group) for group in by_settings.values()]
    known = metric_catalogue.find(metric, runs[0].report["kind"])
    better = known.better if known is not None and known.better is not None else "higher"
    sign = -1 if better == "higher" else 1
    # A run whose score is not a number comes last, whatever is better.
    return Board(data, metric, better, sorted(rows, key=lambda row: (math.isnan(row.score), sign * row.score)))


def _row(varied: Sequence[str], metric: str, runs: Sequence[Run]) -> Row:
    scores = {role: values for role in ("student", "control", "teacher") if (values := _scores(role, metric, runs))}
    scores.setdefault("student", [math.nan])
    return Row(
        dict(_named(key, runs[0]) for key in varied),
        scores,
        _gaps_closed(runs),
        runs[0].report["student"]["parameters"],
        runs,
    )


def _scores(role: str, metric: str, runs: Sequence[Run]) -> list[float]:
    """Return the score of a role for each seed of the runs; a seed that several runs have counts once."""
    by_seed: dict[int, float] = {}
    for run in runs:
        value = (run.report.get(role) or {}).get("metrics", {}).get(metric)
        if value is not None:
            values = value["values"] if isinstance(value, Mapping) else [value]
            for seed, score in zip(seeds_of(run.report), values, strict=True):
                by_seed.setdefault(seed, score)
    return list(by_seed.values())


def _gaps_closed(runs: Sequence[Run]) -> list[float]:
    """Return the share of the gap that each run closes, where it is known; runs of the same seeds count once."""
    by_seeds: dict[tuple[int, ...], float] = {}
    for run in runs:
        compared = run.report["comparison"]
        if compared and compared["gap_closed"] is not None:
            by_seeds.setdefault(tuple(seeds_of(run.report)), compared["gap_closed"])
    return list(by_seeds.values())


def _number_or_same(value: Any) -> Any:
    """Return an integer as a float, since ``temperature=4`` and ``temperature=4.0`` are the same setting."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _named(key: str, run: Run) -> tuple[str, Any]:
    """Return the key and the value of a setting as they are typed: a class by the name of its YAML file."""
    value, (owner, _, last) = run.settings[key], key.rpartition(".")
    if last != "_target_":
        return key, value
    return owner, _option_name(owner, str(value), tuple(folders_of(run.report["command"])))


@cache
def _option_name(group: str, target: str, folders: tuple[Path, ...]) -> str:
    """Return the name of the file that builds a class; that of the class alone if there is none."""
    return registry.name_of(group, target, folders)


def _lines(board: Board) -> Iterator[dict[str, Any]]:
    for row in board.rows:
        line: dict[str, Any] = {"data": board.data, "metric": board.metric, **row.settings}
        for role, values in row.scores.items():
            line[role] = statistics.mean(values)
            line[f"{role}_std"] = statistics.stdev(values) if len(values) > 1 else None
        line |= {
            "n_seeds": len(row.scores["student"]),
            "gap_closed": row.gap_closed,
            "gap_closed_std": statistics.stdev(row.gaps_closed) if len(row.gaps_closed) > 1 else None,
            "parameters": row.parameters,
            "command": " ; ".join(run.report["command"] for run in row.runs),
            "folder": " ".join(str(run.folder) for run in row.runs),
        }
        yield line
