"""The base of data modules of texts: a tokenizer that is given or trained, and the sizes that models take from it."""

import pytest
import torch

from kdzoo.core.abilities import HasTokenizer
from kdzoo.data.loading.split_data import DataSplits
from kdzoo.data.text.text_classes import LabelledTexts
from kdzoo.data.text.tokenized import TokenizedData
from kdzoo.errors import CheckpointError, ConfigError
from kdzoo.text.token_sequences import TokenSequences
from kdzoo.text.tokenizers import fingerprint, train_tokenizer

pytest.importorskip("transformers")

WORDS = ["to be", "or not to be", "that is the question"]


class Lines(TokenizedData):
    """The words as texts of two classes."""

    def load_splits(self):
        self.prepare_tokenizer(lambda: self.train_tokenizer(WORDS))
        ids = TokenSequences.of(self.tokenizer(WORDS)["input_ids"])
        split = LabelledTexts(ids, torch.tensor([0, 1, 1]), 0)
        return DataSplits(split, split, split)

    @property
    def sizes(self):
        return self.token_sizes(2, 7)

    def summary(self):
        return self.labelled_summary(2)


def test_without_a_tokenizer_one_is_trained_on_the_texts():
    data = Lines(vocab_size=60, batch_size=2)
    data.setup()
    assert isinstance(data, HasTokenizer)
    expected = train_tokenizer(WORDS, 60)
    assert data.sizes == {
        "num_classes": 2,
        "vocab_size": len(expected),
        "pad_id": 0,
        "tokenizer": fingerprint(expected),
        "text_length": 7,
    }
    assert data.summary() == {"n_train": 3, "n_labelled": 3, "n_val": 3, "n_test": 3, "num_classes": 2}


def test_a_given_tokenizer_is_loaded_and_not_trained(tmp_path):
    tokenizer = train_tokenizer(["other words", *WORDS], 70, lowercase=False)
    tokenizer.save_pretrained(tmp_path)
    data = Lines(tokenizer=tmp_path, batch_size=2)
    data.setup()
    assert data.sizes["tokenizer"] == fingerprint(tokenizer)


def test_letter_case_is_kept_if_asked_for():
    data = Lines(vocab_size=80, lowercase=False, batch_size=2)
    data.setup()
    assert fingerprint(data.tokenizer) == fingerprint(train_tokenizer(WORDS, 80, lowercase=False))


def test_invalid_options_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^vocab_size must be an integer >= 6, got 5$"):
        Lines(vocab_size=5)
    with pytest.raises(ConfigError, match=r"^lowercase must be true or false, got 1$"):
        Lines(lowercase=1)
    with pytest.raises(CheckpointError, match=r"^no tokenizer can be loaded from "):
        Lines(tokenizer=tmp_path / "absent", batch_size=2).setup()
    with pytest.raises(RuntimeError, match=r"^call Lines\.setup\(\) first$"):
        Lines().sizes  # noqa: B018
