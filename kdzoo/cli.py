"""The command ``kdzoo``. Importing this module imports no torch, so that --help and Tab are instant.

kdzoo [overrides]              run; see the groups with --help
kdzoo -m key=a,b [overrides]   run a sweep
kdzoo list                     the registered distillers
kdzoo cite [overrides]         the citations of what a run uses
kdzoo evaluate FOLDER [data=...]   measure an exported model
kdzoo check [overrides]        the contract checks, on a distiller of your own
kdzoo doctor                   what is installed, and whether it works
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from kdzoo import config
from kdzoo.errors import KdzooError

PASS_ON = (
    "--help",
    "-h",
    "--hydra-help",
    "--version",
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--shell-completion",
    "-sc",
    "--package",
    "-p",
    "--resolve",
)
"""Flags that ask Hydra for information; nothing is run or checked."""
VALUED = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
RANK_SETTINGS = "KDZOO_RANK_SETTINGS"
"""Tells the other ranks of a data-parallel run where the settings of this very run are."""


def main() -> None:
    """Run the command line and leave with its exit code: 0, 1 (failed), 2 (mistakes), 128 + signal."""
    _see_own_folder()
    arguments = sys.argv[1:]
    try:
        if RANK_SETTINGS in os.environ:
            _run_rank(Path(os.environ[RANK_SETTINGS]))
        elif arguments and arguments[0] in COMMANDS:
            COMMANDS[arguments[0]](arguments[1:])
        else:
            _run_hydra(arguments)
    except KdzooError as error:
        fail(error)


def fail(error: BaseException) -> None:
    """Print an error, a line for each mistake, and leave."""
    from kdzoo.errors import ConfigError

    for line in str(error).splitlines():
        print(f"kdzoo: {line}", file=sys.stderr)
    sys.exit(2 if isinstance(error, ConfigError) else 1)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str], Path | None]:
    """Return flags (with their values), overrides and the user's config folder."""
    flags: list[str] = []
    overrides: list[str] = []
    folder: Path | None = None
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if argument in VALUED:
            value = next(rest, "")
            flags += [argument, value]
        elif argument.startswith("-"):
            flags.append(argument)
        else:
            overrides.append(argument)
            continue
        if name in ("--config-dir", "-cd"):
            folder = Path(value).resolve()
            flags[-1] = str(folder) if argument in VALUED else f"{name}={folder}"
    return flags, overrides, folder


def checked(arguments: Sequence[str]) -> tuple[list[str], list[str], Path | None]:
    """Return flags, overrides as Hydra must be given them, and the user's folder; leave on mistakes."""
    from kdzoo import command
    from kdzoo.errors import ConfigError

    flags, overrides, folder = split_arguments(arguments)
    result = command.check(overrides, folder, multirun=bool({"-m", "--multirun"} & set(flags)))
    if result.mistakes:
        raise ConfigError("\n".join(result.mistakes))
    return flags, result.overrides, folder


def _see_own_folder() -> None:
    """Make modules in the working folder importable, for a distiller in a file of the user's own."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    paths = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def _run_hydra(arguments: list[str]) -> None:
    config.register_resolvers()
    if not any(argument.split("=")[0] in PASS_ON for argument in arguments):
        flags, overrides, folder = checked(arguments)
        sys.argv[1:] = [*flags, *overrides]
        os.environ["KDZOO_CONFIG_DIR"] = str(folder or "")
    hydra.main(version_base="1.3", config_path="pkg://kdzoo.conf", config_name="train")(_task)()


def _task(cfg: DictConfig) -> float | None:
    """Run one job of the command line; return the student's score for a sweeper to maximise."""
    from hydra.core.hydra_config import HydraConfig

    hydra_cfg = HydraConfig.get()
    if hydra_cfg.callbacks:
        fail(KdzooError("hydra.callbacks are refused; use the callbacks group"))
    if cfg.output_dir is None:
        cfg.output_dir = hydra_cfg.runtime.output_dir
    typed = list(hydra_cfg.overrides.task)
    folder = os.environ.get("KDZOO_CONFIG_DIR", "")
    allow = sorted({*_targets_typed(typed), *(config.targets_in(Path(folder)) if folder else ())})
    flags = ["--config-dir", folder] if folder else []
    command = " ".join(["kdzoo", *flags, *map(_quoted, typed)])
    return _run(cfg, allow, command)


def _run(cfg: DictConfig, allow: Sequence[str], command: str) -> float | None:
    from kdzoo import report
    from kdzoo.pipeline import run
    from kdzoo.resume import Interrupted

    rank_settings = Path(cfg.output_dir) / "rank_settings.json"
    if cfg.trainer.get("devices", 1) not in (1, "1", "auto"):
        settings = OmegaConf.to_container(cfg, resolve=True)
        rank_settings.parent.mkdir(parents=True, exist_ok=True)
        rank_settings.write_text(json.dumps({"cfg": settings, "allow": list(allow), "command": command}))
        os.environ[RANK_SETTINGS] = str(rank_settings)
    try:
        result = run(cfg, allow=allow, command=command)
    except KdzooError as error:
        fail(error)
    except Interrupted as stop:
        print(f"kdzoo: {stop}; the same command continues the run", file=sys.stderr)
        sys.exit(stop.exit_code)
    finally:
        os.environ.pop(RANK_SETTINGS, None)
        rank_settings.unlink(missing_ok=True)
    report.show(result)
    print(f"Run folder: {cfg.output_dir}")
    score = (result["comparison"] or {"metric": "accuracy"})["metric"]
    value = result["student"]["metrics"].get(score)
    return value["mean"] if isinstance(value, dict) else value


def _run_rank(path: Path) -> None:
    """Do the part of another rank, with the settings that the first rank resolved."""
    from kdzoo.pipeline import run

    content = json.loads(path.read_text())
    run(OmegaConf.create(content["cfg"]), allow=content["allow"], command=content["command"])


def _targets_typed(overrides: Sequence[str]) -> set[str]:
    """Return the classes that the user named on the command line."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    names = {str(one.value()) for one in parsed if one.key_or_group.endswith("_target_")}
    return names.union(*(config.targets(one.value()) for one in parsed if isinstance(one.value(), dict | list)))


def _quoted(override: str) -> str:
    import shlex

    return shlex.quote(override)


def _list(arguments: list[str]) -> None:
    """Print the registered distillers."""
    from rich.console import Console
    from rich.table import Table

    from kdzoo import registry

    _, _, folder = split_arguments(arguments)
    table = Table("distiller", "what it does", "paper", "teacher", "student")
    for row in registry.describe([folder] if folder else []):
        table.add_row(*row.values())
    Console().print(table)


def _cite(arguments: list[str]) -> None:
    """Print the BibTeX entries of what a run uses."""
    from kdzoo import registry

    _, overrides, folder = checked(arguments)
    cfg = config.compose(*overrides, config_dir=folder)
    print(registry.citations(*dict.fromkeys(config.targets(config.plain_partial(cfg)))), end="")


def _evaluate(arguments: list[str]) -> None:
    """Measure an exported model on the test part of some data."""
    from kdzoo.evaluate import evaluate_folder

    if not arguments or "=" in arguments[0]:
        raise KdzooError("kdzoo evaluate needs the folder of an exported model: kdzoo evaluate FOLDER [data=...]")
    _, overrides, folder = checked(arguments[1:])
    cfg = config.compose(*overrides, config_dir=folder)
    own = config.targets_in(folder) if folder else set()
    print(json.dumps(evaluate_folder(Path(arguments[0]), cfg, allow=own), indent=2))


def _check(arguments: list[str]) -> None:
    """Run the contract checks on a distiller."""
    from kdzoo.contracts import report_checks

    _, overrides, folder = checked(arguments)
    cfg = config.compose(*overrides, config_dir=folder)
    own = config.targets_in(folder) if folder else set()
    sys.exit(0 if report_checks(cfg, allow=own) else 1)


def _doctor(arguments: list[str]) -> None:  # noqa: ARG001
    """Print what is installed and whether it works."""
    from kdzoo.doctor import diagnose

    sys.exit(0 if diagnose() else 1)


COMMANDS: dict[str, Any] = {
    "list": _list,
    "cite": _cite,
    "evaluate": _evaluate,
    "check": _check,
    "doctor": _doctor,
}
