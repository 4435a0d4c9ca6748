"""Blocks of text whose masked tokens are predicted.

Every block has ``block_size`` tokens; only the last one of a part may be padded. V tokens, the special ones included.

Batches have ``input`` and ``mask`` ``[b, L]``: the ids, of which the chosen ones are replaced by the mask, by another
token or kept; and ``target`` ``[b, L]``, the original id where a token was chosen and ``IGNORE`` elsewhere. See
:mod:`kdzoo.core.batch`.

Training batches are masked anew in every epoch, the whole batch together, so that any number of processes see the same
masks; with ``copies``, the blocks are there so many times, and each copy is masked once and for all. Val and test are
masked once and for all: each token with the same probability, whatever ``masking`` is, the same for every seed, every
epoch and every model with this tokenizer.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdzoo.core.batch import Batch
from kdzoo.core.samplers import EpochBatches
from kdzoo.core.validation import choice, flag, integer, number, probability
from kdzoo.data.files.folders import cache_root
from kdzoo.data.loading.split_data import DataSplit, DataSplits, SplitBatches, SplitDataModule
from kdzoo.data.text import packing, text_files
from kdzoo.data.text.masking import KINDS, Masks, token_weights
from kdzoo.errors import DataError
from kdzoo.storage.atomic import write_text
from kdzoo.text.tokenizers import (
    bert_tokenizer,
    check_length,
    fingerprint,
    load_tokenizer,
    special_token_id,
    token_ids,
    train_tokenizer,
)

_EVALUATION = -1
"""The seed and the epoch of masks that never change."""


class Blocks(DataSplit):
    """Blocks of one length, in memory or mapped from a file.

    Args:
        ids: unsigned [N, L].
        rows: int64 [n], the blocks that are meant.
        pad_id: what fills up the last block.
    """

    def __init__(self, ids: npt.NDArray[Any], rows: Tensor, pad_id: int) -> None:
        self.ids, self.rows, self.pad_id = ids, rows, pad_id

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Tensor) -> "Blocks":
        """Return the blocks at ``rows`` (int64 [m]), in this order."""
        return Blocks(self.ids, self.rows[rows], self.pad_id)

    def batch(self, index: Tensor) -> Batch:
        """Return ``input`` [b, L], nothing masked, and ``mask`` [b, L]."""
        ids = torch.from_numpy(self.ids[self.rows[index].numpy()].astype(np.int64))
        return {"input": ids, "mask": ids != self.pad_id}

    def content(self) -> Iterator[Tensor]:
        """Yield the tokens."""
        yield from (self.batch(index)["input"] for index in torch.arange(len(self)).split(1024))


class MaskedBatches(SplitBatches):
    """TeacherOutputs ``dataset[epoch, indices]`` with masked blocks.

    Args:
        split: the blocks.
        masks: how to mask all blocks that are asked for.
        share: where the rank's share of the batch is, given its size; None for all of it.
    """

    def __init__(self, split: DataSplit, masks: Masks, share: Callable[[int], slice] | None = None) -> None:
        super().__init__(split)
        self.masks, self.share = masks, share

    def get_batch(self, epoch: int, index: Tensor) -> Batch:
        """Return the blocks at ``index``, masked as they are in an epoch."""
        plain = super().get_batch(epoch, index)
        inputs, targets = self.masks(plain["input"], plain["mask"], epoch, index)
        batch = {"input": inputs, "target": targets, "index": plain["index"], "mask": plain["mask"]}
        return batch if self.share is None else {name: one[self.share(len(one))] for name, one in batch.items()}


class BlockData(SplitDataModule[Blocks]):
    """Blocks of a text, whose masked tokens are predicted; a subclass writes ``reader()`` and nothing else.

    The text is divided by its characters into train, val and test, in this order. Its tokens are kept in a file that is
    mapped into memory, under a name that depends on the text, the tokenizer and the sizes.

    Args:
        tokenizer: local folder or cached name of a Hugging Face tokenizer; None trains one on the training text.
        vocab_size: tokens at most of the one that is trained.
        lowercase: whether capital letters make no difference to the one that is trained.
        block_size: tokens of a block L, its two special ones included, >= 3.
        val_size: share of the text for val, in [0, 1).
        test_size: share of the text for test, in [0, 1).
        masking: "fixed" chooses exactly ceil(mask_rate * tokens) targets of a training batch, over all processes, with
            probability proportional to max(count, 1) ** -smoothing; "bernoulli" each token by itself. Special tokens
            are never chosen. Of the targets 80 % are replaced by the mask, 10 % by a random token, 10 % kept.
        mask_rate: share of the tokens that are targets, in [0, 1); 0 masks nothing.
        smoothing: how much rarer tokens are preferred, >= 0; 0 for not at all.
        copies: number of copies of the training blocks, each masked once and for all (Devlin et al. 2019, appendix A.2,
            have 10), so that a teacher's answers can be kept; an epoch goes through all of them. "fixed" then counts in
            each block. None masks anew in every epoch. Of a method that compares all logits, n L V numbers are kept.
        cache: folder of the file with the tokens; None for ~/.cache/kdzoo.
        options: see :class:`kdzoo.data.loading.split_data.SplitDataModule`; ``train_size`` counts blocks.

    Raises:
        ConfigError: an argument is out of range, at once or, where it depends on the data, in ``setup``; the extra
            `kdzoo[text]` is not installed.
        CheckpointError: in ``setup``, there is no such tokenizer.
        DataError: in ``setup``, the text is missing, empty or no text.
    """

    def __init__(
        self,
        *,
        tokenizer: str | Path | None = None,
        vocab_size: int = 8000,
        lowercase: bool = True,
        block_size: int = 128,
        val_size: float | int = 0.05,
        test_size: float | int = 0.05,
        masking: str = "fixed",
        mask_rate: float | int = 0.15,
        smoothing: float = 0.7,
        copies: int | None = None,
        cache: str | Path | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.tokenizer_path = tokenizer
        self.vocab_size = integer("vocab_size", vocab_size, 6)
        self.lowercase = flag("lowercase", lowercase)
        self.block_size = integer("block_size", block_size, 3)
        self.shares = probability("val_size", val_size), probability("test_size", test_size)
        self.masking = choice("masking", masking, KINDS)
        self.mask_rate = probability("mask_rate", mask_rate)
        self.smoothing = number("smoothing", smoothing, 0.0)
        self.copies = None if copies is None else integer("copies", copies, 1)
        self.cache = cache_root() if cache is None else Path(cache).expanduser()
        self._tokenizer: Any = None

    @abstractmethod
    def reader(self) -> Callable[[], Iterator[str]]:
        """Return a function that reads the text's pieces from the beginning; an empty one ends a document."""

    def load_splits(self) -> DataSplits[Blocks]:
        """Read the text, tokenise and pack it, or map what was packed before."""
        text = packing.DividedText.of(self.reader(), *self.shares)
        self._tokenizer = self._own(text) if self.tokenizer_path is None else load_tokenizer(self.tokenizer_path)
        check_length("block_size", self.block_size, self.tokenizer)
        pad_id = special_token_id(self.tokenizer, "pad")
        marks = packing.Marks(special_token_id(self.tokenizer, "cls"), special_token_id(self.tokenizer, "sep"), pad_id)
        blocks = self._packed(text, marks)
        special = self.tokenizer.all_special_ids
        self._weights = token_weights(blocks.counts, special, self.smoothing)
        self._mask_id = special_token_id(self.tokenizer, "mask")
        parts = [blocks.part(number) for number in range(3)]
        return DataSplits(*(Blocks(one, torch.arange(len(one)), pad_id) for one in parts))

    def repeated(self, train: Blocks) -> Blocks:
        """Return the blocks so many times as there are copies."""
        return train if self.copies is None else train.select(torch.arange(len(train)).repeat(self.copies))

    def make_sampler(self, train: Blocks) -> EpochBatches:
        """Return a sampler that gives every rank the global batch, because its masks are drawn together."""
        return EpochBatches(len(train), self.batch_size, self.seed, replicated=True)

    @property
    def tokenizer(self) -> Any:
        """The ``transformers.PreTrainedTokenizerFast``, loaded or trained by ``setup``."""
        if self._tokenizer is None:
            raise RuntimeError(f"call {type(self).__name__}.setup() first")
        return self._tokenizer

    def train_batches(self) -> MaskedBatches:
        """Return the training batches, masked anew in every epoch unless there are copies."""
        return MaskedBatches(self.splits.train, self._training_masks, self.train_sampler.share)

    def ordered_batches(self, split: Blocks) -> MaskedBatches:
        """Return batches with the masks that never change."""
        return MaskedBatches(split, self._evaluation_masks)

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """Return the training blocks in index order, with fixed masks: those of training if they never change."""
        masks = self._evaluation_masks if self.is_augmented else self._training_masks
        return self._ordered_loader(MaskedBatches(self.splits.train, masks))

    @property
    def sizes(self) -> dict[str, Any]:
        """``num_classes`` and ``vocab_size`` (both V), ``pad_id``, and ``tokenizer``, what tells it from others."""
        return sizes_of(self.tokenizer, len(self.tokenizer))

    @property
    def is_augmented(self) -> bool:
        """Whether training samples differ from epoch to epoch: they do if they are masked anew."""
        return self.mask_rate > 0 and self.copies is None

    @property
    def has_equal_rows(self) -> bool:
        """True: all blocks are of one length."""
        return True

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the training blocks in order, the tokenizer and how they are masked."""
        how = f"{fingerprint(self.tokenizer)} {self.masking} {self.mask_rate} {self.smoothing}"
        if self.copies is not None:
            how += f" {self.copies} {self.seed}"
        return hashlib.sha256(f"{super().fingerprint()} {how}".encode()).hexdigest()

    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test, of blocks, and num_classes; every block is its own label."""
        found = super().summary()
        return {**found, "n_labelled": found["n_train"], "num_classes": len(self.tokenizer)}

    @property
    def _training_masks(self) -> Masks:
        once = self.copies is not None
        how = (self.mask_rate, self.seed, self.masking == "fixed")
        return Masks(self._weights, self._mask_id, *how, epoch=0 if once else None, by_row=once)

    @property
    def _evaluation_masks(self) -> Masks:
        return Masks(self._weights, self._mask_id, self.mask_rate, _EVALUATION, is_fixed=False, epoch=_EVALUATION)

    def _own(self, text: packing.DividedText) -> Any:
        """Return the tokenizer of the training text, trained now or earlier."""
        name = packing.key(text.digest, *self.shares, self.vocab_size, self.lowercase)
        path = self.cache / "text" / f"{name}.vocab.txt"
        if not path.is_file():
            trained = train_tokenizer(text.train(), self.vocab_size, lowercase=self.lowercase)
            write_text(path, "\n".join(trained.convert_ids_to_tokens(range(len(trained)))))
        return bert_tokenizer(path.read_text(encoding="utf-8").split("\n"), self.lowercase)

    def _packed(self, text: packing.DividedText, marks: packing.Marks) -> packing.Packed:
        rules = hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
        folder = self.cache / "text" / packing.key(text.digest, *self.shares, rules, self.block_size)
        if (found := packing.load(folder)) is None:
            encode, size = partial(token_ids, self.tokenizer), len(self.tokenizer)
            packing.save(folder, packing.packed(text, encode, self.block_size, marks, size), self.block_size, size)
            found = packing.load(folder)
        if found is None:
            raise DataError("the text has no tokens; allowed: at least 1")
        return found


class TextBlocks(BlockData):
    """A user's own text, whose masked tokens are predicted.

    Args:
        path: a text file; a file of JSON lines (.jsonl, .json); a folder whose .txt, .jsonl and .json files are read in
            the order of their names; or a folder that the package ``datasets`` has saved, if it is installed. Blank
            lines separate documents, and each JSON record is one.
        field: where the text is in a JSON record or a row of a data set.
        options: see :class:`BlockData`.

    Raises:
        ConfigError: an option is out of range.
        DataError: in ``setup``, a file is missing, empty or no text.
    """

    def __init__(self, *, path: str | Path, field: str = "text", **options: Any) -> None:
        super().__init__(**options)
        self.path, self.field = path, field

    def reader(self) -> Callable[[], Iterator[str]]:
        """Read the files."""
        return text_files.reader(self.path, self.field)


def sizes_of(tokenizer: Any, num_classes: int) -> dict[str, Any]:
    """Return ``num_classes`` and what models need to know of a tokenizer."""
    return {
        "num_classes": num_classes,
        "vocab_size": len(tokenizer),
        "pad_id": special_token_id(tokenizer, "pad"),
        "tokenizer": fingerprint(tokenizer),
    }
