"""Selecting the positions of a mask, and removing trailing padding from batches."""

import torch

from kdzoo.contracts.accelerator import simulated_accelerator
from kdzoo.core.batch import IGNORE, DeviceBatch, labelled_selection, valid_positions
from kdzoo.distillers.text.positions import select_positions, text_of_tokens, with_mask, without_padding
from tests.distillers.text.cases import batch_of


def test_positions_are_those_of_the_mask_in_order():
    values = torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert select_positions(values, mask).tolist() == [[0.0, 1.0], [4.0, 5.0], [10.0, 11.0]]


def test_all_positions_are_selected_without_a_copy():
    values = torch.arange(12.0).reshape(2, 3, 2)
    for mask in (..., torch.ones(2, 3, dtype=torch.bool)):
        selected = select_positions(values, mask)
        assert torch.equal(selected, values.reshape(6, 2))
        assert selected.data_ptr() == values.data_ptr()


def test_trailing_padding_is_removed():
    batch = batch_of()
    padded = {
        key: torch.cat([value, torch.full((6, 5), {"target": IGNORE}.get(key, 0)).to(value.dtype)], 1)
        if value.ndim == 2
        else value
        for key, value in batch.items()
    }
    result = without_padding(padded, 0)
    length = int(batch["mask"].sum(1).max())
    assert result["input"].shape == result["target"].shape == result["mask"].shape == (6, length)
    assert torch.equal(result["input"], batch["input"][:, :length])
    assert torch.equal(result["index"], batch["index"])


def test_a_batch_on_an_accelerator_keeps_its_host_copies():
    batch = batch_of()
    result = without_padding(DeviceBatch(batch, batch), 0)
    assert isinstance(result, DeviceBatch)
    assert result.host.keys() == {"input", "target", "mask", "index"}
    for key, value in result.host.items():
        assert torch.equal(value, result[key])
    torch.testing.assert_close(
        select_positions(batch["input"][:, : result["input"].shape[1], None], valid_positions(result)),
        batch["input"][batch["mask"]][:, None],
    )


def test_padding_is_found_by_its_id_where_there_is_no_mask():
    ids = torch.tensor([[5, 6, 0, 0], [7, 0, 8, 0]])
    assert without_padding({"input": ids}, 0)["input"].tolist() == [[5, 6, 0], [7, 0, 8]]
    assert without_padding({"input": ids}, None)["input"] is ids


def test_no_label_selects_nothing():
    values = torch.arange(12.0).reshape(2, 3, 2)
    assert select_positions(values, labelled_selection({"input": torch.zeros(2, 3)})).shape[0] == 0


def test_a_batch_of_padding_keeps_one_column():
    assert without_padding({"input": torch.zeros(2, 4, dtype=torch.long)}, 0)["input"].shape == (2, 1)


def test_each_token_is_in_its_text():
    batch = {"input": torch.zeros(2, 3)}
    assert text_of_tokens(batch, ...).tolist() == [0, 0, 0, 1, 1, 1]
    assert text_of_tokens(batch, torch.tensor([[True, False, True], [False, True, False]])).tolist() == [0, 0, 1]


def test_the_padding_of_a_batch_on_an_accelerator_is_found_on_the_host():
    batch = {"input": torch.tensor([[5, 6, 0, 0], [7, 0, 8, 0]])}
    moved = DeviceBatch({"input": batch["input"].clone()}, batch)
    with simulated_accelerator([moved["input"]]):
        result = without_padding(moved, 0)
        positions = valid_positions(with_mask(result, 0))
    assert result["input"].tolist() == [[5, 6, 0], [7, 0, 8]]
    assert select_positions(result["input"][..., None], positions)[:, 0].tolist() == [5, 6, 7, 8]
