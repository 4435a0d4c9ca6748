"""The runs whose figures the gallery shows; the build of the documentation makes those that are missing."""

import shlex
import shutil
from pathlib import Path

import kdzoo
from kdzoo.reports import leaderboard, leaderboard_page

# Small runs: all of them together take a good minute of CPU time.
RUNS = {
    "classifier": "trainer.max_epochs=20",
    "automaton": "distiller=ot_pfa data=tomita data.language=4 student.states=4 trainer.max_epochs=8 max_samples=2000",
    "ten_images": (
        "distiller=dataset student.per_class=1 inner_network=logistic distiller.start=mean trainer.max_epochs=10"
    ),
    "tensor_network": "data=digits_labelled student=mps student.bond_dim=4 trainer.max_epochs=6",
}
SWEEP = [f"distiller.temperature={temperature} trainer.max_epochs=5" for temperature in (1, 4, 16)]


def make(folder: Path) -> None:
    """Run what has not finished yet, each into a subfolder, and rank the runs of the sweep.

    Runs of older sources are deleted first, since a finished run would keep its figures.
    """
    if _is_stale(folder):
        shutil.rmtree(folder)
    for name, line in RUNS.items():
        _run(line, folder / name, folder)
    jobs = [_run(line, folder / f"job_{i}", folder) for i, line in enumerate(SWEEP)]
    leaderboard_page.write(leaderboard.boards(leaderboard.read_runs(jobs)), folder / "sweep", "Sweep")


def _run(line: str, output: Path, folder: Path) -> Path:
    words = [*line.split(), "seed=0"]
    cfg = kdzoo.compose(*words, f"output_dir={output}", f"cache_dir={folder / 'cache'}")
    kdzoo.run(cfg, command=shlex.join(["kdzoo", *words]))
    return output


def _is_stale(folder: Path) -> bool:
    """Return whether a source file is newer than the figures."""
    here = Path(__file__)
    sources = [here, *(path for root in ("kdzoo", "conf") for path in (here.parents[1] / root).rglob("*"))]
    return folder.exists() and folder.stat().st_mtime < max(
        path.stat().st_mtime for path in sources if path.suffix in (".py", ".yaml")
    )
