"""Sweeps with several processes: what they gain, and what is left of one whose jobs and processes are killed.

    python scripts/sweep_study.py [speed] [faults]

``speed`` times 16 short jobs one after the other and in two processes. ``faults`` runs a sweep of twelve jobs of which
one raises an error, one ends its process, and one kills it, and whose own process is killed too. The command is
repeated until all jobs are done, and the result is compared with that of an undisturbed sweep.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench_common import markdown_table, publish

KDZOO = [sys.executable, "-m", "kdzoo", "-m"]
# Runs of about a second, so that what a launcher itself costs is seen.
SHORT = ["debug=fast", "control=false", "student.hidden=[8]", "teacher.hidden=[8]"]
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local"],
}
PACKAGES = ("hydra-core", "hydra-joblib-launcher", "joblib", "hydra-submitit-launcher", "submitit")
FAULTS = {3: "error", 5: "exit", 8: "kill"}
N_JOBS = 12
# The process of the sweep is killed when so many of its jobs are done, while others run.
KILLED_AFTER = 9
FRAGILE = '''
import json, os, signal, sys
from pathlib import Path
from kdzoo.distillers import LogitKD

class Fragile(LogitKD):
    """Writes down that its training starts, and ends as a file says, once."""

    def on_fit_start(self):
        super().on_fit_start()
        temperature = round(self.temperature)
        with open("started", "a") as started:
            started.write(f"{temperature}\\n")
        fault = Path(f"fault_{temperature}")
        if fault.exists():
            ends_by = fault.read_text()
            fault.unlink()
            if ends_by == "error":
                raise KeyError("key")
            if ends_by == "exit":
                os._exit(3)
            os.kill(os.getpid(), 9)
'''


def main() -> None:
    chosen = sys.argv[1:] or ["speed", "faults"]
    try:
        versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    except PackageNotFoundError as error:
        sys.exit(f"{error.name} is not installed; install kdzoo[sweep,submitit]")
    paragraphs = [
        f"{os.cpu_count()} cores, one thread for each job, {versions}. Other processes ran on the machine (a load of "
        f"{os.getloadavg()[0]:.0f} when this began), so that CPU times say more than wall times."
    ]
    if "speed" in chosen:
        paragraphs.append(speed())
    if "faults" in chosen:
        paragraphs.append(faults())
    publish("sweeps", "Sweeps with several processes", *paragraphs)


# ---------------------------------------------------------------- speed


def speed() -> str:
    """Return a table of the times of sixteen jobs."""
    jobs = ["data=digits", "control=false", "trainer.max_epochs=10", "seed=range(16)"]
    rows, wall_of = [], {}
    for launcher in ("basic", "joblib"):
        with tempfile.TemporaryDirectory() as folder:
            before, started = children_cpu(), time.perf_counter()
            code = subprocess.run(
                [*KDZOO, *LAUNCHERS[launcher], *jobs], cwd=folder, env=environment(), capture_output=True
            ).returncode
            wall_of[launcher] = time.perf_counter() - started
            cpu = children_cpu() - before
        assert code == 0
        ratio = wall_of["basic"] / wall_of[launcher]
        rows.append(
            (launcher, f"{wall_of[launcher]:.0f}", f"{cpu:.0f}", f"{cpu / wall_of[launcher]:.2f}", f"{ratio:.2f}")
        )
    headers = ("launcher", "wall seconds", "CPU seconds", "cores used", "basic's wall time / this")
    return f"Sixteen runs of 10 epochs on the digits:\n\n{markdown_table(headers, rows)}"


def children_cpu() -> float:
    """Return the CPU time of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


# ---------------------------------------------------------------- faults


def faults() -> str:
    """Return a table of what became of disturbed sweeps."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), {})
        assert sweep(Path(folder), "basic") == 0
        undisturbed = results(Path(folder))
    rows = [disturbed(launcher, undisturbed) for launcher in LAUNCHERS]
    headers = (
        "launcher",
        "exit codes of the commands",
        "jobs done after each",
        "trainings that were begun",
        "done jobs that ran again",
        "table as undisturbed",
    )
    return (
        "Twelve jobs, of which number 3 raises an error, 5 calls `os._exit` and 8 is killed, each once. The process of "
        f"the sweep is killed when {KILLED_AFTER} jobs are done. The same command is repeated until it ends with 0:\n\n"
        f"{markdown_table(headers, rows)}"
    )


def prepare(folder: Path, planned: dict[int, str]) -> None:
    """Write a distiller that ends as planned, by temperature."""
    (folder / "conf" / "distiller").mkdir(parents=True)
    (folder / "conf" / "distiller" / "fragile.yaml").write_text("_target_: fragile.Fragile\n")
    (folder / "fragile.py").write_text(FRAGILE)
    for number, ends_by in planned.items():
        (folder / f"fault_{number}").write_text(ends_by)


def disturbed(launcher: str, undisturbed: object) -> tuple[object, ...]:
    """Run a disturbed sweep until it ends well; return a row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, FAULTS)
        codes: list[int] = []
        done: list[int] = []
        repeated = 0
        is_to_be_killed = True
        while not codes or codes[-1] != 0:
            before = reports(folder)
            codes.append(sweep(folder, launcher, kill_after=KILLED_AFTER if is_to_be_killed else None))
            is_to_be_killed = is_to_be_killed and len(reports(folder)) < KILLED_AFTER
            done.append(len(reports(folder)))
            after = reports(folder)
            repeated += sum(after[path] != stamp for path, stamp in before.items())
            assert len(codes) < 8, codes
        begun = sum(Counter((folder / "started").read_text().split()).values())
        is_equal = "yes" if results(folder) == undisturbed else "no"
        row = launcher, ", ".join(map(str, codes)), ", ".join(map(str, done)), begun, repeated, is_equal
        print(row, file=sys.stderr, flush=True)  # the others take minutes, and may not end
        return row


def sweep(folder: Path, launcher: str, kill_after: int | None = None) -> int:
    """Run the sweep and return its exit code; kill its process when so many jobs are done."""
    temperatures = ",".join(str(i + 1) for i in range(N_JOBS))
    line = [
        *KDZOO,
        "--config-dir",
        "conf",
        "distiller=fragile",
        *SHORT,
        "seed=0",
        f"distiller.temperature={temperatures}",
    ]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen([*line, *LAUNCHERS[launcher]], cwd=folder, env=environment(), stdout=log, stderr=log)
        while process.poll() is None:
            if kill_after is not None and len(reports(folder)) >= kill_after:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.02)
    return process.returncode


def reports(folder: Path) -> dict[str, int]:
    """Return when each report was written, by its path."""
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("outputs/*/report.json")}


def results(folder: Path) -> object:
    """Return the table of the sweep as ``kdzoo sweep`` prints it, and the metrics of all students."""
    (path,) = folder.glob("outputs/sweep-*")
    command = [sys.executable, "-m", "kdzoo", "sweep", str(path.relative_to(folder))]
    printed = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True).stdout
    found = {name: json.loads(Path(name).read_text())["student"]["metrics"] for name in reports(folder)}
    metrics = {Path(name).parent.name: {**values, "cpu_ms_per_1000": None} for name, values in found.items()}
    return re.sub(r"\s+", " ", printed), metrics


if __name__ == "__main__":
    main()
