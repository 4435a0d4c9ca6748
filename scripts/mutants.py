"""Whether the tests notice faults: each one is put into a copy of the package, and a test must then fail.

The faults are in ``scripts/mutants.yaml``, by family. One that no test notices has *survived*: a test has to be
strengthened, or the fault changes no result and is taken off the list. The tests that caught the faults are at last run
without any fault, where they must pass. All faults take about half an hour on two cores, so this is run by hand, and
the table is written to ``scripts/results/mutants.md``.

python scripts/mutants.py                         # all faults, and the table
python scripts/mutants.py --only NAME [NAME ...]  # some faults, or families
python scripts/mutants.py --keep FILE             # continue: faults whose outcome the file has are not tried again
python scripts/mutants.py --keep FILE --table     # the table of the outcomes in the file, without trying any fault
"""

import argparse
import json
import multiprocessing
import os
import queue
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_suffix(".yaml")
# What the tests read; the folder of results, documents and build outputs would only take time to copy.
COPIED = ("kdzoo", "conf", "tests", "examples", "scripts", "docs", "pyproject.toml", "README.md", "CONTRIBUTING.md")
# Seconds after which tests are ended. A fault can make a loop endless; the slowest tests take a third of this.
LIMIT = 300
PAGE = (
    "Each fault was put into a copy of the package, and the tests that should notice it were run: those of "
    "`scripts/mutants.yaml`. The test is the first one that failed. The seconds are those until it failed, with two or "
    "three faults at a time on a machine that other work shared."
)
# Exit codes of pytest: all tests passed, some failed. Any other means that the tests did not run.
PASSED, FAILED = 0, 1
NOT_TRIED = "not tried"
WRONG_PACKAGE = 99  # of this script: the tests imported another package than the copy
PYTEST_OPTIONS = ("-q", "-rf", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore")
OUTPUT = "output.txt"
# Each process is forked from one that has imported these, which takes longer than most of the tests.
PROCESSES = multiprocessing.get_context("forkserver")
IMPORTED = [
    *("torch", "pytorch_lightning", "torchmetrics", "hypothesis", "pytest", "hydra", "omegaconf", "scipy.stats"),
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "sklearn.linear_model", "transformers", "jaxtyping"),
]


@dataclass(frozen=True)
class Fault:
    """A change of the package that must make a test fail.

    Attributes:
        family: What it is a fault of, such as ``losses``.
        name: Its name, which says what is wrong.
        file: The module below ``kdzoo/``.
        text: What is replaced; it occurs once in the module.
        put: What replaces it.
        tests: Files or node ids below ``tests/``, one of which must fail.
    """

    family: str
    name: str
    file: str
    text: str
    put: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What happened to a fault.

    Attributes:
        name: Name of the fault.
        result: ``caught``, ``survived``, ``text not found``, or why the tests say nothing about it.
        test: The first test that failed; empty if none did.
        seconds: How long its tests took.
    """

    name: str
    result: str
    test: str = ""
    seconds: float = 0.0


def read_faults(path: Path = LIST) -> list[Fault]:
    """Return the faults of a list, in its order."""
    families = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        Fault(family, name, entry["file"], entry["text"], entry["put"], tuple(entry.get("tests") or [_mirror(entry)]))
        for family, faults in families.items()
        for name, entry in faults.items()
    ]


def _mirror(entry: dict[str, str]) -> str:
    """Return the test file of the module of an entry."""
    module = Path(entry["file"])
    return module.with_name(f"test_{module.name}").as_posix()


class Copy:
    """A copy of the package and its tests in a folder, in which one fault at a time is tried.

    Args:
        folder: A folder that does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        ignored = shutil.ignore_patterns("__pycache__", "_build", "results")
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=ignored)
            else:
                shutil.copy(source, folder / name)

    def run(self, tests: Sequence[str], *options: str) -> int | None:
        """Run tests in a process of their own and return pytest's exit code; None if they took too long."""
        (self.folder / OUTPUT).write_text("", encoding="utf-8")  # a process that fails to start writes none
        process = PROCESSES.Process(target=run_pytest, args=(str(self.folder), [*PYTEST_OPTIONS, *options, *tests]))
        process.start()
        process.join(LIMIT)
        if process.is_alive():
            process.kill()
            process.join()
            return None
        return process.exitcode

    def failed(self) -> list[str]:
        """Return the tests that failed in the last run."""
        lines = (self.folder / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
        return [line.removeprefix("FAILED ").split(" - ")[0] for line in lines if line.startswith("FAILED ")]

    def try_fault(self, fault: Fault) -> Outcome:
        """Return what the tests say about a fault; the copy is afterwards as before."""
        path = self.folder / "kdzoo" / fault.file
        original = path.read_text(encoding="utf-8")
        if original.count(fault.text) != 1:
            return Outcome(fault.name, "text not found")
        path.write_text(original.replace(fault.text, fault.put), encoding="utf-8")
        start = time.monotonic()
        try:
            code = self.run([f"tests/{test}" for test in fault.tests], "-x")
        finally:
            path.write_text(original, encoding="utf-8")
        seconds = time.monotonic() - start
        if code is None:
            return Outcome(fault.name, "tests did not end", "", seconds)
        # A process that ends before pytest has the exit code of failed tests, but names no test.
        if code == FAILED and (failed := self.failed()):
            return Outcome(fault.name, "caught", failed[0], seconds)
        result = "survived" if code == PASSED else f"tests did not run (exit code {code})"
        return Outcome(fault.name, result, "", seconds)


def run_pytest(folder: str, arguments: list[str]) -> None:
    """Run pytest on the copy in a folder and end this process with its exit code."""
    # No bytecode: a changed file of equal size and time would be taken for the one that was compiled before.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    # In front of the package that an editable install points to, also in processes that the tests start.
    os.environ["PYTHONPATH"] = folder
    sys.path.insert(0, folder)
    os.chdir(folder)
    import pytest

    with open(OUTPUT, "w", encoding="utf-8") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    code = int(pytest.main(arguments))
    package = sys.modules.get("kdzoo")
    is_copy = package is None or str(package.__file__).startswith(folder)
    os._exit(code if is_copy else WRONG_PACKAGE)  # at once, whatever threads a test has left


def try_all(faults: Sequence[Fault], copies: Sequence[Copy]) -> Iterator[Outcome]:
    """Yield the outcome of each fault in order, as many at a time as there are copies."""
    free: queue.Queue[Copy] = queue.Queue()
    for copy in copies:
        free.put(copy)

    def outcome(fault: Fault) -> Outcome:
        copy = free.get()
        try:
            return copy.try_fault(fault)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        yield from pool.map(outcome, faults)


def without_broken_tests(outcomes: Sequence[Outcome], copy: Copy) -> list[Outcome]:
    """Return the outcomes without the faults that were caught by a test that fails without them too."""
    tests = list(dict.fromkeys(outcome.test for outcome in outcomes if outcome.test))
    # In parts, few of which reach the limit of time.
    parts = [tests[first : first + 10] for first in range(0, len(tests), 10)]
    broken = {test for part in parts for test in failing(part, copy)}
    return [
        Outcome(outcome.name, "its test fails without it") if outcome.test in broken else outcome
        for outcome in outcomes
    ]


def failing(tests: Sequence[str], copy: Copy) -> list[str]:
    """Return the tests that fail; if they do not end or cannot be found together, each one is run by itself."""
    if copy.run(tests) == PASSED:
        return []
    failed = copy.failed()
    if failed or len(tests) == 1:
        return failed or list(tests)
    return [test for one in tests for test in failing([one], copy)]


def table(faults: Sequence[Fault], outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a Markdown table, with a summary."""
    tried = [outcome.result for outcome in outcomes if outcome.result != NOT_TRIED]
    left = (
        f" {len(outcomes) - len(tried)} more are in the list and were not tried." if len(tried) < len(outcomes) else ""
    )
    lines = [f"{tried.count('caught')} of {len(tried)} faults were caught.{left}", ""]
    lines.append("| fault | module | result | test | s |")
    lines.append("|---|---|---|---|---:|")
    family = ""
    for fault, outcome in zip(faults, outcomes, strict=True):
        if fault.family != family:
            family = fault.family
            lines.append(f"| **{family}** | | | | |")
        test = outcome.test.removeprefix("tests/").partition("[")[0]
        name = fault.name.replace("-", " ")
        cells = f"`{test}` | {outcome.seconds:.0f}" if test else " | "
        lines.append(f"| {name} | `{fault.file}` | {outcome.result} | {cells} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the faults, print their outcomes, and return 1 if one was not caught."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="faults or families to try; all by default")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="file of outcomes, which is read and extended")
    parser.add_argument("--jobs", type=int, default=2, help="number of faults that are tried at the same time")
    parser.add_argument("--table", action="store_true", help="try no fault, but write the table of known outcomes")
    options = parser.parse_args(arguments)
    faults = read_faults()
    if options.only:
        unknown = set(options.only) - {key for fault in faults for key in (fault.family, fault.name)}
        if unknown:
            parser.error(f"unknown fault or family: {', '.join(sorted(unknown))}")
        faults = [fault for fault in faults if {fault.family, fault.name} & set(options.only)]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    PROCESSES.set_forkserver_preload(IMPORTED)
    known = _read_outcomes(options.keep)
    with tempfile.TemporaryDirectory() as folder:
        copies = [Copy(Path(folder).resolve() / str(job)) for job in range(max(options.jobs, 1))]
        remaining = [] if options.table else [fault for fault in faults if fault.name not in known]
        for outcome in try_all(remaining, copies):
            known[outcome.name] = outcome
            print(f"{outcome.result:10} {outcome.name} ({outcome.seconds:.0f} s)", flush=True)
            if options.keep:
                with options.keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")
        outcomes = [known.get(fault.name, Outcome(fault.name, NOT_TRIED)) for fault in faults]
        outcomes = outcomes if options.table else without_broken_tests(outcomes, copies[0])
    print(table(faults, outcomes).splitlines()[0])
    if not options.only:
        _write_results(faults, outcomes)
    return int(any(outcome.result != "caught" for outcome in outcomes))


def _read_outcomes(path: Path | None) -> dict[str, Outcome]:
    """Return the outcomes in a file by the name of the fault, the last of each."""
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
    outcomes = [Outcome(**json.loads(line)) for line in lines]
    return {outcome.name: outcome for outcome in outcomes}


def _write_results(faults: Sequence[Fault], outcomes: Sequence[Outcome]) -> None:
    """Write the table of all faults, with date and versions."""
    from bench_common import publish  # imports torch and Lightning, which the rest of this script does not need

    publish("mutants", "Faults that the tests catch", PAGE, table(faults, outcomes))


if __name__ == "__main__":
    sys.exit(main())
