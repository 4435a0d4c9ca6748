"""Tokenizers: trained on texts alone, loaded without a network, and fingerprinted by their vocabulary."""

import copy
import sys

import pytest

from kdzoo.errors import CheckpointError, ConfigError
from kdzoo.text import tokenizers
from kdzoo.text.tokenizers import (
    bert_tokenizer,
    check_length,
    fingerprint,
    load_tokenizer,
    special_token_id,
    token_ids,
    train_tokenizer,
    truncated_ids,
)

transformers = pytest.importorskip("transformers")

TEXTS = ["To be, or not to be: that is the question:", "Whether 'tis nobler in the mind to suffer", ""] * 3


@pytest.fixture(scope="module")
def trained():
    return train_tokenizer(TEXTS, 90)


def test_a_trained_vocabulary_is_that_of_bert(trained):
    assert trained.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert [special_token_id(trained, name) for name in ("pad", "cls", "sep", "mask")] == [0, 2, 3, 4]
    assert sorted(trained.get_vocab().values()) == list(range(len(trained)))
    assert len(trained) <= 90
    ids = trained("Nobler, or MIND")["input_ids"]
    assert (ids[0], ids[-1]) == (2, 3)
    assert 1 not in ids
    assert trained.decode(ids[1:-1]) == "nobler, or mind"
    assert set(trained("be")) == {"input_ids", "attention_mask"}


def test_frequent_words_are_tokens():
    words = set(train_tokenizer(["aab bba bba"] * 9 + ["abab"], 13).get_vocab())
    assert {"aab", "bba"} <= words
    assert "abab" not in words


def test_training_depends_on_nothing_but_the_texts_and_options(trained):
    assert fingerprint(train_tokenizer(iter(TEXTS), 90)) == fingerprint(trained)
    assert fingerprint(train_tokenizer(TEXTS, 80)) != fingerprint(trained)
    assert fingerprint(train_tokenizer(TEXTS, 90, lowercase=False)) != fingerprint(trained)
    cased = train_tokenizer(TEXTS, 90, lowercase=False)
    assert cased.tokenize("T") == ["T"]


def test_only_the_most_frequent_characters_are_known(monkeypatch):
    monkeypatch.setattr(tokenizers, "MAX_CHARACTERS", 3)
    tokenizer = train_tokenizer(["aaa bbb cd"], 20)
    assert tokenizer("ab c")["input_ids"][-2] == special_token_id(tokenizer, "sep") - 2  # [UNK]
    assert tokenizer("ab")["input_ids"].count(1) == 0


def test_a_saved_tokenizer_is_loaded_with_the_same_fingerprint(trained, tmp_path):
    trained.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert fingerprint(again) == fingerprint(trained)
    assert again(TEXTS[0]) == trained(TEXTS[0])
    in_order = trained.convert_ids_to_tokens(range(len(trained)))
    assert fingerprint(bert_tokenizer(in_order)) == fingerprint(trained)


def test_ids_of_texts(trained):
    plain, marked = token_ids(trained, ["to be", ""]), truncated_ids(trained, ["to be", ""], 9)[0]
    assert [[2, *row, 3] for row in plain] == marked
    assert plain[1] == []
    rows, n_truncated = truncated_ids(trained, [TEXTS[0], "to be"], 4)
    assert ([len(row) for row in rows], n_truncated) == ([4, 4], 1)  # "to be" fits exactly
    assert truncated_ids(trained, [], 4) == ([], 0)
    assert token_ids(trained, []) == []
    assert not {0, 4} & set(token_ids(trained, ["[MASK] [PAD]"])[0])


def test_invalid_arguments_and_folders_are_refused(trained, tmp_path):
    with pytest.raises(ConfigError, match="vocab_size must be an integer >= 6, got 5"):
        train_tokenizer(TEXTS, 5)
    with pytest.raises(ConfigError, match=r"vocab_size=20 has no room for 20 characters; allowed: >= 45"):
        train_tokenizer(TEXTS, 20)
    with pytest.raises(ConfigError, match="lowercase must be true or false, got 1"):
        train_tokenizer(TEXTS, 90, lowercase=1)
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no vocabulary; allowed: a folder with tokenizer\.json"):
        load_tokenizer(tmp_path)
    for path in (str(tmp_path / "absent"), "no/such"):
        with pytest.raises(CheckpointError, match=f"no tokenizer can be loaded from {path} ") as caught:
            load_tokenizer(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"tokenizer must be a local folder or a cached name, got 'https://x\.org/y'"):
        load_tokenizer("https://x.org/y")
    other = copy.deepcopy(trained)
    other.model_max_length, other.mask_token = 16, None
    with pytest.raises(ConfigError, match=r"block_size=17 is more than the tokenizer .*; allowed: at most 16"):
        check_length("block_size", 17, other)
    check_length("block_size", 16, other)
    with pytest.raises(ConfigError, match="has no mask token; allowed: a tokenizer with one"):
        special_token_id(other, "mask")


@pytest.mark.parametrize("name", ["transformers", "tokenizers"])
def test_without_the_extra_the_error_names_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"^a tokenizer needs {name}: pip install 'kdzoo\[text\]'$"):
        train_tokenizer(TEXTS, 90)
