"""Parts of Markdown pages: their code blocks, and the commands that they print."""

import re
from importlib.util import find_spec

# The language may be a directive such as {toctree}; without it, an end would be taken for a beginning.
BLOCK = re.compile(r"^```([^`\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(text, language):
    """Return the code blocks of a language, "" for those without one."""
    return [block for name, block in BLOCK.findall(text) if name == language]


def commands(text):
    """Return the lines ``kdzoo ...`` in blocks without a language and the commands in inline code, each once.

    The file that an output is written to is left out.
    """
    lines = re.findall(r"^(?:\$ )?(kdzoo .+)$", "\n".join(blocks(text, "")), re.MULTILINE)
    lines += re.findall(r"`(kdzoo [^`\n]+)`", text)
    return list(dict.fromkeys(re.sub(r"\s> .*", "", line) for line in lines))


def is_checkable(command):
    """Return whether what a command names is installed: Hydra knows the launchers of installed packages only."""
    packages = {"submitit": "submitit", "launcher=ray": "ray"}
    return all(text not in command or find_spec(package) is not None for text, package in packages.items())
