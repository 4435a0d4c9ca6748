"""Strings of an LSTM with random weights."""

import pytest
import torch

from kdzoo.automata.targets import tomita
from kdzoo.core.batch import IGNORE
from kdzoo.data import OracleStrings
from kdzoo.errors import ConfigError
from kdzoo.models import RNNLM


def oracle_strings(**options):
    sizes = {"n_train": 40, "n_test": 300, "n_scored": 300, "batch_size": 8}
    data = OracleStrings(**{"tokens": 6, "length": 5, **sizes, **options})
    data.setup()
    return data


def test_all_strings_have_one_length_and_no_end():
    data = oracle_strings(n_val=20)
    assert data.summary()["n_val"] == 20
    for batch in (*data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()):
        assert batch["input"].shape[1] == 6
        assert (batch["target"][:, -1] == IGNORE).all()
        assert (batch["target"][:, :-1] < 6).all()


def test_the_test_strings_are_the_oracles_and_the_same_for_every_seed():
    first, second, other = oracle_strings(), oracle_strings(seed=1), oracle_strings(target_seed=1)
    assert first.corpus.test.to_lists() == second.corpus.test.to_lists()
    assert first.corpus.train.to_lists() != second.corpus.train.to_lists()
    assert first.corpus.test.to_lists() != other.corpus.test.to_lists()
    assert not torch.equal(first.oracle.head.weight, other.oracle.head.weight)


def test_the_score_of_a_model_is_the_mean_under_the_oracle():
    data = oracle_strings(tokens=2, length=2, n_scored=20_000)
    torch.manual_seed(0)
    model = RNNLM(vocab_size=3, hidden=3)
    with torch.no_grad():
        model.head.bias[-1] = -30  # strings without an end, which are all of one length
    strings = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    input = torch.cat([torch.full((4, 1), 2), strings[:, :1]], 1)
    log_probs = [m(input).log_softmax(-1).gather(-1, strings[..., None]).sum((1, 2)) for m in (model, data.oracle)]
    expected = -(log_probs[0].exp() * log_probs[1]).sum() / 2
    assert data.oracle_nll(model) == pytest.approx(float(expected), abs=0.03)


def test_the_ends_of_generated_strings_are_not_scored():
    data = oracle_strings(tokens=2)
    nll = data.oracle_nll(tomita(1, stop=0.5))  # strings of ones of all lengths, some empty
    ones = torch.cat([torch.full((1, 1), 2), torch.ones(1, 4, dtype=torch.int64)], 1)
    log_probs = data.oracle(ones)[0, :, 1]
    assert -float(log_probs.max()) < nll < -float(log_probs.min())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, "tokens must be an integer >= 1, got 0"),
        ({"length": 0}, "length must be an integer >= 1, got 0"),
        ({"hidden": 0}, "hidden must be an integer >= 1, got 0"),
        ({"n_val": -1}, "n_val must be an integer >= 0, got -1"),
        ({"n_scored": 0}, "n_scored must be an integer >= 1, got 0"),
        ({"target_seed": -1}, "target_seed must be an integer >= 0, got -1"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        OracleStrings(**options)
