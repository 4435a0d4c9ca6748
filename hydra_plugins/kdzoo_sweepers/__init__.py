"""The sweepers of kdzoo where Hydra requires its plug-ins: below ``hydra_plugins``. The code is in ``kdzoo.cli``."""

from kdzoo.cli import launching, search


class GridSweeper(launching.GridSweeper):
    """The sweeper ``hydra/sweeper=grid``: all combinations of values."""


class OptunaSweeper(search.OptunaSweeper):
    """The sweeper ``hydra/sweeper=optuna``: a search by Optuna."""
