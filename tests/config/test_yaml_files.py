import pytest

from kdzoo.config import yaml_files
from kdzoo.errors import ConfigError


def test_plain_values_are_read_and_interpolations_stay_text(tmp_path):
    (tmp_path / "a.yaml").write_text("# comment\na: {b: [1, 0.5, null, '${seed}']}\n")
    (tmp_path / "empty.yaml").write_text("# comment\n")
    assert yaml_files.read(tmp_path / "a.yaml") == {"a": {"b": [1, 0.5, None, "${seed}"]}}
    assert yaml_files.read(tmp_path / "empty.yaml") is None


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe", b"a: b: c", b"[" * 100_000, b"!!python/name:os.system"])
def test_what_is_not_yaml_is_one_error_that_names_the_file(content, tmp_path):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.yaml is not valid YAML: ") as caught:
        yaml_files.read(tmp_path / "a.yaml")
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        yaml_files.read(tmp_path)
