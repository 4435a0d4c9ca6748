"""TokenSequences from files: PAutomaC's, a user's own, and the text of tiny Shakespeare."""

import hashlib
import io
import urllib.request

import pytest
import torch

from kdzoo.automata.exchange import write_model, write_solution, write_strings
from kdzoo.automata.targets import random_pnfa
from kdzoo.data import IGNORE, PAutomaC, TinyShakespeare, TokenSequenceFiles
from kdzoo.data.sequences.tinyshakespeare import cut, tokenise
from kdzoo.errors import ConfigError, DataError
from kdzoo.text.token_sequences import TokenSequences, token_sequences_of


@pytest.fixture
def problem(tmp_path):
    """Problem 7 in a folder: the target, and what may be deleted there."""
    pfa = random_pnfa(8, 5, seed=1)
    folder = tmp_path / "pautomac"
    folder.mkdir()
    train, test = (pfa.sample(n, seed=n, max_length=300) for n in (200, 30))
    write_strings(train, 5, folder / "7.pautomac.train")
    write_strings(test, 5, folder / "7.pautomac.test")
    write_model(pfa, folder / "7.pautomac_model.txt")
    probabilities = pfa.log_prob(test).exp()
    write_solution(probabilities / probabilities.sum(), folder / "7.pautomac_solution.txt")
    return pfa, folder


def ready(data):
    data.setup()
    return data


@pytest.mark.parametrize("own_folder", [True, False])
def test_pautomac_with_target_and_solution(problem, own_folder):
    pfa, folder = problem
    data = ready(PAutomaC(problem=7, root=folder.parent if own_folder else folder, val_size=20, batch_size=8))
    assert data.summary() == {"n_train": 180, "n_labelled": 180, "n_val": 20, "n_test": 30, "num_classes": 6}
    torch.testing.assert_close(data.truth.log_prob(data.corpus.test), pfa.log_prob(data.corpus.test))
    torch.testing.assert_close(data.solution, data.truth.log_prob(data.corpus.test).softmax(0))
    assert all("truth" in batch for batch in data.test_dataloader())


def test_pautomac_without_them(problem):
    _, folder = problem
    (folder / "7.pautomac_model.txt").unlink()
    (folder / "7.pautomac_solution.txt").unlink()
    data = ready(PAutomaC(problem=7, root=folder, train_size=50, batch_size=8))
    assert (data.truth, data.solution) == (None, None)
    assert data.summary()["n_train"] == 50
    assert all("truth" not in batch for batch in data.test_dataloader())


def test_bad_pautomac(problem):
    _, folder = problem
    with pytest.raises(DataError, match=r"pautomac: not all of 8\.pautomac\.train, 8.pautomac.test are in"):
        PAutomaC(problem=8, root=folder).setup()
    write_solution(torch.ones(3) / 3, folder / "7.pautomac_solution.txt")
    with pytest.raises(DataError, match=r"solution\.txt has 3 probabilities; allowed: 30, as test strings"):
        PAutomaC(problem=7, root=folder).setup()
    with pytest.raises(ConfigError, match="problem must be an integer >= 0"):
        PAutomaC(problem="one")
    with pytest.raises(ConfigError, match=r"val_size=1.5 is not allowed"):
        PAutomaC(problem=7, val_size=1.5)


def test_the_competitions_own_files(real_root):
    folder = real_root / "pautomac"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    for number in range(1, 49):
        data = ready(PAutomaC(problem=number, root=real_root))
        torch.testing.assert_close(data.truth.log_prob(data.corpus.test).softmax(0), data.solution, rtol=0, atol=1e-10)


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


def test_parts_of_files_do_not_depend_on_the_seed(tmp_path):
    text = "".join(f"{i}\n" for i in range(40))
    files = written(tmp_path, train=text, test=text)
    first, second = (
        ready(TokenSequenceFiles(**files, val_size=0.25, train_size=20, seed=s, batch_size=4)) for s in (0, 1)
    )
    assert first.corpus.val.to_lists() == second.corpus.val.to_lists()
    train, val = first.corpus.train.tokens.tolist(), first.corpus.val.tokens.tolist()
    assert (len(train), len(val), len(set(train + val))) == (20, 10, 30)


def test_bad_files_of_strings(tmp_path):
    files = written(tmp_path, train="0 1\n", test="0\n\n1 2\n")
    with pytest.raises(DataError, match="test, line 3 has the token '2'; allowed: the 2 of the training file"):
        TokenSequenceFiles(**files, val_size=0).setup()
    with pytest.raises(DataError, match="absent does not exist; allowed: a text file"):
        TokenSequenceFiles(train_file=tmp_path / "absent", test_file=tmp_path / "test").setup()
    with pytest.raises(ConfigError, match="val_size=1 takes 1 of 1 samples"):
        TokenSequenceFiles(**files, val_size=1).setup()


TEXT = "To be, or not to be\n" * 10


def test_shakespeare_in_small(tmp_path):
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
    assert cut(tokens[:0], 4).to_lists() == []


def test_shakespeare_is_downloaded_when_it_is_nowhere(lonely, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(TEXT.encode()))
    monkeypatch.setattr(TinyShakespeare, "md5", hashlib.md5(TEXT.encode()).hexdigest())
    data = TinyShakespeare(chunk_length=20, batch_size=2)
    data.prepare_data()
    assert len(ready(data).corpus.train) == 9
    assert (lonely / ".cache/kdzoo/tinyshakespeare/input.txt").is_file()


def test_bad_shakespeare(tmp_path):
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
