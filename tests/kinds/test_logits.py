"""The check of models that return logits: shapes for samples and for positions, and the messages."""

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.kinds.logits import check_logits


class Returns(nn.Module):
    """A module that returns a constant."""

    def __init__(self, output) -> None:
        super().__init__()
        self.output = output

    def forward(self, inputs):
        return self.output


def check(model, batch):
    check_logits("student", model, batch, noun="language model", size=("vocab_size", 5))


@pytest.mark.parametrize(
    ("batch", "shape"),
    [
        ({"input": torch.zeros(2, 4)}, (2, 5)),
        ({"input": torch.zeros(2, 4), "target": torch.zeros(2, dtype=torch.long)}, (2, 5)),
        ({"input": torch.zeros(2, 7), "target": torch.zeros(2, 7, dtype=torch.long)}, (2, 7, 5)),
        ({"input": torch.zeros(2, 3, 8, 8), "target": torch.zeros(2, 8, 8, dtype=torch.long)}, (2, 8, 8, 5)),
    ],
    ids=["no target", "samples", "sequences", "pixels"],
)
def test_one_row_of_logits_is_needed_for_each_position_of_the_target(batch, shape):
    check(Returns(torch.zeros(shape)), batch)
    for wrong in ((*shape[:-1], 6), (3, *shape[1:]), (*shape, 1)):
        with pytest.raises(ConfigError) as caught:
            check(Returns(torch.zeros(wrong)), batch)
        assert str(caught.value) == (
            f"student Returns does not fit the data: its logits have shape {wrong}, "
            f"the data need {shape} (vocab_size=5)"
        )


@pytest.mark.parametrize(
    ("output", "got"),
    [
        ((torch.zeros(2, 5),), "tuple"),
        ({"logits": torch.zeros(2, 5)}, "dict"),
        (torch.zeros(2, 5, dtype=torch.long), "torch.int64"),
    ],
)
def test_output_that_is_not_a_tensor_of_logits_is_refused(output, got):
    with pytest.raises(ConfigError) as caught:
        check(Returns(output), {"input": torch.zeros(2, 4)})
    assert str(caught.value) == (
        f"student Returns is not a language model: it must return a tensor of logits, got {got}"
    )


def test_an_error_of_the_model_is_reported_with_the_shape_of_its_input():
    with pytest.raises(ConfigError, match=r"^student Linear cannot take an input of shape \(2, 4\): ") as caught:
        check(nn.Linear(3, 5), {"input": torch.zeros(2, 4)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_of_the_model_does_not_change(mode):
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)).train(mode)
    mean = model[1].running_mean.clone()
    check(model, {"input": torch.ones(2, 4)})
    assert model.training is mode
    assert torch.equal(model[1].running_mean, mean)
