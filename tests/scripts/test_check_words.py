"""The search for retired words finds them across line breaks, names what to use, and leaves plain English alone."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_words.py"
specification = importlib.util.spec_from_file_location("check_words", SCRIPT)
check_words = importlib.util.module_from_spec(specification)
specification.loader.exec_module(check_words)


@pytest.mark.parametrize(
    ("text", "word", "use"),
    [
        ("an untaught student", "untaught", "trained without a teacher"),
        ("raise ConfigError('x is no mask')", "is no mask", "is not a ..., has no ..., there is no ..."),
        ("the scores are\n    # no scores at all", "are no scores", "is not a ..., has no ..., there is no ..."),
        ("a method of one's\nown", "of one's own", "your own; user-defined"),
        ("figures that it is held\nagainst", "held against", "compared with"),
        ("from kdzoo.fitted import X", "kdzoo.fitted", "the package that holds the module (docs/architecture.md)"),
        ("def f():\n    theirs = teacher(x)", "theirs =", "a name that says what the variable holds"),
        ("the teacher's\nanswers on a batch", "teacher's answers", "outputs, teacher outputs"),
        ("answers = teacher(x)", "answers", "outputs, teacher outputs"),
        ("a network taught\nby labels", "taught", "distilled to, distilled from, trained on"),
        ('report["advice"]', "advice", "recommendation"),
        ("files, folders and the\n# like", "the like", "name what it is; such as ..."),
        ("tokens, each by\nitself", "each by itself", "each on its own, each independently"),
        ("``self.question``", "self.question", "frozen_teacher.cache_key"),
    ],
)
def test_a_retired_word_is_found(text, word, use):
    ((_, found, proposed),) = check_words.retired_words(text)
    assert (found, proposed) == (word, use)


@pytest.mark.parametrize(
    "text",
    [
        "There is no limit.",
        "if there\n    # are no labels",
        "a value is no longer needed",
        "the second score is no better",
        "from kdzoo.distillers import LogitKD",
        "leave room for labels",
        "it is not a mask",
        "a configuration answers with the translated name",
        "relative to the likelier of two classes",
        "recognised by itself",
        "an untaught student  # check_words: ignore",
    ],
)
def test_plain_english_and_ignored_lines_are_left_alone(text):
    assert not list(check_words.retired_words(text))


def test_the_command_names_file_and_line_and_fails(tmp_path, capsys):
    (tmp_path / "docs" / "_build").mkdir(parents=True)
    (tmp_path / "docs" / "guide.md").write_text("# Guide\n\nA rehearsal.\n")
    (tmp_path / "docs" / "_build" / "guide.md").write_text("A rehearsal.\n")
    (tmp_path / "README.md").write_text("Nothing to see.\n")
    assert check_words.main(tmp_path) == 1
    assert capsys.readouterr().out == "docs/guide.md:3: rehearsal -> dry run, dry_run\n"


def test_a_folder_without_retired_words_passes(tmp_path, capsys):
    (tmp_path / "README.md").write_text("A dry run.\n")
    assert check_words.main(tmp_path) == 0
    assert not capsys.readouterr().out
