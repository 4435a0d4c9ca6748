"""What ``kdzoo list`` and ``kdzoo explain`` print, at the width of a narrow terminal and without importing torch."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from kdzoo import config
from kdzoo.cli import listing
from kdzoo.config import registry
from kdzoo.config.override_values import as_override
from kdzoo.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_dkd"


@pytest.fixture
def lines(monkeypatch, capsys):
    """Return a function that calls another and returns the lines that it prints at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(function, *arguments):
        function(*arguments)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return call


def test_every_method_has_one_line_with_its_whole_name(lines):
    printed = lines(listing.print_methods)
    names = config.groups()["distiller"]
    assert sorted(line.split()[0] for line in printed if line.startswith("  ")) == sorted(names)
    assert all(len(line) <= 80 for line in printed)
    assert not any("`" in line for line in printed)
    headings = [line for line in printed if line and not line.startswith(" ")][:-1]
    assert "Methods that compare the logits of classifiers" in headings
    assert printed.index(headings[0]) < printed.index(next(line for line in printed if line.startswith("  ")))


@pytest.mark.parametrize("columns", [20, 28, 300])
def test_any_width_has_every_name(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    listing.print_methods()
    assert "logit_kd" in capsys.readouterr().out


def test_brackets_in_a_docstring_are_not_markup(lines, tmp_path, monkeypatch):
    (tmp_path / "bracketed.py").write_text(
        "import kdzoo\n\nclass Mine(kdzoo.Distiller):\n"
        '    """Match [batch, time] and [/x].\n\n    Args:\n        k (int): Number [of] states.\n    """\n'
        "    def __init__(self, student, teacher, *, k: int = 1):\n        super().__init__(student, teacher)\n"
    )
    (tmp_path / "conf" / "distiller").mkdir(parents=True)
    (tmp_path / "conf" / "distiller" / "mine.yaml").write_text("_target_: bracketed.Mine\nk: 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert any("Match [batch, time] and [/x]." in line for line in lines(listing.print_methods, [tmp_path / "conf"]))
    printed = lines(listing.print_method, "mine", [tmp_path / "conf"])
    assert printed[printed.index("distiller.k=2") + 1].strip() == "Number [of] states."


def test_settings_of_a_users_method_come_from_its_constructor(lines, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    text = "\n".join(lines(listing.print_method, "my_dkd", [EXAMPLE / "conf"]))
    assert "distiller.temperature=4.0" in text
    assert "distiller.micro_batch_size=null" in text
    assert "distiller.student" not in text


def test_printed_settings_can_be_typed():
    parser = OverridesParser.create()
    for name in config.groups()["distiller"]:
        for key, value in registry.settings("distiller", name).items():
            parser.parse_override(f"distiller.{key}={as_override(value)}")


def test_methods_of_a_user_have_their_own_heading(lines, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    printed = lines(listing.print_methods, [EXAMPLE / "conf"])
    assert printed[printed.index("Yours") + 1].split()[0] == "my_dkd"


@pytest.mark.parametrize("name", config.groups()["distiller"])
def test_the_detail_names_settings_terms_and_source_without_markup(name, lines):
    text = "\n".join(lines(listing.print_method, name))
    for key in registry.settings("distiller", name):
        assert f"distiller.{key}=" in text
    assert "``" not in text
    assert ":class:" not in text
    assert "Student:" in text


def test_settings_of_the_base_class_are_explained(lines):
    printed = lines(listing.print_method, "dkd")
    at = printed.index("distiller.temperature=4.0")
    assert printed[at + 1].strip() == "Temperature T of both distributions, finite and > 0."
    assert "Samples to hold in memory at once" in printed[printed.index("distiller.micro_batch_size=null") + 1]


def test_an_unknown_method_is_named_with_those_that_there_are():
    with pytest.raises(
        ConfigError,
        match=r"kdzoo list lgit_kd: unknown distiller; did you mean 'logit_kd'\?; allowed: adversarial, ",
    ):
        listing.print_method("lgit_kd")


def test_a_name_is_described_in_every_group_that_has_it(lines):
    printed = lines(listing.print_named, "mlp")
    headings = [line.partition("=")[0] for line in printed if "=mlp  (kdzoo." in line]
    assert sorted(headings) == ["inner_network", "student", "teacher"]
    assert lines(listing.print_named, "dkd") == lines(listing.print_method, "dkd")


def test_a_name_that_no_group_has_is_refused():
    message = r"kdzoo list mnis: unknown name; did you mean 'mnist'\?; kdzoo --help lists all names"
    with pytest.raises(ConfigError, match=message):
        listing.print_named("mnis")


def test_a_method_that_cannot_be_imported_gives_the_reason(tmp_path):
    (tmp_path / "distiller").mkdir()
    (tmp_path / "distiller" / "broken.yaml").write_text("_target_: not_there.Thing\n")
    with pytest.raises(ConfigError, match=r"'not_there\.Thing' cannot be imported"):
        listing.print_method("broken", [tmp_path])


def test_a_metric_is_explained(lines):
    assert lines(listing.print_metric, "kl") == [
        "kl: Mean divergence of the model's distribution from the teacher's.",
        "Unit: nats",
        "Lower is better.",
    ]
    assert lines(listing.print_metric, "states") == ["states: Number of states of an automaton."]
    assert "  accuracy" in lines(listing.print_metric, "")
    assert lines(listing.print_metric, "kl from truth ↓")[0].startswith("kl_from_truth: ")
    assert lines(listing.print_metric, "kl (teacher)")[0].startswith("kl: ")
    with pytest.raises(
        ConfigError, match=r"kdzoo explain acuracy: unknown metric; did you mean 'accuracy'\?; kdzoo explain lists all"
    ):
        listing.print_metric("acuracy")


@pytest.mark.parametrize(
    "words", [["list"], ["list", "dkd"], ["list", "mlp"], ["list", "adam"], ["explain", "kl"], ["cite"], ["schema"]]
)
def test_information_does_not_import_torch(words, tmp_path):
    code = (
        "import sys; from kdzoo.cli import main\n"
        f"sys.argv = ['kdzoo', *{words!r}]\n"
        "main.main()\n"
        "heavy = {'torch', 'pytorch_lightning', 'sklearn', 'scipy', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
