"""Docstrings are read as plain sentences, those of base classes included."""

from kdzoo.config import docstrings


def test_a_docstring_is_split_into_description_and_arguments():
    doc = "First.\n\nSecond\nline.\n\nArgs:\n    a: One\n        two.\n    **options: Three.\n\nRaises:\n    E: No."
    assert docstrings.parse_docstring(doc) == ("First.\n\nSecond line.", {"a": "One two.", "options": "Three."})
    assert docstrings.parse_docstring("") == ("", {})


def test_inherited_arguments_have_the_meaning_that_the_base_class_gives_them():
    meanings = docstrings.argument_meanings("kdzoo.distillers.DKD")
    assert meanings["temperature"]
    assert "micro_batch_size" in meanings  # of kdzoo.Distiller
    assert not any("`" in text for text in meanings.values())


def test_the_words_of_a_class_replace_those_of_its_base(tmp_path, monkeypatch):
    (tmp_path / "documented.py").write_text(
        'class Base:\n    """One.\n\n    Args:\n        a: Old.\n        b: Kept.\n    """\n\n'
        'class Derived(Base):\n    """Two.\n\n    Args:\n        a: New.\n    """\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert docstrings.argument_meanings("documented.Derived") == {"a": "New.", "b": "Kept."}
