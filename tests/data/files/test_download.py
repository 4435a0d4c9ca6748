import hashlib
import io
import tarfile
import urllib.request

import pytest

from kdzoo.data.files.download import download, unpack_members, write_atomically
from kdzoo.errors import DataError

CONTENT = b"pixels" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def serve(monkeypatch, content):
    asked = []

    def urlopen(url, timeout):
        asked.append(url)
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def test_download_once(offline_home, monkeypatch, tmp_path):
    asked = serve(monkeypatch, CONTENT)
    path = tmp_path / "new" / "folder" / "file"
    download("http://there/file", path, SHA256)
    download("http://there/file", path, SHA256)
    assert path.read_bytes() == CONTENT
    assert asked == ["http://there/file"]
    assert list(path.parent.iterdir()) == [path]


def test_wrong_sha256_leaves_nothing(offline_home, monkeypatch, tmp_path):
    serve(monkeypatch, CONTENT[:-1])
    with pytest.raises(DataError, match=f"http://there/file has the SHA-256 .*; allowed: {SHA256}; set data.root"):
        download("http://there/file", tmp_path / "new" / "file", SHA256)
    assert list((tmp_path / "new").iterdir()) == []


def test_no_network_says_what_to_do(offline_home, tmp_path):
    with pytest.raises(DataError, match=r"cannot download http://there/file .*set data.root or KDZOO_DATA"):
        download("http://there/file", tmp_path / "new" / "file", SHA256)
    assert list((tmp_path / "new").iterdir()) == []


def test_broken_connection_leaves_nothing(offline_home, monkeypatch, tmp_path):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise TimeoutError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Broken())
    with pytest.raises(DataError, match="timed out"):
        download("http://there/file", tmp_path / "file", SHA256)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fill(target):
        target.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fill)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(info)
    return path


def test_unpack_takes_the_named_regular_files_only(tmp_path):
    tar = archive(tmp_path / "a.tar.gz", {"x/a.bin": b"a", "../../b.bin": b"b", "x/evil.bin": None, "x/more": b"m"})
    unpack_members(tar, ["a.bin", "b.bin"], tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {"a.bin": b"a", "b.bin": b"b"}
    with pytest.raises(DataError, match=r"has no regular file 'evil.bin'"):
        unpack_members(tar, ["evil.bin"], tmp_path / "out")


def test_damaged_archive(tmp_path):
    tar = archive(tmp_path / "a.tar.gz", {"a.bin": bytes(range(256)) * 99})
    for content in (b"", b"text", tar.read_bytes()[:-40]):
        (tmp_path / "bad.tar.gz").write_bytes(content)
        with pytest.raises(DataError, match="is damaged"):
            unpack_members(tmp_path / "bad.tar.gz", ["a.bin"], tmp_path / "out")
