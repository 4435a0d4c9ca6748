"""Training in one process compared with training in two, which are started as ``python -m kdzoo.contracts.ranks``."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from omegaconf import OmegaConf

from kdzoo import config
from kdzoo.contracts.compare import largest_gap
from kdzoo.contracts.subject import EXACT, Subject
from kdzoo.storage.checkpoint import read_checkpoint

# Every batch of 16 is split into 8 and 8, so that micro-batches of 5 samples are not of equal size on any rank.
MICRO_BATCH_SIZE = 5
# Two trainings of a few steps take seconds; more means that a rank waits for one that has failed.
TIMEOUT_SECONDS = 300


def data_parallel_gaps(subjects: Mapping[str, Subject]) -> dict[str, float]:
    """Return the largest difference between the weights that two processes (gloo) and one process end with, by name.

    The two processes train every subject twice: with undivided batches and with micro-batches. One pair of processes
    trains all subjects, since starting it takes longer than the trainings.
    """
    folder = next(iter(subjects.values())).folder / "two_processes"
    folder.mkdir(parents=True, exist_ok=True)
    # Without dropout, because the masks of two ranks differ from that of one process.
    exact = {name: subject.with_changes(EXACT, dropout=False) for name, subject in subjects.items()}
    variants = {
        (name, suffix): subject.with_changes(changes, dropout=False)
        for name, subject in exact.items()
        for suffix, changes in (("", {}), ("_micro_batches", {"distiller.micro_batch_size": MICRO_BATCH_SIZE}))
        if not (suffix and "micro_batches" in subject.method.info.exempt)
    }
    trainings = [
        {"name": name + suffix, "cfg": OmegaConf.to_container(subject.settings), "allow": sorted(subject.allow)}
        for (name, suffix), subject in variants.items()
    ]
    (folder / "trainings.json").write_text(json.dumps(trainings))
    pair = _start_two_ranks(folder)
    # While the two processes import torch and train, this one trains as well.
    single = {name: subject.train(f"single_{name}").checkpoint["state_dict"] for name, subject in exact.items()}
    errors = [process.communicate(timeout=TIMEOUT_SECONDS)[1] for process in pair]
    assert not any(process.returncode for process in pair), errors[0].strip().splitlines()[-1]
    gaps = dict.fromkeys(subjects, 0.0)
    for name, suffix in variants:
        parallel = read_checkpoint(folder / (name + suffix) / "last.ckpt")["state_dict"]
        gaps[name] = max(gaps[name], largest_gap(single[name], parallel))
    return gaps


def _start_two_ranks(folder: Path) -> list[subprocess.Popen[str]]:
    """Start two ranks that do the trainings listed in ``folder``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The variables of torchrun, from which Lightning takes its cluster environment.
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "kdzoo",
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "kdzoo.contracts.ranks", str(folder)],
            env={**shared, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]


def train_as_rank(folder: Path) -> None:
    """Do the trainings listed in ``folder`` as one of two ranks."""
    changes = {"trainer.devices": 2, "trainer.strategy": "ddp"}
    for training in json.loads((folder / "trainings.json").read_text()):
        subject = Subject(OmegaConf.create(training["cfg"]), folder, training["allow"], changes, dropout=False)
        try:
            subject.train(training["name"])
        except Exception as error:  # one pair of processes trains many subjects; say which of them has failed
            raise RuntimeError(f"{training['name']}: {config.one_line(error)}") from error


if __name__ == "__main__":
    train_as_rank(Path(sys.argv[1]))
