"""The contract of a distiller: checks that every registered distiller passes, and that users run on their own.

``kdzoo check distiller=my_kd --config-dir conf`` runs all of them. A check is a function of a
:class:`~kdzoo.contracts.subject.Subject`, which builds the distiller of a configuration afresh, with small models and
data, as often as the check needs it. A check that fails raises AssertionError with one line on what is wrong. A method
to which a check cannot apply declares this, with the reason, in ``MethodInfo.exempt``.
"""

import inspect
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from kdzoo import config
from kdzoo.contracts import checks
from kdzoo.contracts.arguments import check_arguments
from kdzoo.contracts.subject import Subject
from kdzoo.core.base import Distiller
from kdzoo.errors import ConfigError

# A run relies on these for every method: it writes the student, continues after an interruption and repeats a result.
NEVER_EXEMPT = frozenset({"export", "resume", "determinism"})

CHECKS: dict[str, Callable[[Subject], None]] = {
    "training": checks.check_training,
    "gradients": checks.check_gradients,
    "teacher": checks.check_teacher,
    "batch_of_one": checks.check_batch_of_one,
    "determinism": checks.check_determinism,
    "resume": checks.check_resume,
    "micro_batches": checks.check_micro_batches,
    "data_parallel": checks.check_data_parallel,
    "compile": checks.check_compile,
    "bf16": checks.check_bf16,
    "accelerator": checks.check_accelerator,
    "export": checks.check_export,
    "checkpoint": checks.check_checkpoint,
    "arguments": check_arguments,
}


def exemptions(method: type[Distiller]) -> dict[str, str]:
    """Return the checks that do not apply to a method, each with its reason.

    Raises:
        ConfigError: An exemption names no check, or one that every method must pass, or has no reason.
    """
    for name, reason in method.info.exempt.items():
        if name not in CHECKS:
            raise ConfigError(
                f"{method.__name__}.info.exempt names {name!r}, which is not a check; the checks: {list(CHECKS)}"
            )
        if name in NEVER_EXEMPT or not reason.strip():
            raise ConfigError(f"{method.__name__}.info.exempt: {name!r} may not be exempt, or the reason is missing")
    return dict(method.info.exempt)


def report_checks(cfg: DictConfig, *, allow: Collection[str] = ()) -> bool:
    """Run every check on the distiller of a configuration and print a line for each.

    Args:
        cfg: A composed configuration.
        allow: Names of your own classes that it may build.

    Returns:
        Whether all checks passed.
    """
    console = Console(highlight=False)
    reasons = exemptions(config.locate(cfg.distiller._target_))
    all_passed = True
    with tempfile.TemporaryDirectory() as folder:
        for name, check in CHECKS.items():
            if name in reasons:
                console.print(f"exempt  {name}: {reasons[name]}", markup=False)
                continue
            try:
                check(Subject(cfg, Path(folder) / name, allow))
            except Exception as error:  # any error of the method under test is a failure; the other checks still run
                all_passed = False
                error_type = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
                reason = next(iter(str(error).splitlines()), "no reason given")
                console.print(f"FAILED  {name}: {error_type}{reason}", markup=False)
            else:
                summary = inspect.getdoc(check) or ""
                console.print(f"passed  {name}: {summary}", markup=False)
    return all_passed
