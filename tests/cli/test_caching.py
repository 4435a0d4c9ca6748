"""The command ``kdzoo cache``."""

from concurrent.futures import BrokenExecutor

import pytest

import kdzoo
from kdzoo.cli.caching import fill, launch
from kdzoo.cli.sweeps import JobFailedError
from kdzoo.errors import KdzooError


def test_each_folder_is_printed_once_with_the_size_of_its_files(tmp_path, capsys):
    settings = ("debug=fast", "student.hidden=[8]", "teacher.hidden=[8]", "seed=null", "seeds=[0,1]")
    fill(kdzoo.compose(*settings, "teacher_training.seed=0", f"cache_dir={tmp_path}"), ())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))]
    assert len(lines) == len(set(lines)) > 0
    for line in lines:
        folder, _, size = line.partition(": ")
        n_bytes = sum(path.stat().st_size for path in (tmp_path / folder).glob("*.safetensors"))
        assert size == f"{n_bytes:,} bytes"
        assert n_bytes > 0


class WorkerCrashedError(Exception):
    """An error with the name of Ray's."""


def raising(error):
    def start():
        raise error

    return start


@pytest.mark.parametrize("error", [BrokenExecutor("pool"), WorkerCrashedError("actor")])
def test_a_killed_process_is_one_line(error):
    with pytest.raises(
        KdzooError, match=r"^the process of a job was killed; the same command continues with what is missing$"
    ):
        launch(raising(error))


def test_a_job_that_has_failed_is_the_exit_code_and_a_mistake_in_a_launcher_is_raised():
    with pytest.raises(SystemExit) as stop:
        launch(raising(JobFailedError("job 1 failed")))
    assert stop.value.code == 1
    with pytest.raises(KeyError):
        launch(raising(KeyError("key")))
