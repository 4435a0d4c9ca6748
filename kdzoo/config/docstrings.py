"""What docstrings say of a class and its arguments, without markup."""

import re

from kdzoo.config import signatures

# Roles of the docstrings, such as :class:`kdzoo.Distiller`, and literals in double backquotes.
_MARKUP = re.compile(r":[\w:]+:`~?([^`]*)`|``([^`]*)``")


def argument_meanings(target: str) -> dict[str, str]:
    """Return the meaning of each argument of a class, also of those that it inherits, as far as docstrings have it."""
    meanings: dict[str, str] = {}
    for doc in signatures.docs(target):
        meanings = {**parse_docstring(doc)[1], **meanings}
    return meanings


def parse_docstring(doc: str) -> tuple[str, dict[str, str]]:
    r"""Return the description of a docstring and the meaning of each argument, without markup and line breaks.

    Example:
        >>> parse_docstring("Do it.\n\nTwice.\n\nArgs:\n    x: How ``often``\n        it is done.")
        ('Do it.\n\nTwice.', {'x': 'How often it is done.'})
    """
    sections = re.split(r"^(\w+):$", doc, flags=re.MULTILINE)
    paragraphs = [" ".join(paragraph.split()) for paragraph in sections[0].split("\n\n")]
    description = "\n\n".join(without_markup(paragraph) for paragraph in paragraphs if paragraph)
    arguments = dict(zip(sections[1::2], sections[2::2], strict=True)).get("Args", "")
    items = re.split(r"^ {4}\*{0,2}(\w+)(?: \([^)]*\))?: ", arguments, flags=re.MULTILINE)[1:]
    meanings = (without_markup(" ".join(meaning.split())) for meaning in items[1::2])
    return description, dict(zip(items[::2], meanings, strict=True))


def without_markup(text: str) -> str:
    """Return a sentence of a docstring without the markup of the documentation generator.

    Example:
        >>> without_markup("See :class:`kdzoo.Distiller` and ``losses``.")
        'See kdzoo.Distiller and losses.'
    """
    return _MARKUP.sub(lambda match: match[1] or match[2], text)
