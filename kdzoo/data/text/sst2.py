"""The Stanford Sentiment Treebank with two classes, as in GLUE."""

from pathlib import Path
from typing import Any

from kdzoo.data.files.folders import find_root
from kdzoo.data.text.tables import Table, read_table
from kdzoo.data.text.text_classes import ClassifiedTexts

# The names of the files in GLUE's archive.
_FOLDER, _TRAIN, _TEST = "sst2", "train.tsv", "dev.tsv"


class SST2(ClassifiedTexts):
    """67,349 phrases and sentences of film reviews (Socher et al. 2013), negative (0) or positive (1).

    The labels of GLUE's test split are not public: its dev split, 872 sentences, is the test split here, and val is
    taken from its training split. The files ``train.tsv`` and ``dev.tsv`` are looked for in ``<root>/sst2`` and
    ``<root>``; without ``root``, in the same way below $KDZOO_DATA and ~/.cache/kdzoo.

    Args:
        root: Folder of the files; None for the usual places.
        max_length: Number of tokens to which longer texts are truncated, special ones included, >= 3. The default, 64,
            is enough for nearly all: the phrases are short.
        val_size: Share of the training texts for val: a fraction in [0, 1) or a count; 0 for none. The default, 2 %, is
            1,347 texts.
        options: See :class:`kdzoo.data.text.text_classes.ClassifiedTexts`.

    Raises:
        ConfigError: An option is out of range.
        DataError: In ``setup``, the files are missing or damaged.
    """

    def __init__(
        self, *, root: str | Path | None = None, max_length: int = 64, val_size: float | int = 0.02, **options: Any
    ) -> None:
        super().__init__(max_length=max_length, val_size=val_size, **options)
        self.root = root

    def read(self) -> tuple[Table, Table]:
        """Read both files."""
        folder = find_root(self.root, _FOLDER, [_TRAIN, _TEST])
        train, test = (read_table(folder / name, "sentence", "label") for name in (_TRAIN, _TEST))
        return train, test
