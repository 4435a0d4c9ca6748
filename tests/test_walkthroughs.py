"""The tutorial and the how-to page work as printed: their files are written, their commands checked and run."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import kdzoo
from kdzoo.cli.main import COMMANDS
from kdzoo.config import overrides, validate
from tests import pages

DOCS = Path(__file__).parents[1] / "docs"
YAML_FILE = re.compile(r"`(conf/[\w/]+\.yaml)`:\n\n```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE_COMMENT = re.compile(r"# ([\w/]+\.(?:py|yaml))\n")
MODULES = ("my_model", "my_kd", "my_data")


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def files_of(text):
    """Return the content of every file of a page: named in its first line, or in the sentence before it."""
    blocks = [block for _, block in pages.BLOCK.findall(text)]
    named = {match[1]: block for block in blocks if (match := FILE_COMMENT.match(block))}
    return {**named, **dict(YAML_FILE.findall(text))}


def commands_of(text):
    """Return the commands of a page as lists of arguments."""
    return [shlex.split(line)[1:] for line in pages.commands(text) if pages.is_checkable(line)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The reader's folder, with the files of both pages and the arrays that the tutorial's script writes."""
    for name, content in {**files_of(page("howto.md")), **files_of(page("tutorial.md"))}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    subprocess.run([sys.executable, "make_data.py"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def without_subcommand(arguments):
    """Return the settings of a command line, which are checked, without a subcommand and its folder."""
    return [word for word in arguments if word not in COMMANDS and not word.startswith("RUN")]


def small_run(arguments, output_dir):
    """Run a command line with one seed and a few steps, and return its report."""
    line = overrides.parse([*arguments, "seed=0", "debug=fast", f"output_dir={output_dir}"])
    cfg = kdzoo.compose(*line.overrides, config_dir=line.folder)
    return kdzoo.run(cfg, allow=overrides.allowed_targets(line.overrides, line.folder))


@pytest.mark.parametrize("name", ["tutorial.md", "howto.md"])
def test_every_command_of_the_page_is_right(name, folder, monkeypatch):
    monkeypatch.setattr(validate, "_is_installed", lambda _: True)  # for options of extras
    of_other_pages = ("kind=my_kind", "report", "explain", "schema")
    commands = [words for words in commands_of(page(name)) if not set(words) & set(of_other_pages)]
    assert len(commands) >= 5
    for words in commands:
        assert overrides.check(overrides.parse(without_subcommand(words))).mistakes == [], words


def test_the_tutorial_from_the_data_to_the_exported_student(folder, capsys):
    commands = commands_of(page("tutorial.md"))
    first = next(words for words in commands if "debug=fast" in words)
    small_run(first, "first")
    by_experiment = next(words for words in commands if "experiment=my_net_on_waves" in words and "-m" not in words)
    result = small_run(by_experiment, "RUN")
    assert result["student"]["parameters"] == 1044
    assert "14,916" in page("tutorial.md")
    assert result["teacher"]["parameters"] == 14916
    snippets = pages.blocks(page("tutorial.md"), "python")
    exec(next(block for block in snippets if "load_student" in block), {})
    assert len(capsys.readouterr().out.split("tensor")) == 2


def test_the_method_of_the_tutorial_runs(folder):
    commands = commands_of(page("tutorial.md"))
    own = next(words for words in commands if "distiller=my_kd" in words and not {"-m", "check"} & set(words))
    assert small_run(own, "own")["distiller"] == "my_kd"
    history = json.loads((folder / "own/seed_0/checkpoints/student/history.json").read_text())
    assert {"soft", "hard"} <= set(history["terms"])


def test_the_data_module_of_the_how_to_page_and_the_ways_to_deploy_its_student(folder):
    page_text = page("howto.md")
    own = next(words for words in commands_of(page_text) if "data=my_walks" in words)
    small_run([*own, "student.width=8"], "RUN")
    snippets = pages.blocks(page_text, "python")
    deployment = [block for block in snippets if "RUN/student" in block or "torch.export" in block]
    assert len(deployment) == 3
    names = {}
    for snippet in deployment:
        # The first line of the first snippet loads a packaged class, which this student is not.
        code = snippet.replace('student = kdzoo.load_student("RUN/student")  # in eval mode, on the CPU\n', "")
        exec(code.replace("num_classes=4", "num_classes=2"), names)
    assert names["model"](names["torch"].zeros(5, 1, 64)).shape == (5, 2)
