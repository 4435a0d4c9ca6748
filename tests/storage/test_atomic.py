"""Files are complete or absent, whatever happens while they are written."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kdzoo.errors import RunFolderError
from kdzoo.storage import atomic

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (atomic.write_bytes, b"\x00\xff", b"\x00\xff"),
        (atomic.write_text, "\u00e4", b"\xc3\xa4"),
        (atomic.write_json, {"a": [1]}, b'{\n  "a": [\n    1\n  ]\n}\n'),
    ],
)
def test_content_replaces_what_was_there(write, value, expected, tmp_path):
    path = tmp_path / "new" / "file"
    for _ in range(2):
        write(path, value)
        assert path.read_bytes() == expected
        assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_nan_is_written_and_read_back(tmp_path):
    atomic.write_json(tmp_path / "file", {"loss": math.nan})
    assert math.isnan(json.loads((tmp_path / "file").read_text())["loss"])


def test_a_temporary_path_is_beside_its_file_and_never_the_same_twice(tmp_path):
    paths = {atomic.temporary_beside(tmp_path / "file") for _ in range(3)}
    assert len(paths) == 3
    assert {path.parent for path in paths} == {tmp_path}
    assert not any(path.exists() for path in paths)


def test_a_size_limit_is_a_full_disk(tmp_path):
    """The same by the operating system's own means, in a process of its own."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from kdzoo.storage import atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "path = Path(sys.argv[1]); atomic.write_bytes(path, b'old' * 1000)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try: atomic.write_bytes(path, b'new' * 100000)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    path = tmp_path / "file"
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("RunFolderError cannot write")
    assert "the disk is full" in done.stdout
    assert path.read_bytes() == b"old" * 1000
    assert list(tmp_path.iterdir()) == [path]


def test_kill_while_saving_leaves_whole_files(tmp_path):
    """Eight times: whatever is there under the final name is complete."""
    code = (
        "import sys; from pathlib import Path; from kdzoo.storage import atomic\n"
        "path, i = Path(sys.argv[1]), 0\n"
        "while True:\n"
        "    i += 1; atomic.write_bytes(path, bytes([i % 256]) * 300_000)\n"
    )
    path = tmp_path / "file"
    for pause in np.linspace(0.001, 0.05, 8):
        path.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT)
        while not path.exists():
            time.sleep(0.001)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1


def test_content_is_on_disk_before_its_name_and_the_name_after(tmp_path, monkeypatch):
    """A rename that reaches the disk before the content leaves an empty file after a power failure."""
    events = []
    flush, rename = os.fsync, os.replace

    def noted_flush(handle):
        events.append(("flush", os.fstat(handle).st_ino))
        flush(handle)

    def noted_rename(source, target):
        events.append(("rename", Path(source).stat().st_ino))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_flush)
    monkeypatch.setattr(os, "replace", noted_rename)
    atomic.write_text(tmp_path / "file", "content")
    file, folder = (tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino
    assert events == [("flush", file), ("rename", file), ("flush", folder)]


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    atomic.write_text(tmp_path / "file", "old")

    def broken(path):
        path.write_text("half")
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(RunFolderError, match="Input/output error"):
        atomic.write_file(tmp_path / "file", broken)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
