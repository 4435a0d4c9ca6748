"""Problems of the PAutomaC competition, from its files."""

from pathlib import Path
from typing import Any

from torch import Tensor

from kdzoo.automata.exchange.pautomac import read_model, read_solution, read_strings
from kdzoo.core.validation import integer
from kdzoo.data.files.folders import find_file, find_root
from kdzoo.data.loading.splits import SplitPlan
from kdzoo.data.sequences.token_sequence_data import Corpus, TokenSequenceData, split_train_val
from kdzoo.errors import DataError


class PAutomaC(TokenSequenceData):
    """A problem of the PAutomaC competition (Verwer, Eyraud & de la Higuera 2014).

    ``<n>.pautomac.train`` and ``<n>.pautomac.test`` are looked for in ``<root>/pautomac`` and ``<root>``; without
    ``root``, in the same way below $KDZOO_DATA and ~/.cache/kdzoo. If the same folder has
    ``<n>.pautomac_model.txt`` and ``<n>.pautomac_solution.txt``, they become ``truth`` and ``solution``. The test
    sequences are all different, as the competition's score needs; they are not a sample of the target's distribution.

    Args:
        problem: Number of the problem; 1..48 in the competition, and 49 and 50 from real data.
        root: Folder of the files; None for the usual places.
        val_size: Share of the training sequences for val: a fraction in [0, 1) or a count; 0 for none.
        train_size: Use only this many training sequences, always the same ones; None for all.
        options: See :class:`kdzoo.data.sequences.token_sequence_data.TokenSequenceData`.

    Attributes:
        solution: After ``setup``, the true probability of each test sequence, normalised over all of them, float64
            ``[n_test]``; None without the file.

    Raises:
        ConfigError: An option is out of range.
        DataError: In ``setup``, a file is missing or does not contain what its header says.
    """

    def __init__(
        self,
        *,
        problem: int,
        root: str | Path | None = None,
        val_size: float | int = 0.1,
        train_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.problem = integer("problem", problem, 0)
        self.root = root
        self.plan = SplitPlan(val_size, train_size)
        self.solution: Tensor | None = None

    def load(self) -> Corpus:
        """Read the files."""
        names = [f"{self.problem}.pautomac{end}" for end in (".train", ".test", "_model.txt", "_solution.txt")]
        folder = find_root(self.root, "pautomac", names[:2])
        (train_and_val, n_tokens), (test, n_test_tokens) = (read_strings(folder / name) for name in names[:2])
        # Each header counts the tokens that occur in its file, and one of the files may lack some.
        n_tokens = max(n_tokens, n_test_tokens)
        model, solution = (find_file(folder, name) for name in names[2:])
        if solution is not None:
            self.solution = read_solution(solution)
            if len(self.solution) != len(test):
                raise DataError(
                    f"{solution} has {len(self.solution)} probabilities; allowed: {len(test)}, as test sequences"
                )
        truth = None if model is None else read_model(model, n_tokens)
        train, val = split_train_val(train_and_val, self.plan)
        return Corpus(train, val, test, tuple(map(str, range(n_tokens))), truth)
