"""Token sequences drawn from known automata."""

import pytest
import torch

from kdzoo.automata.targets import embedded_reber, tomita, uhl
from kdzoo.data import UHL, RandomAutomaton, Reber, Tomita
from kdzoo.data.sequences.generated import sample_sequences
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import token_sequences_of


def ready(data):
    data.setup()
    return data


def test_val_and_test_batches_contain_the_true_log_probabilities():
    data = ready(Reber(n_train=64, n_val=20, n_test=30, eval_batch_size=16))
    for loader in (data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            assert batch["truth"].dtype == torch.float64
            assert batch["truth"].shape == (*batch["input"].shape, 8)
            log_probs = batch["truth"].gather(2, batch["target"].clamp(min=0)[..., None])[..., 0]
            sequences = token_sequences_of(batch)
            torch.testing.assert_close(log_probs.where(batch["mask"], 0.0).sum(1), embedded_reber().log_prob(sequences))
            assert not batch["truth"].isnan().any()
    assert all("truth" not in batch for batch in data.train_dataloader())
    assert all("truth" not in batch for batch in data.train_eval_dataloader())


def test_val_and_test_are_the_same_for_every_seed_and_train_is_not():
    first, second = (ready(Reber(n_train=50, batch_size=8, seed=seed)).corpus for seed in (0, 1))
    assert first.val.to_lists() == second.val.to_lists()
    assert first.test.to_lists() == second.test.to_lists()
    assert first.train.to_lists() != second.train.to_lists()
    assert first.val.to_lists()[:50] != first.test.to_lists()[:50]
    assert "".join(first.symbols) == "BTPSXVE"


@pytest.mark.parametrize(
    ("data", "truth"),
    [
        (Tomita(language=4, stop=0.2, n_train=100), tomita(4, stop=0.2)),
        (UHL(language=3, n_train=100), uhl(3)),
    ],
)
def test_languages(data, truth):
    assert torch.equal(ready(data).truth.transitions, truth.transitions)
    assert truth.log_prob(data.corpus.test).isfinite().all()
    mean = float(truth.log_prob(data.corpus.test).mean())
    again = float(truth.log_prob(truth.sample(4000, seed=9, max_length=500)).mean())
    assert mean == pytest.approx(again, rel=0.1)
    assert data.symbols == ("0", "1")


@pytest.mark.parametrize("kind", ["pdfa", "pnfa", "hmm"])
def test_random_automata(kind):
    data = ready(RandomAutomaton(kind=kind, states=7, symbols=4, n_train=100, n_val=0, n_test=50))
    assert data.summary() == {"n_train": 100, "n_labelled": 100, "n_val": 0, "n_test": 50, "num_classes": 5}
    again = RandomAutomaton(kind=kind, states=7, symbols=4, seed=5).automaton()
    assert torch.equal(again.transitions, data.truth.transitions)
    other = RandomAutomaton(kind=kind, states=7, symbols=4, target_seed=1).automaton()
    assert not torch.equal(other.transitions, data.truth.transitions)


def test_long_sequences_are_drawn_again():
    sequences = sample_sequences(tomita(1), 2000, seed=0, max_length=3)
    counts = torch.bincount(sequences.lengths).double()
    assert (counts / 2000).tolist() == pytest.approx(
        [0.88**n / (1 + 0.88 + 0.88**2 + 0.88**3) for n in range(4)], abs=0.05
    )
    with pytest.raises(
        ConfigError, match="max_length=5 is less than the length of nearly all sequences; allowed: more"
    ):
        sample_sequences(embedded_reber(), 10, seed=0, max_length=5)
