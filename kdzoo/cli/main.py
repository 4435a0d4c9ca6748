"""The command ``kdzoo``. Importing this module does not import torch, so that --help and completion are instant.

``kdzoo --help`` lists the subcommands: :mod:`kdzoo.cli.usage`.
"""

import gc
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kdzoo import __version__, config
from kdzoo.cli import ranks, sweeps
from kdzoo.config import overrides
from kdzoo.errors import ConfigError, KdzooError

HELP_FLAGS = ("--help", "-h")
# Flags that ask Hydra for information; nothing is run or checked.
HYDRA_INFO_FLAGS = ("--hydra-help", "--info", "-i")
COMPLETION_FLAGS = ("--shell-completion", "-sc")
# Conventional exit codes; Interrupted adds 128 + signal.
FAILURE, USAGE_ERROR = 1, 2


class JobFailedError(CompactHydraException):
    """One job of a sweep failed; Hydra prints the message and continues with the others."""


def main() -> None:
    """Run the command line and exit with 0, 1 (failed), 2 (mistakes in the command line) or 128 + signal."""
    _replace_unencodable_characters()
    _make_working_folder_importable()
    arguments = sys.argv[1:]
    first_word = next(iter(overrides.parse(arguments).overrides), "")
    try:
        if ranks.is_other_rank():
            ranks.run_rank()
        elif "--version" in arguments:
            print(f"kdzoo {__version__}")
        elif set(COMPLETION_FLAGS) & set(arguments):
            _complete(arguments)
        elif set(HELP_FLAGS) & set(arguments):
            _help(arguments)
        elif set(HYDRA_INFO_FLAGS) & set(arguments):
            _start_hydra([argument for argument in arguments if argument not in COMMANDS])
        elif first_word in COMMANDS:
            COMMANDS[first_word](_without(arguments, first_word))
        else:
            _run_hydra(arguments)
    except KdzooError as error:
        fail(error)
    except KeyboardInterrupt:  # before the training, which stops between two steps and says so
        print("kdzoo: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # the reader, such as head, has closed the pipe; a flush at exit would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)


def _without(arguments: Sequence[str], word: str) -> list[str]:
    """Return the arguments without the first occurrence of a word."""
    i = list(arguments).index(word)
    return [*arguments[:i], *arguments[i + 1 :]]


def fail(error: BaseException) -> None:
    """Print an error, a line for each mistake, and exit."""
    for line in str(error).splitlines():
        print(f"kdzoo: {line}", file=sys.stderr)
    sys.exit(USAGE_ERROR if isinstance(error, ConfigError) else FAILURE)


def checked(arguments: Sequence[str], *, complete: bool = True) -> tuple[overrides.CommandLine, overrides.CheckResult]:
    """Return a parsed command line and the result of checking it.

    Args:
        arguments: The arguments, without the name of the command.
        complete: Whether settings that are still missing (``???``) are mistakes.

    Raises:
        ConfigError: There are mistakes; the message has a line for each.
    """
    line = overrides.parse(arguments)
    result = overrides.check(line, list(COMMANDS), complete=complete)
    if result.mistakes:
        raise ConfigError("\n".join(result.mistakes))
    return line, result


def _replace_unencodable_characters() -> None:
    """Print ``?`` for characters that the terminal's encoding lacks, instead of failing after hours of training."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _make_working_folder_importable() -> None:
    """Make modules in the working folder importable, for a user-defined distiller.

    A console script, unlike ``python -m``, does not have that folder on its path. The processes of a launcher and the
    ranks of a data-parallel run find it through PYTHONPATH.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    paths = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


# ---------------------------------------------------------------- a run and its sweep


def _run_hydra(arguments: list[str]) -> None:
    line, result = checked(arguments)
    arguments = [*line.flags, *result.overrides]
    if not line.is_sweep:
        # Hydra composes the configuration once more to look for its mode, which is known here.
        is_run = not line.shows_settings and all(job.hydra.mode != RunMode.MULTIRUN for job in result.jobs)
        _start_hydra(["--run", *arguments] if is_run else arguments)
        return
    with sweeps.summary(len(result.jobs), line.overrides):
        _start_hydra(arguments)


def _start_hydra(arguments: list[str]) -> None:
    sys.argv[1:] = arguments
    hydra.main(version_base="1.3", config_path="pkg://kdzoo.conf", config_name="train")(_task)()


def _task(cfg: DictConfig) -> float | None:
    """Run one job of the command line; return the student's score for a sweeper to maximise."""
    settings = cast(DictConfig, HydraConfig.get())  # Hydra annotates the structure, and returns the configuration
    if cfg.output_dir is None:
        cfg.output_dir = settings.runtime.output_dir
    # The prefix was added by overrides.check; the line in the report is the one that a user types.
    job = [override.removeprefix("++") for override in settings.overrides.task]
    config_folders = [source.path for source in settings.runtime.config_sources if source.provider == "command-line"]
    folder = Path(config_folders[0]) if config_folders else None
    flags = ["--config-dir", str(folder)] if folder else []
    line = shlex.join(["kdzoo", *flags, *job])
    outcome: dict[str, Any] = {"job": job, "status": "failed", "score": None, "folder": str(cfg.output_dir)}
    try:
        ranks.check_launcher(cfg, settings)
        sweeps.announce(settings, job)
        outcome["score"] = _run(cfg, overrides.allowed_targets(job, folder), line)
        outcome["status"] = "ok"
    except KdzooError as error:
        if settings.mode != RunMode.MULTIRUN:
            fail(error)
        raise JobFailedError("\n".join(f"kdzoo: {line}" for line in str(error).splitlines())) from None
    finally:
        sweeps.note(outcome)
    return outcome["score"]


def _run(cfg: DictConfig, allow: Collection[str], line: str) -> float | None:
    from kdzoo.reports import terminal
    from kdzoo.storage import run_folder

    settings = config.to_container(cfg)
    # A finished run is shown at once. Only what is left to compute needs PyTorch, whose import takes seconds.
    result = run_folder.finished_report(Path(cfg.output_dir), settings, free=config.FREE_KEYS)
    if result is None:
        result = _compute(cfg, allow, line)
    elif cfg.get("logger"):
        print("kdzoo: this run has finished before; nothing is trained, and nothing logged", file=sys.stderr)
    terminal.show(result)
    print(f"Run folder: {cfg.output_dir}")
    value = result["student"]["metrics"].get(result["score"])
    return value["mean"] if isinstance(value, Mapping) else value


def _compute(cfg: DictConfig, allow: Collection[str], line: str) -> dict[str, Any]:
    from kdzoo.runs.pipeline import run
    from kdzoo.runs.resume import Interrupted

    try:
        with ranks.pinned_ranks(cfg, allow, line):
            return run(cfg, allow=allow, command=line)
    except Interrupted as stop:
        print(f"kdzoo: {stop}; the same command continues the run", file=sys.stderr)
        sys.exit(stop.exit_code)


# ---------------------------------------------------------------- completion


def _complete(arguments: list[str]) -> None:
    """Let Hydra complete, with the config folder of the line that is being typed, and add the subcommands."""
    if any(argument.startswith("query=") for argument in arguments):
        line = os.environ.get("COMP_LINE")
        if line is None:
            raise KdzooError('completion is asked for by the shell; install it with: eval "$(kdzoo -sc install=bash)"')
        typed = line.split()[1:]
        is_first = len(typed) == (0 if line.endswith(" ") else 1)
        if is_first:
            print(" ".join(name for name in COMMANDS if name.startswith(typed[0] if typed else "")))
        if typed and typed[0] in COMMANDS:  # Hydra does not know the subcommands
            settings = [word for word in typed if "=" in word or word.startswith("-")]
            os.environ["COMP_LINE"] = " ".join(["kdzoo", *settings, *([""] if line.endswith(" ") else [])])
        folder = overrides.parse(typed).folder
        arguments = [*(["--config-dir", str(folder)] if folder and folder.is_dir() else []), *arguments]
    _start_hydra(arguments)


# ---------------------------------------------------------------- subcommands


def _help(arguments: list[str]) -> None:
    """Print the commands, the config groups and examples."""
    from kdzoo.cli.usage import print_usage

    folder = overrides.parse(arguments).folder
    print_usage(folder if folder and folder.is_dir() else None)


def _list(arguments: list[str]) -> None:
    """List the registered distillers, or describe one of them."""
    from kdzoo.cli.listing import print_method, print_methods

    names = _words(arguments)
    line, _ = checked([word for word in arguments if word not in names], complete=False)
    folders = [line.folder] if line.folder else []
    if len(names) > 1:
        raise ConfigError(f"kdzoo list takes one name at most, got {' '.join(names)}")
    if names:
        print_method(names[0], folders)
    else:
        print_methods(folders)


def _explain(arguments: list[str]) -> None:
    """Say what a metric means."""
    from kdzoo.cli.listing import print_metric

    print_metric(" ".join(arguments))


def _cite(arguments: list[str]) -> None:
    """Print the BibTeX entries of what a run uses."""
    from kdzoo.config import registry

    _, result = checked(arguments, complete=False)
    used = [target for job in result.jobs for target in config.targets(config.to_container(_without_hydra(job)))]
    print(registry.citations(*dict.fromkeys(used)), end="")


def _evaluate(arguments: list[str]) -> None:
    """Measure an exported model on the test split of some data, by default those of the run that made it."""
    folders = _words(arguments)
    if not folders:
        raise ConfigError("kdzoo evaluate needs the folder of an exported model: kdzoo evaluate FOLDER [data=...]")
    if not Path(folders[0]).is_dir():
        raise ConfigError(f"kdzoo evaluate {folders[0]}: there is no such folder")
    cfg, allow = _one_job(_without(arguments, folders[0]))
    from kdzoo.runs.evaluation import evaluate_folder, with_data_of_run

    if not any(word.startswith(("data=", "data.")) for word in arguments):
        cfg = with_data_of_run(cfg, Path(folders[0]))
    print(json.dumps(evaluate_folder(Path(folders[0]), cfg, allow=allow), indent=2))


def _report(arguments: list[str]) -> None:
    """Rank the finished runs in some folders, and write a page and a table about them."""
    from kdzoo.cli.sweeps import show_runs

    folders = _words(arguments)
    if not folders or len(folders) < len(arguments):
        raise ConfigError(f"kdzoo report takes folders with finished runs, got {' '.join(arguments) or 'none'}")
    paths = [Path(folder) for folder in folders]
    show_runs(paths, Path(os.path.commonpath([path.resolve() for path in paths])), "Leaderboard")


def _check(arguments: list[str]) -> None:
    """Run the contract checks on a distiller."""
    from kdzoo.contracts import report_checks

    cfg, allow = _one_job(arguments)
    sys.exit(0 if report_checks(cfg, allow=allow) else FAILURE)


def _schema(arguments: list[str]) -> None:
    """Print the JSON Schema of the files that configure a run, or of the files of one config group."""
    from kdzoo.config import schema

    line = overrides.parse(arguments)
    if line.mistakes or len(line.overrides) > 1:
        raise ConfigError(f"kdzoo schema takes one config group at most, got {' '.join(arguments)}")
    # The syntax trees of a hundred modules live until the end; searching them for garbage takes a quarter of the time.
    gc.disable()
    print(json.dumps(schema.document("".join(line.overrides), line.folder), indent=1))


def _doctor(arguments: list[str]) -> None:
    """Check what is installed and whether it works, and print the findings."""
    from kdzoo.cli.doctor import diagnose

    if arguments:
        raise ConfigError(f"kdzoo doctor takes no arguments, got {' '.join(arguments)}")
    sys.exit(0 if diagnose() else FAILURE)


def _words(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a subcommand that are neither settings nor flags."""
    return [word for word in overrides.parse(arguments).overrides if "=" not in word]


def _one_job(arguments: list[str]) -> tuple[DictConfig, set[str]]:
    """Return the configuration of a command line without a sweep, and the names that may be built."""
    line, result = checked(arguments)
    return _without_hydra(result.jobs[0]), overrides.allowed_targets(line.overrides, line.folder)


def _without_hydra(job: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(job, [key for key in map(str, job) if key != "hydra"])


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "list": _list,
    "explain": _explain,
    "cite": _cite,
    "evaluate": _evaluate,
    "report": _report,
    "check": _check,
    "schema": _schema,
    "doctor": _doctor,
}
