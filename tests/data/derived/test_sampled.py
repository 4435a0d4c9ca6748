"""Training sequences that are sampled from language models when they are needed."""

import pytest
import torch

from kdzoo.automata.targets import tomita
from kdzoo.data import SampledTokenSequences, Tomita
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import token_sequences_of


@pytest.fixture(scope="module")
def data():
    data = Tomita(language=4, n_train=30, n_val=20, n_test=20, batch_size=10)
    data.setup()
    return data


def test_the_sampled_sequences_are_a_function_of_the_seed(data):
    sampled = [SampledTokenSequences(data, [tomita(4)], n=50, batch_size=20, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (
        [token_sequences_of(batch).to_lists() for batch in one.train_eval_dataloader()] for one in sampled
    )
    assert first == again != other
    assert [len(part) for part in first] == [20, 20, 10]
    assert sampled[0].fingerprint() == sampled[1].fingerprint() != sampled[2].fingerprint()


def test_every_model_samples_its_share(data):
    sampled = SampledTokenSequences(data, [tomita(1), tomita(2)], n=40, shares=[0.75, 0.25], batch_size=16)
    members = torch.cat([batch["member"] for batch in sampled.train_eval_dataloader()])
    assert members.tolist() == [0] * 30 + [1] * 10
    for batch in sampled.train_eval_dataloader():
        for sequence, member in zip(token_sequences_of(batch).to_lists(), batch["member"], strict=True):
            assert member == 1 or 0 not in sequence  # the first model is Tomita 1, which has no zeros


def test_batches_have_the_format_of_token_sequences(data):
    sampled = SampledTokenSequences(data, [tomita(4)], n=10, batch_size=10, max_length=5)
    sampled.setup()
    (batch,) = sampled.train_dataloader()
    assert list(batch) == ["input", "target", "mask", "index", "member"]
    assert torch.equal(batch["index"], torch.arange(10))
    assert (batch["input"][:, 0] == data.sizes["vocab_size"] - 1).all()
    assert torch.equal(batch["input"][:, 1:][batch["mask"][:, 1:]], batch["target"][:, :-1][batch["mask"][:, 1:]])
    assert batch["input"].shape[1] <= 6  # the start and at most five tokens
    assert sampled.summary() == {**data.summary(), "n_train": 10, "n_labelled": 10}


def test_epochs_differ_and_training_is_resumed_at_any_batch(data):
    def batches(epoch, start=0):
        sampled = SampledTokenSequences(data, [tomita(4)], n=50, batch_size=20)
        sampled.train_sampler.set_position(3 * epoch + start)
        return [token_sequences_of(batch).to_lists() for batch in sampled.train_dataloader()]

    assert batches(0) != batches(1)
    assert batches(1, start=1) == batches(1)[1:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be an integer >= 1, got 0"),
        ({"max_length": 0}, "max_length must be an integer >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
    ],
)
def test_options_out_of_range(data, options, message):
    with pytest.raises(ConfigError, match=message):
        SampledTokenSequences(data, [tomita(4)], **{"n": 10, **options})


def test_a_trial_run_samples_as_few_and_as_short_sequences_as_its_data_have():
    data = Tomita(language=4, n_train=30, n_val=20, n_test=20, batch_size=10)
    data.max_samples, data.max_sequence_length = 15, 3
    data.setup()
    sampled = SampledTokenSequences(data, [tomita(4)], n=50, batch_size=20)
    (batch,) = sampled.train_eval_dataloader()
    assert batch["input"].shape == (15, 4)
    assert sampled.summary()["n_train"] == 15
