"""Files in the working folder never take the place of libraries, and the user's own classes are found there."""

import os
import subprocess
import sys

import pytest

from kdzoo.cli import working_folder

# Modules that some command imports: of the standard library, of our dependencies, and optional ones that may be absent.
HOSTILE = ("torch", "numpy", "omegaconf", "yaml", "beartype", "random", "wandb", "transformers", "sitecustomize")


@pytest.fixture
def hostile_folder(tmp_path):
    for name in HOSTILE:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write({name!r})\n")
    return tmp_path


AS_MODULE, AS_SCRIPT = ["-m", "kdzoo"], ["-c", "from kdzoo.cli.main import main; main()"]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (AS_MODULE, ["list"]),
        (AS_MODULE, ["--help"]),
        (AS_MODULE, ["debug=fast", "control=false", "seed=0"]),
        (AS_SCRIPT, ["cite", "distiller=dkd"]),
        (AS_SCRIPT, ["doctor"]),
    ],
    ids=["list", "help", "run", "cite", "doctor"],
)
def test_no_file_of_the_folder_is_executed(command, arguments, hostile_folder):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if command[0] == "-c":  # as a console script does, which has no working folder on its path
        environment["PYTHONSAFEPATH"] = "1"
    done = subprocess.run(
        [sys.executable, *command, *arguments],
        capture_output=True, text=True, cwd=hostile_folder, env=environment, timeout=300, check=False,
    )  # fmt: skip
    assert not (hostile_folder / "executed").exists(), (hostile_folder / "executed").read_text()
    assert done.returncode == 0 or arguments[0] == "doctor", done.stderr


def test_child_processes_do_not_search_their_working_folder_first(hostile_folder, monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    working_folder.keep_out_of_child_processes()
    for command in (["-m", "numpy.f2py", "-v"], ["-c", "import random, numpy"]):
        subprocess.run([sys.executable, *command], cwd=hostile_folder, check=True, capture_output=True, timeout=60)
    assert not (hostile_folder / "executed").exists()


def test_a_hidden_module_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    working_folder.make_importable()
    assert sys.path[-1] == str(tmp_path)
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "my_models.py").write_text("")
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml" / "__init__.py").write_text("")
    lines = list(working_folder.hidden_modules(["torch.Net", "torch.Other", "yaml.x.Net", "my_models.Net", "numpy.a"]))
    assert [line.split(" is hidden by the installed module ")[1].split()[0] for line in lines] == ["torch", "yaml"]
    assert lines[0].startswith(str(tmp_path / "torch.py"))
    assert lines[0].endswith("; give it another name")
