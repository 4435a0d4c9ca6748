"""The base of data modules of texts: the tokenizer, given or trained, and what models have to know about it."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from kdzoo.core.validation import flag, integer
from kdzoo.data.loading.split_data import DataSplit, SplitDataModule
from kdzoo.text.tokenizers import fingerprint, load_tokenizer, special_token_id, train_tokenizer

S = TypeVar("S", bound=DataSplit)


class TokenizedData(SplitDataModule[S]):
    """Texts as token ids; a subclass calls ``prepare_tokenizer`` in ``load_splits``.

    Args:
        tokenizer: Local folder or cached name of a Hugging Face tokenizer; None trains one on the training texts.
        vocab_size: Largest number of tokens of a trained tokenizer, >= 6. A given tokenizer has its own.
        lowercase: Ignore capital letters and accents in a trained tokenizer.
        options: See :class:`kdzoo.data.loading.split_data.SplitDataModule`.

    Raises:
        ConfigError: An argument is out of range; or, in ``setup``, the extra ``kdzoo[text]`` is not installed.
        CheckpointError: In ``setup``, there is no such tokenizer.
    """

    def __init__(
        self, *, tokenizer: str | Path | None = None, vocab_size: int = 8000, lowercase: bool = True, **options: Any
    ) -> None:
        super().__init__(**options)
        self.tokenizer_path = tokenizer
        # 5 special tokens and at least one more.
        self.vocab_size = integer("vocab_size", vocab_size, 6)
        self.lowercase = flag("lowercase", lowercase)
        self._tokenizer: Any = None

    def prepare_tokenizer(self, train: Callable[[], Any]) -> None:
        """Load the given tokenizer, or take the one that ``train`` returns."""
        self._tokenizer = train() if self.tokenizer_path is None else load_tokenizer(self.tokenizer_path)

    def train_tokenizer(self, texts: Iterable[str]) -> Any:
        """Return a tokenizer of at most ``vocab_size`` tokens, trained on texts."""
        return train_tokenizer(texts, self.vocab_size, lowercase=self.lowercase)

    @property
    def tokenizer(self) -> Any:
        """The ``transformers.PreTrainedTokenizerFast``, loaded or trained by ``setup``."""
        if self._tokenizer is None:
            raise RuntimeError(f"call {type(self).__name__}.setup() first")
        return self._tokenizer

    def token_sizes(self, num_classes: int, text_length: int) -> dict[str, Any]:
        """Return the values that models take from the data, or that are compared with what a model can read.

        Args:
            num_classes: Number of classes.
            text_length: Number of tokens of the longest text of all splits before a trial run cuts it, so that the
                trial run finds a model with too few positions.

        Returns:
            ``num_classes``, ``vocab_size`` (number of tokens), ``pad_id``, ``tokenizer`` (its fingerprint) and
            ``text_length``.
        """
        return {
            "num_classes": num_classes,
            "vocab_size": len(self.tokenizer),
            "pad_id": special_token_id(self.tokenizer, "pad"),
            "tokenizer": fingerprint(self.tokenizer),
            "text_length": text_length,
        }

    def labelled_summary(self, num_classes: int) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test and num_classes; every training sample has a label."""
        counts = SplitDataModule.summary(self)
        return {**counts, "n_labelled": counts["n_train"], "num_classes": num_classes}
