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
import shlex
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kdzoo import __version__, config
from kdzoo.config import overrides
from kdzoo.errors import ConfigError, KdzooError

PASS_ON = ("--help", "-h", "--hydra-help", "--info", "-i")
"""Flags that ask Hydra for information; nothing is run or checked."""
COMPLETION = ("--shell-completion", "-sc")
RANK_SETTINGS = "KDZOO_RANK_SETTINGS"
"""Tells the other ranks of a data-parallel run where the settings of this very run are."""
SWEEP = "KDZOO_SWEEP"
"""Tells the jobs of a sweep where to note how they ended."""


class JobFailedError(CompactHydraException):
    """One job of a sweep failed; Hydra prints the message and goes on with the others."""


def main() -> None:
    """Run the command line and leave with its exit code: 0, 1 (failed), 2 (mistakes), 128 + signal."""
    _see_own_folder()
    arguments = sys.argv[1:]
    first_word = next(iter(overrides.words(arguments).overrides), "")
    try:
        if RANK_SETTINGS in os.environ:
            _run_rank(Path(os.environ[RANK_SETTINGS]))
        elif "--version" in arguments:
            print(f"kdzoo {__version__}")
        elif set(COMPLETION) & set(arguments):
            _complete(arguments)
        elif set(PASS_ON) & set(arguments):
            _hand_to_hydra([one for one in arguments if one not in COMMANDS])
        elif first_word in COMMANDS:
            COMMANDS[first_word](_without(arguments, first_word))
        else:
            _run_hydra(arguments)
    except KdzooError as error:
        fail(error)


def _without(arguments: Sequence[str], word: str) -> list[str]:
    i = list(arguments).index(word)
    return [*arguments[:i], *arguments[i + 1 :]]


def fail(error: BaseException) -> None:
    """Print an error, a line for each mistake, and leave."""
    for line in str(error).splitlines():
        print(f"kdzoo: {line}", file=sys.stderr)
    sys.exit(2 if isinstance(error, ConfigError) else 1)


def checked(arguments: Sequence[str], *, complete: bool = True) -> tuple[overrides.Words, overrides.Checked]:
    """Return the words of a command line and what they mean.

    Raises:
        ConfigError: all mistakes, a line each.
    """
    given = overrides.words(arguments)
    result = overrides.check(given, list(COMMANDS), complete=complete)
    if result.mistakes:
        raise ConfigError("\n".join(result.mistakes))
    return given, result


def _see_own_folder() -> None:
    """Make modules in the working folder importable, for a distiller in a file of the user's own."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    paths = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


# ---------------------------------------------------------------- a run and its sweep


def _run_hydra(arguments: list[str]) -> None:
    given, result = checked(arguments)
    arguments = [*given.flags, *result.overrides]
    if not given.is_sweep:
        _hand_to_hydra(arguments)
        return
    with _summary_of_sweep():
        _hand_to_hydra(arguments)


def _hand_to_hydra(arguments: list[str]) -> None:
    sys.argv[1:] = arguments
    hydra.main(version_base="1.3", config_path="pkg://kdzoo.conf", config_name="train")(_task)()


def _task(cfg: DictConfig) -> float | None:
    """Run one job of the command line; return the student's score for a sweeper to maximise."""
    settings = HydraConfig.get()
    if cfg.output_dir is None:
        cfg.output_dir = settings.runtime.output_dir
    typed = [one.removeprefix("++") for one in settings.overrides.task]
    own = [one.path for one in settings.runtime.config_sources if one.provider == "command-line"]
    folder = Path(own[0]) if own else None
    flags = ["--config-dir", str(folder)] if folder else []
    line = shlex.join(["kdzoo", *flags, *typed])
    outcome: dict[str, Any] = {"job": typed, "status": "failed", "score": None, "folder": str(cfg.output_dir)}
    try:
        _refuse_ranks_elsewhere(cfg, settings)
        outcome["score"] = _run(cfg, overrides.allowed(typed, folder), line)
        outcome["status"] = "ok"
    except KdzooError as error:
        if settings.mode != RunMode.MULTIRUN:
            fail(error)
        raise JobFailedError("\n".join(f"kdzoo: {line}" for line in str(error).splitlines())) from None
    finally:
        if SWEEP in os.environ:
            with open(os.environ[SWEEP], "a", encoding="utf-8") as notes:
                notes.write(json.dumps(outcome) + "\n")
    return outcome["score"]


def _run(cfg: DictConfig, allow: Collection[str], line: str) -> float | None:
    from kdzoo.runs import report
    from kdzoo.runs.pipeline import run
    from kdzoo.runs.resume import Interrupted

    try:
        with _pinned_ranks(cfg, allow, line):
            result = run(cfg, allow=allow, command=line)
    except Interrupted as stop:
        print(f"kdzoo: {stop}; the same command continues the run", file=sys.stderr)
        sys.exit(stop.exit_code)
    report.show(result)
    print(f"Run folder: {cfg.output_dir}")
    value = result["student"]["metrics"].get(result["score"])
    return value["mean"] if isinstance(value, Mapping) else value


@contextmanager
def _summary_of_sweep() -> Iterator[None]:
    """Print how every job of a sweep ended, whichever launcher ran it on this machine."""
    with tempfile.NamedTemporaryFile("r", prefix="kdzoo-sweep-", encoding="utf-8") as notes:
        os.environ[SWEEP] = notes.name
        try:
            yield
        finally:
            del os.environ[SWEEP]
            _print_sweep([json.loads(line) for line in notes])


def _print_sweep(outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Print a row for each job, named by those of its settings that not all jobs have."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Sweep")
    for name in ("job", "status", "student's score", "folder"):
        table.add_column(name, overflow="fold")
    for one in outcomes:
        score = "" if one["score"] is None else f"{one['score']:.4f}"
        own = [setting for setting in one["job"] if any(setting not in other["job"] for other in outcomes)]
        table.add_row(escape("\n".join(own)), one["status"], score, os.path.relpath(one["folder"]))
    Console(highlight=False).print(table)


# ---------------------------------------------------------------- data-parallel ranks


@contextmanager
def _pinned_ranks(cfg: DictConfig, allow: Collection[str], line: str) -> Iterator[None]:
    """Give the other ranks of this very job its settings: they start as copies of the whole command line."""
    if not _has_ranks(cfg):
        yield
        return
    path = Path(cfg.output_dir) / "rank_settings.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"cfg": OmegaConf.to_container(cfg), "allow": sorted(allow), "command": line}
    path.write_text(json.dumps(content), encoding="utf-8")
    before = dict(os.environ)
    os.environ[RANK_SETTINGS] = str(path)
    try:
        yield
    finally:
        # What Lightning sets for this job would make the next job of a sweep wait for ranks that are gone.
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        path.unlink(missing_ok=True)
        _leave_process_group()


def _has_ranks(cfg: DictConfig) -> bool:
    return cfg.trainer.get("devices", 1) not in (1, "1", "auto")


def _refuse_ranks_elsewhere(cfg: DictConfig, settings: HydraConf) -> None:
    launcher = settings.runtime.choices.get("hydra/launcher", "basic")
    if _has_ranks(cfg) and settings.mode == RunMode.MULTIRUN and launcher != "basic":
        raise ConfigError(f"trainer.devices={cfg.trainer.devices} needs hydra/launcher=basic, got {launcher}")


def _leave_process_group() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _run_rank(path: Path) -> None:
    """Do the part of another rank, with the settings that the first rank resolved."""
    from kdzoo.runs.pipeline import run
    from kdzoo.runs.resume import Interrupted

    content = json.loads(path.read_text(encoding="utf-8"))
    try:
        run(OmegaConf.create(content["cfg"]), allow=content["allow"], command=content["command"])
    except Interrupted as stop:
        sys.exit(stop.exit_code)


# ---------------------------------------------------------------- Tab


def _complete(arguments: list[str]) -> None:
    """Let Hydra complete, with the config folder of the line that is being typed; add the subcommands."""
    if any(one.startswith("query=") for one in arguments):
        line = os.environ.get("COMP_LINE")
        if line is None:
            raise KdzooError('completion is asked for by the shell; install it with: eval "$(kdzoo -sc install=bash)"')
        typed = line.split()[1:]
        is_first = len(typed) == (0 if line.endswith(" ") else 1)
        if is_first:
            print(" ".join(name for name in COMMANDS if name.startswith(typed[0] if typed else "")))
        if typed and typed[0] in COMMANDS:
            settings = [word for word in typed if "=" in word or word.startswith("-")]
            os.environ["COMP_LINE"] = " ".join(["kdzoo", *settings, *([""] if line.endswith(" ") else [])])
        folder = overrides.words(typed).folder
        arguments = [*(["--config-dir", str(folder)] if folder and folder.is_dir() else []), *arguments]
    _hand_to_hydra(arguments)


# ---------------------------------------------------------------- subcommands


def _list(arguments: list[str]) -> None:
    """Print the registered distillers."""
    from rich.console import Console
    from rich.table import Table

    from kdzoo.config import registry

    given, _ = checked(arguments, complete=False)
    table = Table("distiller", "what it does", "paper", "teacher", "student")
    for row in registry.describe([given.folder] if given.folder else []):
        table.add_row(*row.values())
    Console(highlight=False).print(table)


def _cite(arguments: list[str]) -> None:
    """Print the BibTeX entries of what a run uses."""
    from kdzoo.config import registry

    _, result = checked(arguments, complete=False)
    used = [target for job in result.jobs for target in config.targets(config.to_container(_without_hydra(job)))]
    print(registry.citations(*dict.fromkeys(used)), end="")


def _evaluate(arguments: list[str]) -> None:
    """Measure an exported model on the test part of some data."""
    from kdzoo.runs.evaluation import evaluate_folder

    folders = [one for one in overrides.words(arguments).overrides if "=" not in one]
    if not folders:
        raise ConfigError("kdzoo evaluate needs the folder of an exported model: kdzoo evaluate FOLDER [data=...]")
    cfg, allow = _one_job(_without(arguments, folders[0]))
    print(json.dumps(evaluate_folder(Path(folders[0]), cfg, allow=allow), indent=2))


def _check(arguments: list[str]) -> None:
    """Run the contract checks on a distiller."""
    from kdzoo.contracts import report_checks

    cfg, allow = _one_job(arguments)
    sys.exit(0 if report_checks(cfg, allow=allow) else 1)


def _doctor(arguments: list[str]) -> None:
    """Print what is installed and whether it works."""
    from kdzoo.cli.doctor import diagnose

    if arguments:
        raise ConfigError(f"kdzoo doctor takes no arguments, got {' '.join(arguments)}")
    sys.exit(0 if diagnose() else 1)


def _one_job(arguments: list[str]) -> tuple[DictConfig, set[str]]:
    given, result = checked(arguments)
    return _without_hydra(result.jobs[0]), overrides.allowed(given.overrides, given.folder)


def _without_hydra(job: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(job, [key for key in map(str, job) if key != "hydra"])


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "list": _list,
    "cite": _cite,
    "evaluate": _evaluate,
    "check": _check,
    "doctor": _doctor,
}
