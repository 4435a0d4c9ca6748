"""The chosen engine is the fastest one whose measured memory fits into the budget."""

import pytest
import torch

from kdzoo.errors import ConfigError
from kdzoo.functional.unroll import SGD, choose_engine
from kdzoo.functional.unroll.engine_choice import step_memory
from tests.functional.unroll.cases import OPTIMIZERS, case


def choice_for(budget: int, steps: int = 100):
    loss, (weights, images, labels, _) = case("mlp", 1)
    return choose_engine(loss, weights, images, labels, steps, OPTIMIZERS["adam"], budget_bytes=budget)


def test_the_fastest_that_fits() -> None:
    chosen = [choice_for(2**power).engine for power in range(10, 31)]
    kinds = list(dict.fromkeys(chosen))
    assert kinds == ["reverse", "segments", "full"]


def test_few_steps_keep_all_graphs() -> None:
    assert choice_for(2**17, steps=3).engine == "full"
    assert choice_for(2**17, steps=300).engine != "full"


def test_the_reason_is_one_sentence_with_numbers() -> None:
    reason = choice_for(2**30).reason
    assert reason.startswith("full: the graph of a step keeps ")
    assert reason.endswith(" MiB by reverse, of 1,024 MiB allowed")
    assert "\n" not in reason


def test_what_a_step_keeps_is_measured() -> None:
    """Twice the images, twice the activations; a state of Adam is three times the weights."""
    _, (weights, images, labels, _) = case("mlp", 1)
    loss = case("mlp", 1)[0]
    wide = [torch.cat([tensor] * 64) for tensor in (images, labels)]
    wider = [torch.cat([tensor] * 128) for tensor in (images, labels)]
    kept = [
        float(choose_engine(loss, weights, *data, 100, SGD()).reason.split("keeps ")[1].split(" MiB")[0])
        for data in (wide, wider)
    ]
    assert 1.5 < kept[1] / kept[0] < 2


def test_without_gradients() -> None:
    with torch.no_grad():
        assert choice_for(2**30).engine == "full"


@pytest.mark.usefixtures("unchecked_types")
def test_bad_numbers() -> None:
    with pytest.raises(ConfigError, match="n_steps must be an integer >= 1, got 0"):
        choice_for(2**30, steps=0)
    with pytest.raises(ConfigError, match="budget_bytes must be an integer >= 1, got 0"):
        choice_for(0)


def test_a_state_is_the_weights_and_the_buffers() -> None:
    loss, (weights, images, labels, _) = case("mlp", 1)
    sizes = [step_memory(loss, weights, images, labels, OPTIMIZERS[name])[1] for name in ("sgd", "momentum", "adam")]
    assert sizes == [8 * weights.numel() * tensors for tensors in (1, 2, 3)]


def test_arguments_of_the_loss_are_not_counted() -> None:
    """The graph of a product keeps both factors, which exist anyway."""

    def loss(weights, images, labels):
        return (weights * images.sum()).sum() + 0 * labels.sum()

    weights, images, labels = (torch.ones(1, 1000, dtype=torch.float64) for _ in range(3))
    kept, _ = step_memory(loss, weights, images, labels, SGD())
    assert kept < 3 * 8 * 1000
