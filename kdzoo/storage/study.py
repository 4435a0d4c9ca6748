"""The study of a search by Optuna: a file in the folder of the sweep, which many processes may write to."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Study

# A log that is only appended to: unlike a database, it needs no server and no locks that survive a killed process.
FILE, NAME = "study.log", "kdzoo"


def open_study(folder: Path, **options: Any) -> "Study":
    """Return the study in a folder, which is made if there is none.

    Args:
        folder: The folder of the sweep.
        **options: Arguments of ``optuna.create_study``, such as ``direction``.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a sweep prints what becomes of its jobs itself
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / FILE)))
    return optuna.create_study(storage=storage, study_name=NAME, load_if_exists=True, **options)
