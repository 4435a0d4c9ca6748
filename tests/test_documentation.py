"""The documentation names commands, packages and keys that exist."""

import importlib.util
import pkgutil
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from kdzoo import config
from kdzoo.cli.main import COMMANDS
from kdzoo.config import overrides, validate
from tests import pages

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if not {"_build", "gallery"} & set(path.parts)),
]
EXAMPLES = ("my_dkd", "my_kind")
"""Names in commands with ``--config-dir conf``; the folder ``conf`` is the one below ``examples/<name>``."""
NOT_CHECKED = ("--help", "my_net", "my_vae")
"""Words of commands that check nothing, or that name files which no example has."""
WITH_MISTAKES = "kdzoo distiler=dkd 'student.hiden=[64]' optimizer.lr=fast"


def printed_commands():
    """Return the commands in code blocks and inline code of all pages, without comments."""
    commands = [line for path in PAGES for line in pages.commands(path.read_text(encoding="utf-8"))]
    checked = [line for line in dict.fromkeys(commands) if not any(word in line for word in NOT_CHECKED)]
    return [line for line in checked if line != WITH_MISTAKES]


def parsed(command):
    """Return the command line of a printed command, with the folders of examples in the place of a reader's own."""
    words = shlex.split(command.replace("…", "..."))[1:]
    for name in EXAMPLES:
        if any(name in word for word in words):
            words = [str(ROOT / "examples" / name / "conf") if word == "conf" else word for word in words]
    return overrides.parse([word for word in words if word != "[overrides]"])


@pytest.mark.parametrize("command", printed_commands())
def test_a_printed_command_has_no_mistake(command, monkeypatch, capsys):
    if not pages.is_checkable(command):
        pytest.skip("needs kdzoo[submitit], or Ray")
    monkeypatch.setattr(validate, "_is_installed", lambda package: True)  # for options of extras
    for name in EXAMPLES:
        monkeypatch.syspath_prepend(str(ROOT / "examples" / name))
    line = parsed(command)
    if line.overrides and line.overrides[0] in COMMANDS:
        subcommand, *rest = line.overrides
        if subcommand in ("list", "explain", "cite"):  # quick enough to be run
            COMMANDS[subcommand](rest)
            assert capsys.readouterr().out
            rest = []
        if subcommand == "schema":  # takes the name of a group
            assert set(rest) <= set(config.groups())
            rest = []
        line.overrides = [] if subcommand in ("evaluate", "report", "sweep") else rest  # their arguments are folders
    assert not overrides.check(line, COMMANDS).mistakes


@pytest.mark.parametrize(
    "shell", [["bash", "-c"], ["zsh", "-f", "-o", "nointeractivecomments", "-c"]], ids=["bash", "zsh"]
)
def test_a_printed_command_means_the_same_to_every_shell(shell, tmp_path):
    """zsh expands brackets and braces that are not quoted, and has no comments where commands are typed."""
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    # Placeholders such as [overrides] are for readers.
    commands = [line for line in printed_commands() if not re.search(r"\[(overrides|data=…)\]|>", line)]
    script = "kdzoo() { printf '%s\\0' \"$@\"; echo; }\n" + "\n".join(commands)
    answer = subprocess.run([*shell, script], capture_output=True, text=True, cwd=tmp_path, check=True)
    seen = [line.split("\0")[:-1] for line in answer.stdout.splitlines()]
    assert seen == [shlex.split(line)[1:] for line in commands]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_printed_command_has_no_comment(path):
    printed = "\n".join(pages.blocks(path.read_text(encoding="utf-8"), ""))
    assert not re.findall(r"^(?:\$ )?(?:kdzoo|pip|make) .* #.*$", printed, flags=re.MULTILINE)


def test_the_guide_prints_the_mistakes_of_its_example():
    mistakes = overrides.check(parsed(WITH_MISTAKES), COMMANDS).mistakes
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    assert "\n".join([f"$ {WITH_MISTAKES}", *(f"kdzoo: {line}" for line in mistakes), "```"]) in text


def test_the_architecture_page_has_the_packages_at_their_levels():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    documented = {name: int(level) for level, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, flags=re.MULTILINE)}
    tests = (ROOT / "tests" / "test_imports.py").read_text(encoding="utf-8")
    levels = re.search(r"^LEVELS = \((.*?)^\)", tests, flags=re.DOTALL | re.MULTILINE)[1]
    expected = {
        name: number
        for number, line in enumerate(levels.strip().splitlines(), start=1)
        for name in re.findall(r'"(\w+)"', line)
    }
    assert documented == expected


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        # The build of the documentation makes the figures of the gallery, and fails if one is missing.
        assert target.startswith("gallery/") or (path.parent / target).exists(), target


def test_the_gallery_prints_the_commands_of_its_runs():
    path = ROOT / "docs" / "gallery_runs.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    gallery_runs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gallery_runs)
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    printed = {frozenset(shlex.split(line)[1:]) for line in re.findall(r"^kdzoo .*", text, flags=re.MULTILINE)}
    lines = {frozenset([*line.split(), "seed=0"]) for line in gallery_runs.RUNS.values()}
    sweep = next(words for words in printed if "-m" in words)
    assert printed - {sweep} == lines
    of_sweep = overrides.check(overrides.parse(["-m", *sorted(sweep - {"-m"})])).jobs
    of_runs = [overrides.check(overrides.parse(line.split())).jobs[0] for line in gallery_runs.SWEEP]
    assert [job.distiller.temperature for job in of_sweep] == [job.distiller.temperature for job in of_runs]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_pages_name_exist(path):
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:kdzoo|conf|tests|scripts|examples|docs)/[\w./]+)`", text):
        is_readers_own = (name.startswith("conf/") and "my_" in name) or name in ("conf/student/", "conf/teacher/")
        assert is_readers_own or (ROOT / name).exists(), name


def test_the_functions_on_the_routes_of_batch_and_teacher_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = "|".join(re.findall(r"^\| \d+ \| `(\w+)` \|", text, flags=re.MULTILINE))
    names = set(re.findall(rf"`((?:{packages})(?:\.\w+)+)`", text))
    assert len(names) > 20
    for name in names:
        owner, _, member = f"kdzoo.{name}".rpartition(".")
        assert callable(getattr(pkgutil.resolve_name(owner), member)), name


def test_the_readme_is_short_and_its_snippets_run_one_after_the_other(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    monkeypatch.chdir(tmp_path)
    snippets = pages.blocks(text, "python")
    assert len(snippets) == 3
    names = {}
    for snippet in snippets:
        exec(snippet, names)
    assert isinstance(names["student"], torch.nn.Module)
    assert names["pfa"].states == 2


def test_the_snippets_of_the_guide_for_authors_run():
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    names = {}
    for snippet in pages.blocks(text, "python"):
        exec(snippet, names)  # defines classes
    student, teacher = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    assert names["SoftOnly"](student, teacher).loss_weights == {"soft": 1.0, "hard": 0.0}
    assert names["LogitKDWithControl"](student, teacher).report_extras.controls == {"cold": {"temperature": 1.0}}
    method = names["ClassFrequencies"](student)
    with torch.no_grad():
        method.observe({"input": torch.zeros(3, 2), "target": torch.tensor([0, 2, 2])})
        method.observe({"input": torch.zeros(2, 2), "target": torch.tensor([1, 2])})
        assert method.solve()
    assert student.bias.exp().tolist() == pytest.approx([1, 1, 3])
