"""Tiny Shakespeare with masked word pieces, from a small text."""

import pytest
import torch

from kdzoo.data import ShakespeareText
from kdzoo.errors import DataError

pytest.importorskip("transformers")

SPEECHES = [f"speaker {i % 7}:\nnow is the winter of our discontent {i}\nmade glorious summer\n\n" for i in range(120)]


def text_of(data, part):
    rows = part.batch(torch.arange(len(part)))["input"]
    return data.tokenizer.decode(rows.flatten(), skip_special_tokens=True).replace(" ", "")


def test_a_small_text_is_found_and_a_missing_one_refused(tmp_path, offline_home):
    (tmp_path / "input.txt").write_text("".join(SPEECHES))
    data = ShakespeareText(root=tmp_path, vocab_size=120, block_size=16, batch_size=4)
    data.prepare_data()
    data.setup()
    assert text_of(data, data.splits.train).startswith("speaker0:nowisthewinter")
    assert (offline_home / ".cache" / "kdzoo" / "text").is_dir()
    with pytest.raises(DataError, match=r"tinyshakespeare: not all of input.txt are in"):
        ShakespeareText().setup()
