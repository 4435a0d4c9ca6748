"""The user's own modules in the working folder: importable, but never in the place of an installed module.

Python looks for a module in the folders of ``sys.path`` in their order. With the working folder first, a file
``torch.py`` in a downloaded folder would run with every command that is typed there.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path


def keep_out_of_child_processes() -> None:
    """Let no Python process that is started from here put its working folder first on its path."""
    os.environ["PYTHONSAFEPATH"] = "1"


def make_importable() -> None:
    """Add the working folder to the end of the path, for the user's own classes."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def hidden_modules(targets: Iterable[str]) -> Iterator[str]:
    """Yield a line for each module in the working folder that is hidden by an installed one of the same name.

    Args:
        targets: Dotted names of classes and functions of the user.
    """
    here = Path.cwd()
    for name in dict.fromkeys(target.partition(".")[0] for target in targets):
        paths = [path for path in (here / f"{name}.py", here / name / "__init__.py") if path.is_file()]
        spec = find_spec(name) if paths else None
        if spec is not None and spec.origin is not None and not Path(spec.origin).is_relative_to(here):
            yield f"{paths[0]} is hidden by the installed module {name} ({spec.origin}); give it another name"
