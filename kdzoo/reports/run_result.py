"""What ``kdzoo.run`` returns: the report as a dictionary that shows itself as a table, and the files of the run."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdzoo.errors import ConfigError
from kdzoo.reports import content, terminal
from kdzoo.reports.html import to_table

if TYPE_CHECKING:
    from torch import nn


class RunResult(dict[str, Any]):
    """The report of a finished run, a dictionary with the keys that ``docs/report.md`` describes.

    It is printed as the table and the sentences that the command line shows; a notebook shows it as an HTML table.

    Args:
        report: The report.
        folder: The run folder.
        allow: Names of your own classes that the student may be built from; packaged ones are always allowed.

    Attributes:
        folder: The run folder.
    """

    def __init__(self, report: Mapping[str, Any], folder: Path, allow: Collection[str] = ()) -> None:
        super().__init__(report)
        self.folder = folder
        self._allow = frozenset(allow)

    @property
    def page(self) -> Path:
        """The HTML page of the run, with its figures and settings."""
        return self.folder / "report.html"

    def load_student(self, seed: int | None = None) -> "nn.Module":
        """Return the exported student in eval mode, on the CPU.

        Args:
            seed: One of the seeds of the run; None for the first.

        Raises:
            ConfigError: The run does not have this seed.
            CheckpointError: A file is missing or corrupt.
        """
        # Imported here, because the import is slow, and the command shows a finished run without it.
        from kdzoo.storage.checkpoint import load_student

        seeds = content.seeds_of(self)
        if seed is not None and seed not in seeds:
            raise ConfigError(f"seed must be one of the seeds of this run, {seeds}, got {seed!r}")
        folder = self.folder if seed is None else self.folder / f"seed_{seed}"
        return load_student(folder / "student", allow=self._allow)

    def __repr__(self) -> str:
        return f"{terminal.to_text(self)}\nRun folder: {self.folder}"

    def _repr_html_(self) -> str:
        return to_table(self, self.folder)
