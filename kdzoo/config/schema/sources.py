"""What the files of the config groups say: their values, their comments, and the classes that they name."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from kdzoo import config
from kdzoo.config import registry
from kdzoo.config.overrides import MULTI_CHOICE_GROUPS
from kdzoo.config.schema.comments import comments

# Groups whose files are merged into the whole configuration (``# @package _global_``).
GLOBAL_GROUPS = ("experiment", "debug")
# Groups whose files hold objects by name, so that several files can be chosen.
NAMED_GROUPS = tuple(group for group in MULTI_CHOICE_GROUPS if group not in GLOBAL_GROUPS)


@dataclass
class Target:
    """What the config groups say of a class that they name.

    Attributes:
        groups: The groups whose key it can be the value of.
        values: Its arguments in the files; of an argument that several files set, the first value.
        comments: The comments on them.
    """

    groups: set[str] = field(default_factory=set)
    values: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfigFiles:
    """The packaged config files and those of the user.

    Attributes:
        folder: The user's config folder, or None.
    """

    folder: Path | None

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The names of the files of each group."""
        return {group: names for group, names in sorted(config.groups(self.folder).items()) if "/" not in group}

    @cached_property
    def key_groups(self) -> list[str]:
        """The groups that are a key of the configuration."""
        return [group for group in self.groups if group not in GLOBAL_GROUPS]

    @cached_property
    def contents(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The content of each file by its group and name, with that of the files that it extends."""
        names = [(group, name) for group in self.groups for name in self.groups[group]]
        return {(group, name): registry.content(group, name, self._folders) for group, name in names}

    @cached_property
    def comments(self) -> dict[tuple[str, str], dict[str, str]]:
        """The comments of each file by its group and name."""
        return {
            (group, name): comments(path.read_text(encoding="utf-8"))
            for group in self.groups
            for name, path in registry.files_of(group, self._folders).items()
        }

    @cached_property
    def targets(self) -> dict[str, Target]:
        """What the groups say of each class that they name."""
        targets: dict[str, Target] = {}
        for (group, name), content in self.contents.items():
            for path, node in _nodes(content):
                target = targets.setdefault(str(node["_target_"]), Target())
                target.groups |= _groups_of(group, path) & set(self.key_groups)
                target.values = {**node, **target.values}
                texts = self.comments[group, name].items()
                below = {key.removeprefix(path): text for key, text in texts if key.startswith(path)}
                target.comments = {**below, **target.comments}
        return targets

    def classes(self, group: str) -> list[str]:
        """Return the classes of the objects that the key of a group can be, also those that only experiments name."""
        return [name for name, target in self.targets.items() if group in target.groups]

    def options(self, group: str) -> dict[str, str]:
        """Return the class of each option of a group whose files describe one object."""
        contents = {name: self.contents[group, name] for name in self.groups[group]}
        return {name: content["_target_"] for name, content in contents.items() if "_target_" in content}

    def objects(self, group: str) -> dict[str, str]:
        """Return the class of each object in the files of a group that hold objects by name."""
        contents = [self.contents[group, name] for name in self.groups[group]]
        return {key: node["_target_"] for content in contents for key, node in content.items() if "_target_" in node}

    @cached_property
    def run_values(self) -> dict[str, Any]:
        """The packaged values of the settings of a run."""
        return yaml.safe_load(self._train)

    def description(self, key: str) -> dict[str, str]:
        """Return the description of a group or of a setting of a run, by its dotted key."""
        return described(self._run_comments.get(key))

    @cached_property
    def _run_comments(self) -> dict[str, str]:
        # The comment on a group is behind its entry in the list of defaults.
        return {re.sub(r"^defaults\.\d+\.", "", key): text for key, text in comments(self._train).items()}

    @property
    def _folders(self) -> list[Path]:
        return [self.folder] if self.folder else []

    @cached_property
    def _train(self) -> str:
        return (config.packaged_folder() / "train.yaml").read_text(encoding="utf-8")


def described(text: str | None) -> dict[str, str]:
    """Return a part of a schema that has a text as its description; nothing without a text."""
    return {"description": text} if text else {}


def _groups_of(group: str, path: str) -> set[str]:
    """Return the group whose key is an object at a path in a file of a group; nothing for an object within another.

    In the files of global groups, the last key of the path is a group, as in ``teacher_training.optimizer``.
    """
    keys = path.split(".")[:-1]
    if group in GLOBAL_GROUPS:
        return set(keys[-1:])
    return {group} if len(keys) == int(group in NAMED_GROUPS) else set()


def _nodes(content: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each mapping with ``_target_``, with the dotted path to it, which ends with a dot unless it is empty."""
    if isinstance(content, Mapping) and "_target_" in content:
        yield path, content
    items = enumerate(content) if isinstance(content, list) else content.items() if isinstance(content, Mapping) else ()
    for key, child in items:
        yield from _nodes(child, f"{path}{key}.")
