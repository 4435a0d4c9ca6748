"""Damaged files of every format that is read: each outcome is right, or one line that names the file."""

import json
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import scipy.io
import torch
import yaml
from torch import nn

from kdzoo.automata import PFA, exchange
from kdzoo.automata.exchange import pautomac
from kdzoo.data.files.folders import read_npz
from kdzoo.data.files.idx import read_idx
from kdzoo.data.files.mat import check_published, read_mat
from kdzoo.data.sequences.sequence_files import TokenSequenceFiles
from kdzoo.data.text import packing
from kdzoo.data.text.tables import read_table
from kdzoo.data.text.text_files import reader as text_reader
from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet, files
from kdzoo.errors import KdzooError, RunFolderError
from kdzoo.models import MLP
from kdzoo.models.pretrained import read_weights
from kdzoo.reports import leaderboard
from kdzoo.storage import checked_json, run_folder, teacher_outputs
from kdzoo.storage.checkpoint import load_student, read_checkpoint, save_model
from kdzoo.storage.checksums import sha256_of
from kdzoo.text.token_sequences import TokenSequences
from tests.reports.example import report

MUTATIONS = 200
NODE = {"_target_": "kdzoo.models.MLP", "in_shape": [4], "num_classes": 3, "hidden": [5]}


def automaton():
    return PFA.from_parameters([1.0, 0.0], [[[0.25, 0.25], [0.0, 0.5]], [[0.0, 0.25], [0.125, 0.0]]], [0.25, 0.375])


def model():
    torch.manual_seed(0)
    return MLP(in_shape=(4,), num_classes=3, hidden=(5,))


def weights_of(path):
    return {name: value.tolist() for name, value in read_weights(path).items()}


def exported(path):
    save_model(model(), NODE, path.parent)


def read_exported(path):
    return {name: value.tolist() for name, value in load_student(path.parent).state_dict().items()}


def run(path):
    (path.parent / "config.yaml").write_text(yaml.safe_dump({"seed": 0, "data": {"_target_": "x", "n": 3}}))
    checked_json.write(path.parent / "report.json", report())


def read_run(path):
    return [(found.settings, found.report) for found in leaderboard.read_runs([path.parent])]


FINGERPRINT = {"teacher": "t"}


def outputs(path):
    batches = [{"input": torch.arange(12.0).view(6, 2), "index": torch.arange(6)}]
    teacher_outputs.fill(path.parent, FINGERPRINT, lambda batch: {"output": batch["input"] / 3}, batches)


def read_outputs(path):
    stored = teacher_outputs.read(path.parent, FINGERPRINT)
    return {name: rows[torch.arange(len(rows))].tolist() for name, rows in stored.items()}


def synthetic_set(path):
    torch.manual_seed(0)
    inner_network = {"linear": InnerNetwork(nn.Sequential(nn.Flatten(), nn.Linear(6, 3)))}
    files.write(SyntheticSet(in_shape=(1, 2, 3), num_classes=3, inner_network=inner_network, steps=4), path.parent)


def read_synthetic(path):
    saved = files.read(path)
    return saved.images.tolist(), saved.labels.tolist(), saved.about


def probabilities(pfa):
    return pfa.initial.tolist(), pfa.transitions.tolist(), pfa.stop.tolist()


def strings(path):
    sequences = TokenSequences(torch.tensor([0, 1, 1, 2]), torch.tensor([2, 0, 2]))
    pautomac.write_strings(sequences, 3, path)


def blocks(path):
    packing.save(path.parent, [(split, np.arange(8, dtype=np.uint16).reshape(2, 4)) for split in range(3)], 4, 8)


def read_blocks(path):
    loaded = packing.load(path.parent)
    if loaded is None:  # the text is packed again
        raise RunFolderError("damaged")
    return loaded.ids.tolist(), loaded.rows, loaded.counts.tolist()


def matlab(path):
    scipy.io.savemat(path, {"X": np.eye(3)})
    path.with_suffix(".sha256").write_text(sha256_of(path))


def read_matlab(path):
    check_published(path, path.with_suffix(".sha256").read_text())
    return read_mat(path, ("X",))[0].tolist()


# Files with a checksum: what is read is what was written. Name: (file, write, read).
VERIFIED = {
    "exported weights": ("model.safetensors", exported, read_exported),
    "exported description": ("config.json", exported, read_exported),
    "checkpoint": (
        "last.ckpt",
        lambda path: torch.save({"state_dict": model().state_dict(), "epoch": 3}, path),
        lambda path: {name: value.tolist() for name, value in read_checkpoint(path)["state_dict"].items()},
    ),
    "report": ("report.json", run, read_run),
    "outputs": ("rows_000000000-000000005.safetensors", outputs, read_outputs),
    "manifest of outputs": ("manifest.json", outputs, read_outputs),
    "synthetic set, npz": ("synthetic.npz", synthetic_set, read_synthetic),
    "synthetic set, safetensors": ("synthetic.safetensors", synthetic_set, read_synthetic),
    "blocks of a text": ("blocks.bin", blocks, read_blocks),
    "description of blocks": ("blocks.json", blocks, read_blocks),
    "weights, zip": ("weights.pt", lambda path: torch.save(model().state_dict(), path), weights_of),
    "npz": (
        "data.npz",
        lambda path: np.savez_compressed(path, x=np.arange(20.0), y=np.arange(20)),
        lambda path: [array.tolist() for array in read_npz(path, ("x", "y"))],
    ),
    "MATLAB": ("a.mat", matlab, read_matlab),
}


def idx(path):
    path.write_bytes(b"\0\0\x08\x02\0\0\0\x03\0\0\0\x04" + bytes(range(12)))


def text(content):
    return lambda path: path.write_text(content)


def tokens(path):
    data = TokenSequenceFiles(train_file=path, test_file=path, val_size=0, batch_size=1)
    data.setup("fit")
    return data.summary()


# Files without one: whatever is read, it is read without any other error. Name: (file, write, read).
UNVERIFIED = {
    "settings of a run": ("config.yaml", run, read_run),
    "weights, safetensors": (
        "weights.safetensors",
        lambda path: safetensors.torch.save_file(model().state_dict(), path),
        read_weights,
    ),
    "weights, old": (
        "weights.pth",
        lambda path: torch.save(model().state_dict(), path, _use_new_zipfile_serialization=False),
        read_weights,
    ),
    "automaton, JSON": ("a.json", lambda path: exchange.write_json(automaton(), path), exchange.read_json),
    "automaton, DOT": ("a.dot", lambda path: exchange.write_dot(automaton(), path), exchange.read_dot),
    "automaton, OpenFst": ("a.fst", lambda path: exchange.write_openfst(automaton(), path), exchange.read_openfst),
    "automaton, PAutomaC": ("a.txt", lambda path: pautomac.write_model(automaton(), path), pautomac.read_model),
    "strings, PAutomaC": ("a.train", strings, pautomac.read_strings),
    "solution, PAutomaC": (
        "a.sol",
        lambda path: pautomac.write_solution(torch.tensor([0.5, 0.25]), path),
        pautomac.read_solution,
    ),
    "IDX": ("a.idx", idx, read_idx),
    "CSV": ("a.csv", text('text,label\n"a, b",0\nc,1\n'), lambda path: read_table(path, "text", "label")),
    "TSV": ("a.tsv", text("text\tlabel\na\t0\n"), lambda path: read_table(path, "text", "label")),
    "JSON lines": (
        "a.jsonl",
        text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n'),
        lambda path: read_table(path, "text", "label"),
    ),
    "text": ("a.txt", text("one line\n\nanother\n"), lambda path: list(text_reader(path, "text")())),
    "token sequences": ("a.txt", text("0 1 2\n2 1\n"), tokens),
}


def mutated(content, rng):
    """Return a file's bytes after one of the things that happen to files."""
    damaged = bytearray(content)
    kind = rng.randrange(8)
    start = rng.randrange(len(damaged) + 1)
    if kind == 0 and damaged:
        damaged[start % len(damaged)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del damaged[start:]
    elif kind == 2:
        damaged[start:start] = rng.randbytes(rng.randrange(1, 9))
    elif kind == 3:
        del damaged[start : start + rng.randrange(1, 20)]
    elif kind == 4:
        damaged[start:start] = damaged[start : start + rng.randrange(1, 40)]
    elif kind == 5:
        damaged[start : start + 1] = b"1" + b"0" * rng.choice([11, 30, 5000])
    elif kind == 6:
        damaged[start:start] = rng.choice([b"[", b"{", b"(", b'"', b"-", b"\n", b"\0", b"\xff"]) * rng.choice(
            [1, 200, 10**5]
        )
    else:
        damaged[start : start + 8] = rng.choice([b"nan", b"inf", b"-1", b"null", b"true", b"[]", b"{}", b""])
    return bytes(damaged)


def outcome(read, path):
    """Return what is read, or the error, which must be ours, in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(path), None
    except KdzooError as error:
        return None, str(error)


@pytest.mark.parametrize("name", [*VERIFIED, *UNVERIFIED])
def test_whatever_happens_to_a_file_is_noticed_or_harmless(name, tmp_path):
    file, write, read = {**VERIFIED, **UNVERIFIED}[name]
    path: Path = tmp_path / file
    write(path)
    whole, content = read(path), path.read_bytes()
    rng, refused = random.Random(0), 0
    for _ in range(MUTATIONS):
        path.write_bytes(mutated(content, rng))
        found, error = outcome(read, path)
        refused += error is not None
        if error is not None:
            assert len(error.splitlines()) == 1
            assert len(error) < 700
        elif name in VERIFIED:
            assert json.dumps(found, default=str) == json.dumps(whole, default=str)
    assert refused > MUTATIONS // 10


@pytest.mark.parametrize("name", [*VERIFIED, *UNVERIFIED])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b"\xff\xfe\x00"])
def test_another_file_or_a_folder_in_its_place_is_refused(name, content, tmp_path):
    file, write, read = {**VERIFIED, **UNVERIFIED}[name]
    path = tmp_path / file
    write(path)
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    found, error = outcome(read, path)
    readable = {"text", "token sequences", "settings of a run"}  # any line is a text, and a run may have no settings
    assert error is not None or name in readable, found
    assert error is None or len(error.splitlines()) == 1


def test_a_run_folder_without_its_files_has_no_report(tmp_path):
    assert run_folder.finished_report(tmp_path, {}) is None
