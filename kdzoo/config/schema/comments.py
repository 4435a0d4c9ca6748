"""The comments behind the keys of a YAML file, which say what a setting means."""

import re
from collections.abc import Iterator

import yaml

from kdzoo.config.yaml_files import FastLoader


def comments(text: str) -> dict[str, str]:
    r"""Return the comment behind each key of a YAML file by the key's dotted path, in which list items are numbers.

    Example:
        >>> comments("lr: 0.1  # step size\nlayers:  # of the network\n  - width: 3  # neurons")
        {'lr': 'step size', 'layers': 'of the network', 'layers.0.width': 'neurons'}
    """
    return dict(_comments(yaml.compose(text, Loader=FastLoader), text.splitlines(), ""))


def _comments(node: yaml.Node | None, lines: list[str], path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _comments(item, lines, f"{path}{i}.")
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        # The comment of a value in one line is behind the value; that of a block is behind the key and its colon.
        is_block = value.start_mark.line > key.end_mark.line
        mark = key.end_mark if is_block else value.end_mark
        rest = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
        found = re.match(r":?\s*#\s*(.*)", rest)
        if found:
            yield f"{path}{key.value}", found[1].strip()
        yield from _comments(value, lines, f"{path}{key.value}.")
