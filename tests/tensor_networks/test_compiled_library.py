"""A compiled library is loaded only if it is what was built, from a folder that nobody else can write to."""

import os
import random
import shutil
import subprocess

import pytest

from kdzoo.tensor_networks import compiled_library

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


class Builder:
    """Compile a library with a function that returns a number, and count how often."""

    def __init__(self, number=7):
        self.number, self.count = number, 0

    def __call__(self, path):
        self.count += 1
        source = f"int number(void) {{ return {self.number}; }}"
        command = [COMPILER, "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
        subprocess.run(command, input=source, text=True, check=True)


@pytest.fixture
def path(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path / "new" / "kernels" / "library.so"


def number(path, build):
    return compiled_library.load(path, build).number()


def test_a_library_is_built_once_and_only_the_user_can_write_there(path):
    build = Builder()
    assert [number(path, build) for _ in range(3)] == [7, 7, 7]
    assert build.count == 1
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "library.so": 0o600,
        "library.so.sha256": 0o600,
    }


def damage_by_truncation(path):
    os.truncate(path, path.stat().st_size // 2)


def damage_by_a_bit(path):
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def plant(path):
    Builder(666)(path)


def lose_the_checksum(path):
    path.with_name("library.so.sha256").unlink()


def open_to_all(path):
    path.chmod(0o666)


def link_elsewhere(path):
    plant(path.with_name("other.so"))
    path.unlink()
    path.symlink_to(path.with_name("other.so"))


@pytest.mark.parametrize(
    "damage", [damage_by_truncation, damage_by_a_bit, plant, lose_the_checksum, open_to_all, link_elsewhere]
)
def test_a_library_that_may_be_another_is_built_again(damage, path):
    compiled_library.load(path, Builder(1))  # loaded under another number, so that the next one is not taken for it
    damage(path)
    fresh = path.with_name("second") / "library.so"
    fresh.parent.mkdir(mode=0o700)
    for file in (path, path.with_name("library.so.sha256")):
        if file.exists() or file.is_symlink():
            shutil.move(file, fresh.parent / file.name)
    build = Builder(7)
    assert number(fresh, build) == 7
    assert build.count == 1


@pytest.mark.parametrize("mode", [0o777, 0o772])
def test_in_a_folder_that_others_can_write_to_nothing_is_kept(mode, path):
    path.parent.mkdir(parents=True)
    path.parent.parent.chmod(mode)
    build = Builder()
    assert [number(path, build) for _ in range(2)] == [7, 7]
    assert build.count == 2
    assert not path.exists()


def test_where_nothing_can_be_kept_the_library_serves_this_process(tmp_path):
    (tmp_path / "file").write_text("")
    build = Builder()
    assert number(tmp_path / "file" / "kernels" / "library.so", build) == 7
    assert build.count == 1
