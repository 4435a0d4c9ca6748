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
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from kdzoo import __version__, config
from kdzoo.cli import ranks, sweep_jobs, sweeps, working_folder
from kdzoo.cli.printed_warnings import print_as_lines
from kdzoo.config import overrides
from kdzoo.config.processes import is_first_process, leave_group
from kdzoo.config.sweepers import BASIC, GRID, OPTUNA
from kdzoo.errors import ConfigError, KdzooError

HELP_FLAGS = ("--help", "-h")
# Flags that ask Hydra for information; nothing is run or checked.
HYDRA_INFO_FLAGS = ("--hydra-help", "--info", "-i")
COMPLETION_FLAGS = ("--shell-completion", "-sc")
# Conventional exit codes; Interrupted adds 128 + signal.
FAILURE, USAGE_ERROR = 1, 2


def main() -> None:
    """Run the command line and exit with 0, 1 (failed), 2 (mistakes in the command line) or 128 + signal."""
    _replace_unencodable_characters()
    print_as_lines()
    working_folder.keep_out_of_child_processes()
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
    if complete or line.folder is not None:  # otherwise there are only packaged classes, of which nothing is built
        working_folder.make_importable()
    result = overrides.check(line, list(COMMANDS), complete=complete)
    used = {target for job in result.jobs for target in config.targets(OmegaConf.to_container(_without_hydra(job)))}
    mistakes = [*working_folder.hidden_modules(sorted(used - config.packaged_targets())), *result.mistakes]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return line, result


def _replace_unencodable_characters() -> None:
    """Print ``?`` for characters that the terminal's encoding lacks, instead of failing after hours of training."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


# ---------------------------------------------------------------- a run and its sweep


def _run_hydra(arguments: list[str]) -> None:
    line, result = checked(arguments)
    arguments = [*line.flags, *result.overrides]
    settings = result.jobs[0].hydra
    if line.shows_settings or not (line.is_sweep or settings.mode == RunMode.MULTIRUN):
        # Hydra composes the configuration once more to look for its mode, which is known here.
        _start_hydra(arguments if line.shows_settings else ["--run", *arguments])
        return
    target = settings.sweeper.get("_target_")
    arguments += ["hydra/sweeper=grid"] if target == BASIC else []
    is_numbered = target in (BASIC, GRID, OPTUNA)
    typed = [*line.overrides, *result.params]
    sweep = sweep_jobs.begin(Path(settings.sweep.dir), typed, result.planned, is_numbered=is_numbered)
    sweeps.run(sweep, lambda: _start_hydra(arguments))


def _start_hydra(arguments: list[str], task: Callable[[DictConfig], Any] | None = None) -> None:
    from hydra_plugins import kdzoo_sweepers

    # Hydra looks for plug-ins in folders, and does not see those of an editable installation.
    for sweeper in (kdzoo_sweepers.GridSweeper, kdzoo_sweepers.OptunaSweeper):
        Plugins.instance().register(sweeper)
    sys.argv[1:] = arguments
    hydra.main(version_base="1.3", config_path="pkg://kdzoo.conf", config_name="train")(task or _task)()


def _task(cfg: DictConfig) -> float | None:
    """Run one job of the command line; return the student's score for a sweeper."""
    working_folder.make_importable()  # in the worker processes of a launcher too
    print_as_lines()
    settings = cast(DictConfig, HydraConfig.get())  # Hydra annotates the structure, and returns the configuration
    if cfg.output_dir is None:
        cfg.output_dir = settings.runtime.output_dir
    job, folder = _job_and_folder(settings)
    flags = ["--config-dir", str(folder)] if folder else []
    line = shlex.join(["kdzoo", *flags, *job])
    try:
        with sweeps.noted(settings, job, Path(cfg.output_dir)) as result:
            ranks.check_launcher(cfg, settings)
            sweeps.announce(settings, job, has_teacher=sweeps.uses_teacher(cfg))
            report = _run(cfg, overrides.allowed_targets(job, folder), line)
            result |= {"score": _score(report), "metric": report["score"], "validation": report.get("validation")}
            result |= {key: report[key] for key in ("kind", "data")}
    except KdzooError as error:
        fail(error)
    return sweep_jobs.searched_score(result)  # None of a run that was pruned


def _job_and_folder(settings: DictConfig) -> tuple[list[str], Path | None]:
    """Return the overrides of a job as a user types them, and the user's config folder, from Hydra's own settings."""
    # The prefix was added by overrides.check.
    job = [override.removeprefix("++") for override in settings.overrides.task]
    config_folders = [source.path for source in settings.runtime.config_sources if source.provider == "command-line"]
    return job, Path(config_folders[0]) if config_folders else None


def _score(report: Mapping[str, Any]) -> float | None:
    """Return the student's score, of several seeds their mean."""
    value = report["student"]["metrics"].get(report["score"])
    return value["mean"] if isinstance(value, Mapping) else value


def _run(cfg: DictConfig, allow: Collection[str], line: str) -> dict[str, Any]:
    """Run one configuration or show its finished run; return its report."""
    from kdzoo.reports import terminal
    from kdzoo.storage import run_folder

    settings = config.plain_settings(cfg)
    # A finished run is shown at once. Only what is left to compute needs PyTorch, whose import takes seconds.
    result = run_folder.finished_report(Path(cfg.output_dir), settings, free=config.FREE_WHEN_CONTINUED)
    if result is None:
        result = _compute(cfg, allow, line, wait=HydraConfig.get().mode == RunMode.MULTIRUN)
    elif cfg.get("logger"):
        print("kdzoo: this run has finished before; nothing is trained, and nothing logged", file=sys.stderr)
    if is_first_process():
        terminal.show(result)
        print(f"Run folder: {cfg.output_dir}")
    return result


def _compute(cfg: DictConfig, allow: Collection[str], line: str, *, wait: bool) -> dict[str, Any]:
    """Run one configuration; a job of a sweep waits for another sweep that is at the same run."""
    from kdzoo.runs.pipeline import run
    from kdzoo.runs.resume import Interrupted

    try:
        with ranks.pinned_ranks(cfg, allow, line):
            return run(cfg, allow=allow, command=line, wait=wait)
    except Interrupted as stop:
        print(f"kdzoo: {stop}; the same command continues the run", file=sys.stderr)
        raise sweeps.StoppedBySignal(stop.exit_code) from None


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
    """List the registered distillers, or describe an option of any config group."""
    from kdzoo.cli.listing import print_methods, print_named

    names = _words(arguments)
    line, _ = checked([word for word in arguments if word not in names], complete=False)
    folders = [line.folder] if line.folder else []
    if len(names) > 1:
        raise ConfigError(f"kdzoo list takes one name at most, got {' '.join(names)}")
    if names:
        print_named(names[0], folders)
    else:
        print_methods(folders)


def _explain(arguments: list[str]) -> None:
    """Say what a metric means."""
    from kdzoo.cli.listing import print_metric

    print_metric(" ".join(arguments))


def _cite(arguments: list[str]) -> None:
    """Print the BibTeX entries of what a run uses; a word is the name of a distiller or of an experiment."""
    from kdzoo.cli.listing import group_of_cited
    from kdzoo.config import registry

    groups, names = config.groups(overrides.parse(arguments).folder), _words(arguments)
    chosen = [f"{group_of_cited(name, groups)}={name}" for name in names]
    _, result = checked([*(word for word in arguments if word not in names), *chosen], complete=False)
    used = [target for job in result.jobs for target in config.targets(config.to_container(_without_hydra(job)))]
    citations = registry.citations(*dict.fromkeys(used))
    if citations.strip():
        print(citations, end="")
    else:  # not an error, and kept out of a file of entries
        print("kdzoo: nothing to cite: the distiller declares no bibtex in its MethodInfo", file=sys.stderr)


def _evaluate(arguments: list[str]) -> None:
    """Measure an exported model on the test split of some data, by default those of the run that made it."""
    folders = _words(arguments)
    if not folders:
        raise ConfigError("kdzoo evaluate needs the folder of an exported model: kdzoo evaluate FOLDER [data=...]")
    if not Path(folders[0]).is_dir():
        raise ConfigError(f"kdzoo evaluate {folders[0]}: there is no such folder")
    cfg, allow = _one_job(_without(arguments, folders[0]))
    from kdzoo.runs.evaluation import evaluate_folder
    from kdzoo.runs.written_settings import with_data_of_run

    if not any(word.startswith(("data=", "data.")) for word in arguments):
        cfg = with_data_of_run(cfg, Path(folders[0]))
    print(json.dumps(evaluate_folder(Path(folders[0]), cfg, allow=allow), indent=2))


def _report(arguments: list[str]) -> None:
    """Rank the finished runs in some folders, and write a page and a table about them."""
    folders = _words(arguments)
    if not folders or len(folders) < len(arguments):
        raise ConfigError(f"kdzoo report takes folders with finished runs, got {' '.join(arguments) or 'none'}")
    paths = [Path(folder) for folder in folders]
    sweeps.show_runs(paths, Path(os.path.commonpath([path.resolve() for path in paths])), "Leaderboard")


def _sweep(arguments: list[str]) -> None:
    """Print the jobs of a sweep and their states, rank those that are done, and write a page and a table about them."""
    if len(arguments) != 1:
        raise ConfigError(f"kdzoo sweep takes the folder of one sweep, got {' '.join(arguments) or 'none'}")
    sweep = sweep_jobs.read(Path(arguments[0]))
    sweeps.show(sweep, sweep.jobs())


def _cache(arguments: list[str]) -> None:
    """Store the teacher's outputs that runs read, together with all other processes that do so."""
    from kdzoo.cli import caching

    leave_group()
    line, result = checked(arguments)
    if not line.is_sweep:
        return caching.fill(*_one_job(arguments))
    return caching.launch(lambda: _start_hydra([*line.flags, *result.overrides], _cache_job))


def _cache_job(cfg: DictConfig) -> None:
    """Do ``kdzoo cache`` for one job of a sweep, in this process or in one of a launcher."""
    from kdzoo.cli.caching import fill_for_job

    working_folder.make_importable()  # in the worker processes of a launcher too
    print_as_lines()
    settings = cast(DictConfig, HydraConfig.get())
    fill_for_job(settings.job.num, cfg, overrides.allowed_targets(*_job_and_folder(settings)))


def _check(arguments: list[str]) -> None:
    """Run the contract checks on a distiller."""
    from kdzoo.contracts import report_checks

    cfg, allow = _one_job(arguments)
    sys.exit(0 if report_checks(cfg, allow=allow) else FAILURE)


def _matrix(arguments: list[str]) -> None:
    """Say which kinds of models each distiller takes, or try distillers and models that are named."""
    line, _ = checked(arguments, complete=False)
    from kdzoo.cli.matrix import print_kinds, print_outcomes

    if not line.overrides:
        return print_kinds(line.folder)
    return print_outcomes(line.overrides, line.folder, overrides.allowed_targets(line.overrides, line.folder))


def _schema(arguments: list[str]) -> None:
    """Print the JSON Schema of the files that configure a run, or of the files of one config group."""
    from kdzoo.config import schema

    line = overrides.parse(arguments)
    if line.mistakes or len(line.overrides) > 1:
        raise ConfigError(f"kdzoo schema takes one config group at most, got {' '.join(arguments)}")
    if line.folder is not None:
        working_folder.make_importable()
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
    "sweep": _sweep,
    "cache": _cache,
    "check": _check,
    "matrix": _matrix,
    "schema": _schema,
    "doctor": _doctor,
}
