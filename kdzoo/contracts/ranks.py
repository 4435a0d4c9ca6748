"""One process against two: the two are started as ``python -m kdzoo.contracts.ranks FOLDER``."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from omegaconf import OmegaConf

from kdzoo.contracts.compare import largest_gap
from kdzoo.contracts.subject import EXACT, Subject
from kdzoo.storage.checkpoint import read_checkpoint


def data_parallel_gaps(subjects: Mapping[str, Subject]) -> dict[str, float]:
    """Return how far the weights of two processes (gloo) end from those of one; one pair trains all subjects.

    The two processes take their batches once as they are and once in micro-batches.
    """
    folder = next(iter(subjects.values())).folder / "two_processes"
    folder.mkdir(parents=True, exist_ok=True)
    exact = {name: subject.having(EXACT, dropout=False) for name, subject in subjects.items()}
    variants = {
        (name, suffix): one.having(changes, dropout=False)
        for name, one in exact.items()
        for suffix, changes in (("", {}), ("_pieces", {"distiller.micro_batch_size": 5}))
        if not (suffix and "micro_batches" in one.method.info.exempt)
    }
    orders = [
        {"name": name + suffix, "cfg": OmegaConf.to_container(one.settings), "allow": sorted(one.allow)}
        for (name, suffix), one in variants.items()
    ]
    (folder / "orders.json").write_text(json.dumps(orders))
    pair = _two_processes(folder)
    alone = {name: one.train(f"alone_{name}").checkpoint["state_dict"] for name, one in exact.items()}
    failures = [process.communicate(timeout=300)[1] for process in pair]
    assert not any(process.returncode for process in pair), failures[0].strip().splitlines()[-1]
    gaps = dict.fromkeys(subjects, 0.0)
    for name, suffix in variants:
        together = read_checkpoint(folder / (name + suffix) / "last.ckpt")["state_dict"]
        gaps[name] = max(gaps[name], largest_gap(alone[name], together))
    return gaps


def _two_processes(folder: Path) -> list[subprocess.Popen[str]]:
    """Start two ranks that carry out the orders in ``folder``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
    """Train every ordered subject as one of two processes."""
    two = {"trainer.devices": 2, "trainer.strategy": "ddp"}
    for order in json.loads((folder / "orders.json").read_text()):
        subject = Subject(OmegaConf.create(order["cfg"]), folder, order["allow"], two, dropout=False)
        subject.train(order["name"])


if __name__ == "__main__":
    train_as_rank(Path(sys.argv[1]))
