import hashlib

from kdzoo.storage.checksums import sha256_of


def test_the_checksum_is_that_of_all_bytes(tmp_path):
    content = bytes(range(256)) * 5000  # more than is read at once
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
