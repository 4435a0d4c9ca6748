"""Blocks of text in which some tokens are masked and predicted, for masked language models.

Every block has L = ``block_size`` tokens; only the last block of a split may be padded. V is the number of tokens, the
special ones included.

Batches have ``input`` ``[b, L]``, token ids of which the selected ones are replaced by the mask token, replaced by
another token, or kept; ``target`` ``[b, L]``, the original id where a token was selected and ``IGNORE`` elsewhere; and
``mask`` ``[b, L]``, False at padding. See :mod:`kdzoo.core.batch`.

Training batches are masked anew in every epoch, a whole batch at once, so that the masks do not depend on the number of
processes. With ``copies``, the blocks are repeated, and each copy has masks that never change. The masks of val and
test never change either: each token is selected with the same probability, whatever ``masking`` is, and the masks are
the same for every seed, every epoch and every model with this tokenizer.
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
from kdzoo.core.validation import choice, integer, number, probability
from kdzoo.data.files.folders import cache_root
from kdzoo.data.loading.split_data import DataSplit, DataSplits, SplitBatches
from kdzoo.data.text import packing, text_files
from kdzoo.data.text.masking import MODES, TokenMasker, token_weights
from kdzoo.data.text.tokenized import TokenizedData
from kdzoo.errors import DataError
from kdzoo.storage.atomic import write_text
from kdzoo.text.tokenizers import bert_tokenizer, check_length, fingerprint, special_token_id, token_ids

# Seed and epoch of the masks that never change. Users' seeds and epochs are >= 0, so no training epoch has these masks.
_EVALUATION = -1
# Blocks that are copied from the mapped file at once when they are hashed; it bounds memory only.
_CONTENT_ROWS = 1024


class Blocks(DataSplit):
    """A split of blocks of one length, in memory or mapped from a file.

    Args:
        ids: Token ids, unsigned ``[N, L]``.
        rows: Rows of ``ids`` that belong to the split, int64 ``[n]``.
        pad_id: Id of the padding token.
    """

    def __init__(self, ids: npt.NDArray[Any], rows: Tensor, pad_id: int) -> None:
        self.ids, self.rows, self.pad_id = ids, rows, pad_id

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Tensor) -> "Blocks":
        """Return the blocks at ``rows`` (int64 ``[m]``), in this order."""
        return Blocks(self.ids, self.rows[rows], self.pad_id)

    def truncate(self, length: int) -> "Blocks":
        """Return the first ``length`` tokens of every block."""
        return Blocks(self.ids[:, :length], self.rows, self.pad_id)

    def batch(self, index: Tensor) -> Batch:
        """Return ``input`` ``[b, L]``, in which nothing is masked, and ``mask`` ``[b, L]``."""
        ids = torch.from_numpy(self.ids[self.rows[index].numpy()].astype(np.int64))
        return {"input": ids, "mask": ids != self.pad_id}

    def content(self) -> Iterator[Tensor]:
        """Yield the tokens."""
        yield from (self.batch(index)["input"] for index in torch.arange(len(self)).split(_CONTENT_ROWS))


class MaskedBatches(SplitBatches):
    """Batches of masked blocks.

    Args:
        split: The blocks.
        masker: Selects and replaces tokens.
        share: Returns the rank's slice of a batch of a given size; None for the whole batch.
    """

    def __init__(self, split: DataSplit, masker: TokenMasker, share: Callable[[int], slice] | None = None) -> None:
        super().__init__(split)
        self.masker, self.share = masker, share

    def get_batch(self, epoch: int, index: Tensor) -> Batch:
        """Return the blocks at ``index``, masked as they are in an epoch."""
        blocks = super().get_batch(epoch, index)
        inputs, targets = self.masker(blocks["input"], blocks["mask"], epoch, index)
        batch = {"input": inputs, "target": targets, "index": blocks["index"], "mask": blocks["mask"]}
        # Cut only now: the number of selected tokens is exact for the global batch.
        return batch if self.share is None else {name: value[self.share(len(value))] for name, value in batch.items()}


class BlockData(TokenizedData[Blocks]):
    """Blocks of a text with masked tokens; a subclass implements ``reader()`` and nothing else.

    The text is divided by its characters into train, val and test, in this order. Its token ids are kept in a file that
    is mapped into memory, under a name that depends on the text, the tokenizer and the sizes.

    Args:
        block_size: Tokens L of a block, its two special ones included, >= 3.
        val_size: Share of the text for val, in [0, 1).
        test_size: Share of the text for test, in [0, 1).
        masking: ``fixed`` selects exactly ceil(mask_rate * tokens) targets of a training batch over all processes, with
            probability proportional to max(count, 1) ** -smoothing; ``bernoulli`` selects each token independently.
            Special tokens are never selected. Of the targets 80 % are replaced by the mask token, 10 % by a random
            token, and 10 % are kept.
        mask_rate: Share of the tokens that are targets, in [0, 1); 0 masks nothing.
        smoothing: How much rare tokens are preferred, >= 0; 0 treats all tokens alike.
        copies: Number of copies of the training blocks, each with masks that never change (10 in Devlin et al. 2019,
            appendix A.2), so that the teacher's outputs can be cached; an epoch goes through all of them. ``fixed``
            then counts in each block. None masks anew in every epoch. A cache of all logits has n * L * V numbers.
        cache: Folder of the file with the token ids; None for ~/.cache/kdzoo.
        options: See :class:`kdzoo.data.text.tokenized.TokenizedData`; ``train_size`` counts blocks.

    Raises:
        ConfigError: An argument is out of range; where that depends on the data, in ``setup``.
        CheckpointError: In ``setup``, there is no such tokenizer.
        DataError: In ``setup``, the text is missing, empty or not text.
    """

    def __init__(
        self,
        *,
        block_size: int = 128,
        val_size: float | int = 0.05,
        test_size: float | int = 0.05,
        masking: str = "fixed",
        mask_rate: float | int = 0.15,  # of BERT
        smoothing: float = 0.7,  # of DistilBERT's code, after XLM
        copies: int | None = None,
        cache: str | Path | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.block_size = integer("block_size", block_size, 3)
        self.shares = probability("val_size", val_size), probability("test_size", test_size)
        self.masking = choice("masking", masking, MODES)
        self.mask_rate = probability("mask_rate", mask_rate)
        self.smoothing = number("smoothing", smoothing, 0.0)
        self.copies = None if copies is None else integer("copies", copies, 1)
        self.cache = cache_root() if cache is None else Path(cache).expanduser()

    @abstractmethod
    def reader(self) -> Callable[[], Iterator[str]]:
        """Return a function that reads the pieces of the text from the beginning; an empty piece ends a document."""

    def load_splits(self) -> DataSplits[Blocks]:
        """Read, tokenise and pack the text, or map the file that was packed before."""
        text = packing.DividedText.of(self.reader(), *self.shares)
        self.prepare_tokenizer(lambda: self._cached_tokenizer(text))
        check_length("block_size", self.block_size, self.tokenizer)
        begin, end, pad = (special_token_id(self.tokenizer, name) for name in ("cls", "sep", "pad"))
        packed = self._packed(text, packing.Marks(begin, end, pad))
        self._weights = token_weights(packed.counts, self.tokenizer.all_special_ids, self.smoothing)
        self._mask_id = special_token_id(self.tokenizer, "mask")
        splits = [packed.split(index) for index in range(3)]
        return DataSplits(*(Blocks(ids, torch.arange(len(ids)), pad) for ids in splits))

    def repeated(self, train: Blocks) -> Blocks:
        """Return the blocks as often as there are copies."""
        return train if self.copies is None else train.select(torch.arange(len(train)).repeat(self.copies))

    def make_sampler(self, train: Blocks) -> EpochBatches:
        """Return a sampler that gives every rank the global batch, because its masks are drawn together."""
        return EpochBatches(len(train), self.batch_size, self.seed, replicated=True)

    def train_batches(self) -> MaskedBatches:
        """Return the training batches, masked anew in every epoch unless there are copies."""
        return MaskedBatches(self.splits.train, self._training_masker, self.train_sampler.share)

    def ordered_batches(self, split: Blocks) -> MaskedBatches:
        """Return batches with the masks that never change."""
        return MaskedBatches(split, self._evaluation_masker)

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """Return the training blocks in index order, with fixed masks: those of training if they never change."""
        masker = self._evaluation_masker if self.is_augmented else self._training_masker
        return self._ordered_loader(MaskedBatches(self.splits.train, masker))

    @property
    def sizes(self) -> dict[str, Any]:
        """``num_classes``, ``vocab_size``, ``pad_id``, ``text_length`` (L), and ``tokenizer``, its fingerprint."""
        return self.token_sizes(len(self.tokenizer), self.block_size)

    @property
    def is_augmented(self) -> bool:
        """Whether training samples differ from epoch to epoch: they do if they are masked anew."""
        return self.mask_rate > 0 and self.copies is None

    @property
    def has_equal_rows(self) -> bool:
        """True: all blocks have one length."""
        return True

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the training blocks in order, the tokenizer and the masking."""
        masking = f"{fingerprint(self.tokenizer)} {self.masking} {self.mask_rate} {self.smoothing}"
        if self.copies is not None:
            masking += f" {self.copies} {self.seed}"
        return hashlib.sha256(f"{super().fingerprint()} {masking}".encode()).hexdigest()

    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val and n_test, in blocks, and num_classes; every block is its own label."""
        return self.labelled_summary(len(self.tokenizer))

    def _cached_tokenizer(self, text: packing.DividedText) -> Any:
        """Return the tokenizer of the training text, trained now or in an earlier run."""
        name = packing.key(text.digest, *self.shares, self.vocab_size, self.lowercase)
        path = self.cache / "text" / f"{name}.vocab.txt"
        if not path.is_file():
            tokenizer = self.train_tokenizer(text.train())
            write_text(path, "\n".join(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))))
        # Read from the file in both cases, so that a new and a cached tokenizer cannot differ.
        return bert_tokenizer(path.read_text(encoding="utf-8").split("\n"), self.lowercase)

    @property
    def _training_masker(self) -> TokenMasker:
        has_copies = self.copies is not None
        options = (self.mask_rate, self.seed, self.masking == "fixed")
        # Masks of a copy are a function of its index alone: one epoch for all, and a count in each row, not the batch.
        return TokenMasker(self._weights, self._mask_id, *options, epoch=0 if has_copies else None, by_row=has_copies)

    @property
    def _evaluation_masker(self) -> TokenMasker:
        # Bernoulli, because with a fixed number the masks of a row would depend on the evaluation batch.
        return TokenMasker(self._weights, self._mask_id, self.mask_rate, _EVALUATION, is_fixed=False, epoch=_EVALUATION)

    def _packed(self, text: packing.DividedText, marks: packing.Marks) -> packing.PackedBlocks:
        """Return the blocks from the cache; pack and save them first if they are not there."""
        # The rules of the tokenizer and not only its tokens: lower-casing or splitting may differ with equal tokens.
        rules = hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
        folder = self.cache / "text" / packing.key(text.digest, *self.shares, rules, self.block_size)
        if (blocks := packing.load(folder)) is None:
            encode, vocab_size = partial(token_ids, self.tokenizer), len(self.tokenizer)
            chunks = packing.pack_text(text, encode, self.block_size, marks, vocab_size)
            packing.save(folder, chunks, self.block_size, vocab_size)
            blocks = packing.load(folder)
        if blocks is None:
            raise DataError("the text has no tokens; allowed: at least 1")
        return blocks


class TextBlocks(BlockData):
    """Blocks of the user's own text, with masked tokens.

    Args:
        path: A text file; a file of JSON lines (.jsonl, .json); a folder whose .txt, .jsonl and .json files are read in
            the order of their names; or a folder that the package ``datasets`` has saved, if it is installed. Blank
            lines separate documents, and each JSON record is a document.
        field: Name of the text in a JSON record or a row of a data set.
        options: See :class:`BlockData`.

    Raises:
        ConfigError: An option is out of range.
        DataError: In ``setup``, a file is missing, empty or not text.
    """

    def __init__(self, *, path: str | Path, field: str = "text", **options: Any) -> None:
        super().__init__(**options)
        self.path, self.field = path, field

    def reader(self) -> Callable[[], Iterator[str]]:
        """Return a function that reads the files."""
        return text_files.reader(self.path, self.field)
