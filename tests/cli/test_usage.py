"""What ``kdzoo --help`` prints, and that it is printed without torch and Hydra's composition."""

import re
import shlex
import subprocess
import sys

from kdzoo import config
from kdzoo.cli import main, usage
from kdzoo.config import overrides


def test_every_group_and_option_is_listed_at_80_columns(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "my_net.yaml").write_text("_target_: my_module.MyNet\n")
    usage.print_usage(tmp_path)
    text = capsys.readouterr().out
    listed = text.partition("== Groups")[2].partition("== Examples")[0]
    assert all(len(line) <= 80 for line in listed.splitlines())
    words = set(listed.replace(",", " ").replace(":", " ").split())
    for group, names in config.groups().items():
        assert {group, *names} <= words
    assert "my_net" in words


def test_every_command_and_example_is_right():
    commands = [line for line in usage.TEXT.splitlines() if line.startswith("kdzoo ")]
    first_words = {line.split()[1] for line in commands}
    assert set(main.COMMANDS) <= first_words
    examples = [re.split("  +", line)[0] for line in usage.TEXT.partition("== Examples ==")[2].splitlines()]
    checked = [shlex.split(line)[1:] for line in examples if line.startswith("kdzoo") and "--config-dir" not in line]
    assert len(checked) >= 5
    for arguments in checked:
        settings = [word for word in arguments if word not in (*main.COMMANDS, ">", "schema.json")]
        assert overrides.check(overrides.parse(settings), list(main.COMMANDS)).mistakes == []


def test_help_needs_neither_torch_nor_a_composed_configuration():
    code = (
        "import sys; from kdzoo.cli.main import main; main(); "
        "assert 'torch' not in sys.modules and 'hydra._internal.core_plugins' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "kdzoo list [NAME]" in result.stdout
