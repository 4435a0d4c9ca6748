"""The user's own token sequences from two text files."""

import pytest

from kdzoo.data import TokenSequenceFiles
from kdzoo.errors import ConfigError, DataError


def ready(data):
    data.setup()
    return data


def written(folder, **texts):
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {f"{name}_file": folder / name for name in texts}


def test_files_of_integers(tmp_path):
    files = written(tmp_path, train="0 2 1\n\n2 2\n0 10\n", test="1 007\n\n")
    data = ready(TokenSequenceFiles(**files, val_size=0, batch_size=2))
    assert data.corpus.train.to_lists() == [[0, 2, 1], [], [2, 2], [0, 10]]
    assert data.corpus.test.to_lists() == [[1, 7], []]
    assert data.sizes["vocab_size"] == 12
    assert data.truth is None


def test_files_of_words(tmp_path):
    files = written(tmp_path, train="open read close\nopen close\n", test="read\n")
    data = ready(TokenSequenceFiles(**files, val_size=0, batch_size=2))
    assert data.symbols == ("close", "open", "read")
    assert data.corpus.train.to_lists() == [[1, 2, 0], [1, 0]]
    assert data.corpus.test.to_lists() == [[2]]


def test_splits_do_not_depend_on_the_seed(tmp_path):
    text = "".join(f"{i}\n" for i in range(40))
    files = written(tmp_path, train=text, test=text)
    first, second = (
        ready(TokenSequenceFiles(**files, val_size=0.25, train_size=20, seed=s, batch_size=4)) for s in (0, 1)
    )
    assert first.corpus.val.to_lists() == second.corpus.val.to_lists()
    train, val = first.corpus.train.tokens.tolist(), first.corpus.val.tokens.tolist()
    assert (len(train), len(val), len(set(train + val))) == (20, 10, 30)


def test_unknown_tokens_and_missing_files_are_refused(tmp_path):
    files = written(tmp_path, train="0 1\n", test="0\n\n1 2\n")
    with pytest.raises(DataError, match="test, line 3 has the token '2'; allowed: the 2 of the training file"):
        TokenSequenceFiles(**files, val_size=0).setup()
    with pytest.raises(DataError, match="absent does not exist; allowed: a text file"):
        TokenSequenceFiles(train_file=tmp_path / "absent", test_file=tmp_path / "test").setup()
    with pytest.raises(ConfigError, match="val_size=1 takes 1 of 1 samples"):
        TokenSequenceFiles(**files, val_size=1).setup()
