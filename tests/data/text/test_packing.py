"""Blocks of tokens: nothing is lost on the way from text to file and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.data.text.packing import DividedText, Marks, PackedBlocks, load, pack, pack_text, save
from kdzoo.errors import ConfigError, DataError

MARKS = Marks(2, 3, 0)
TOKENS = st.lists(st.lists(st.integers(5, 50), max_size=12), max_size=12)


@given(TOKENS, st.integers(3, 9))
def test_packing_keeps_all_tokens_in_order(pieces, block_size):
    blocks = list(pack(pieces, block_size, MARKS))
    assert all(len(block) == block_size and block[0] == 2 for block in blocks)
    content = [token for block in blocks for token in block if token >= 5]
    assert content == [token for piece in pieces for token in piece]
    for block in blocks[:-1]:
        assert (block[-1], 0 in block) == (3, False)
    if blocks:
        unpadded = blocks[-1][: blocks[-1].index(0)] if 0 in blocks[-1] else blocks[-1]
        assert unpadded[-1] == 3
        assert 0 not in unpadded
        assert len(unpadded) > 2


@given(st.lists(st.lists(st.integers(5, 50), min_size=1, max_size=4), min_size=1, max_size=6))
def test_documents_in_a_block_are_separated_once(documents):
    (block,) = pack([piece for one in documents for piece in (one, [], [])], 40, MARKS)
    expected = [2]
    for one in documents:
        expected += [*one, 3]
    assert block == expected + [0] * (40 - len(expected))


def text_of(pieces, *sizes):
    return DividedText.of(lambda: iter(pieces), *sizes)


@given(st.lists(st.text(max_size=6), max_size=20), st.floats(0, 0.45), st.floats(0, 0.45))
def test_a_text_is_divided_in_order(pieces, val_size, test_size):
    total = sum(map(len, pieces))
    if not total:
        with pytest.raises(DataError, match="the text is empty; allowed: at least 1 character"):
            text_of(pieces, val_size, test_size)
        return
    text = text_of(pieces, val_size, test_size)
    found = list(text.pieces())
    assert [piece for _, piece in found] == pieces
    assert [part for part, _ in found] == sorted(part for part, _ in found)
    longest = max(map(len, pieces))
    for part, size in ((1, val_size), (2, test_size)):
        assert abs(sum(len(piece) for number, piece in found if number == part) - size * total) <= longest + 1
    assert list(text.train()) == list(text.train()) == [piece for part, piece in found if part == 0]


def test_the_digest_is_of_the_pieces():
    assert text_of(["ab", ""], 0.0, 0.1).digest == text_of(["ab", ""], 0.3, 0.1).digest
    assert len({text_of(one, 0.0, 0.0).digest for one in (["ab"], ["a", "b"], ["ab", ""])}) == 3
    with pytest.raises(ConfigError, match=r"val_size=0.5 and test_size=0.5 leave nothing; allowed: below 1 together"):
        text_of(["ab"], 0.5, 0.5)


def characters(pieces):
    return [[5 + ord(character) - ord("a") for character in piece] for piece in pieces]


@settings(max_examples=25)
@given(
    st.lists(st.text(st.sampled_from("abcxyz"), max_size=9), min_size=1, max_size=30).filter(any),
    st.sampled_from([40, 70_000]),
)
def test_mapped_blocks_equal_those_in_memory(tmp_path_factory, pieces, vocab_size):
    folder = tmp_path_factory.mktemp("packed")
    text = text_of(pieces, 0.2, 0.2)
    blocks = list(pack_text(text, characters, 6, MARKS, vocab_size))
    save(folder, iter(blocks), 6, vocab_size)
    found = load(folder)
    assert isinstance(found.ids, np.memmap)
    assert found.ids.dtype == (np.uint16 if vocab_size == 40 else np.uint32)
    assert np.array_equal(found.ids, np.concatenate([chunk for _, chunk in blocks]))
    for number in range(3):
        own = [piece for split, piece in text.pieces() if split == number]
        assert found.split(number).tolist() == list(pack(characters(own), 6, MARKS))
    assert np.array_equal(found.counts, np.bincount(found.split(0).reshape(-1), minlength=vocab_size))


def saved(folder):
    save(folder, pack_text(text_of(["abc", "", "xyz"] * 9, 0.2, 0.2), characters, 6, MARKS, 40), 6, 40)
    return load(folder)


@pytest.mark.parametrize("name", ["blocks.bin", "blocks.json"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_incomplete_files_are_ignored(tmp_path, name, damage):
    assert isinstance(saved(tmp_path), PackedBlocks)
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-3])
    assert load(tmp_path) is None
    assert isinstance(saved(tmp_path), PackedBlocks)


def test_an_error_while_writing_leaves_no_file(tmp_path):
    def broken():
        yield 0, np.zeros((1, 6), np.uint16)
        raise DataError("the file has changed")

    with pytest.raises(DataError, match="the file has changed"):
        save(tmp_path, broken(), 6, 40)
    assert not list(tmp_path.iterdir())
