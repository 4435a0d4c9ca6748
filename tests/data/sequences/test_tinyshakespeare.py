"""Tiny Shakespeare: chunks of characters, from a small text and from the real one."""

import hashlib
import io
import urllib.request

import pytest

from kdzoo.data import IGNORE, TinyShakespeare
from kdzoo.data.sequences.tinyshakespeare import chunks, tokenise
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences, token_sequences_of


def ready(data):
    data.setup()
    return data


TEXT = "To be, or not to be\n" * 10


def test_a_small_text_is_divided_into_chunks(tmp_path):
    (tmp_path / "input.txt").write_text(TEXT)
    data = ready(TinyShakespeare(root=tmp_path, chunk_length=50, batch_size=2))
    assert data.summary() == {"n_train": 4, "n_labelled": 4, "n_val": 1, "n_test": 1, "num_classes": 11}
    parts = [data.corpus.train, data.corpus.val, data.corpus.test]
    assert [part.lengths.tolist() for part in parts] == [[50, 50, 50, 30], [10], [10]]
    assert "".join(data.symbols[token] for part in parts for token in part.tokens.tolist()) == TEXT
    (batch,) = data.test_dataloader()
    assert batch["target"][0, -1] == IGNORE
    assert token_sequences_of(batch).to_lists() == data.corpus.test.to_lists()
    first = ready(TinyShakespeare(root=tmp_path, chunk_length=50, batch_size=2, train_size=2)).corpus.train
    assert first.to_lists() == data.corpus.train.to_lists()[:2]


def test_characters_of_any_alphabet():
    symbols, tokens = tokenise("naïve 🎭 ñ")
    assert "".join(symbols[token] for token in tokens) == "naïve 🎭 ñ"
    assert chunks(tokens[:0], 4).to_lists() == []


def test_a_missing_text_is_downloaded(offline_home, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(TEXT.encode()))
    monkeypatch.setattr(TinyShakespeare, "sha256", hashlib.sha256(TEXT.encode()).hexdigest())
    data = TinyShakespeare(chunk_length=20, batch_size=2)
    data.prepare_data()
    assert len(ready(data).corpus.train) == 9
    assert (offline_home / ".cache/kdzoo/tinyshakespeare/input.txt").is_file()


def test_invalid_texts_and_options_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"tinyshakespeare: not all of input\.txt are in"):
        TinyShakespeare(root=tmp_path).setup()
    (tmp_path / "input.txt").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match=r"input\.txt cannot be read as text"):
        TinyShakespeare(root=tmp_path).setup()
    with pytest.raises(ConfigError, match="chunk_length must be an integer >= 1, got 0"):
        TinyShakespeare(chunk_length=0)


def test_real_shakespeare(real_root):
    if not (real_root / "tinyshakespeare").is_dir():
        pytest.skip("no tiny Shakespeare")
    data = ready(TinyShakespeare(root=real_root))
    assert data.sizes["vocab_size"] == 66
    assert sum(len(part.tokens) for part in (data.corpus.train, data.corpus.val, data.corpus.test)) == 1_115_394
    assert len(data.corpus.train.tokens) == 1_003_854
    assert isinstance(data.corpus.train, TokenSequences)
