"""Distillation from a stream of strings: the running means, constant memory, and the start of the stream."""

import pytest
import torch

from kdzoo.automata import PFA
from kdzoo.automata.baum_welch import ExpectedCounts, expected_counts, maximise, prefix_trees_for
from kdzoo.automata.targets import tomita
from kdzoo.distillers import OTPFA, OnlinePFA
from kdzoo.distillers.automata.online_pfa import FLOOR, SPREAD, STATISTICS
from kdzoo.errors import ConfigError


def test_an_automaton_is_learned_from_an_automaton(tomita4, fit):
    distiller = OnlinePFA(PFA(vocab_size=3, states=3), tomita(4), n_samples=2000, warm_up=300)
    fit(distiller, distiller.transfer_set(tomita4), epochs=1)
    assert float(distiller.losses(next(iter(tomita4.test_dataloader())))["kl"].mean()) < 1e-2


def test_memory_does_not_grow_with_the_number_of_strings(tomita4, fit):
    def stored_numbers(n_samples):
        distiller = OnlinePFA(PFA(vocab_size=3, states=4), tomita(4), n_samples=n_samples, warm_up=500)
        fit(distiller, distiller.transfer_set(tomita4), epochs=1)
        return sum(value.numel() for value in distiller.observed.values() if isinstance(value, torch.Tensor))

    assert stored_numbers(1000) == stored_numbers(5000)


def test_too_few_strings_for_the_warm_up_are_distilled_at_the_end_of_the_epoch(tomita4, fit):
    online, offline = PFA(vocab_size=3, states=3), PFA(vocab_size=3, states=3)
    for student, method, options in ((online, OnlinePFA, {"warm_up": 10_000}), (offline, OTPFA, {})):
        distiller = method(student, tomita(4), n_samples=300, restarts=1, **options)
        fit(distiller, distiller.transfer_set(tomita4), epochs=1)
    assert torch.equal(online.transitions, offline.transitions)


def test_a_batch_moves_the_means_by_the_rate_of_its_step(tomita4):
    """Equation 8 of Cappe and Moulines, with counts per symbol, from the automaton after the spread."""
    student, kappa = PFA(vocab_size=3, states=3), 0.7
    distiller = OnlinePFA(student, tomita(4), n_samples=0, warm_up=1, forgetting=kappa, restarts=1)
    batch = next(iter(tomita4.train_eval_dataloader()))
    first, second = ({key: value[rows] for key, value in batch.items()} for rows in (slice(0, 60), slice(60, None)))
    distiller.observe(first)
    before = {name: value.clone() for name, value in distiller.observed.items() if name != "step"}
    assert float(before["emissions"].sum()) == pytest.approx(1)

    sharp = student.transitions
    uniform = sharp.mean(2, keepdim=True).expand_as(sharp)
    spread = PFA.from_parameters(student.initial, (1 - SPREAD) * sharp + SPREAD * uniform, student.stop)
    traces = {}
    distiller.add_traces(second, traces)
    trees = [tree for part in distiller.traced_sequences(traces) for tree in prefix_trees_for(part, 3)]
    counts = expected_counts(spread, trees)
    rate = 2**-kappa
    expected = {
        name: (1 - rate) * before[name] + rate * value / counts.emissions.sum()
        for name, value in counts.tensors().items()
    }
    distiller.observe(second)
    for name, value in expected.items():
        torch.testing.assert_close(distiller.observed[name], value)
    assert distiller.observed["step"] == 1
    pfa = maximise(spread, ExpectedCounts(**expected, objective=0.0), FLOOR)
    torch.testing.assert_close(student.transitions, pfa.transitions)


def test_later_batches_move_the_means_less(tomita4, monkeypatch):
    """The rate of step i is (i + 2) to the power of minus the exponent: 2^-0.7, 3^-0.7, 4^-0.7, ..."""
    rates, lerp = [], torch.lerp

    def noted(start, end, weight):
        if weight != SPREAD:
            rates.append(weight)
        return lerp(start, end, weight)

    distiller = OnlinePFA(PFA(vocab_size=3, states=2), tomita(4), n_samples=0, warm_up=1, forgetting=0.7, restarts=1)
    batch = next(iter(tomita4.train_eval_dataloader()))
    distiller.observe(batch)
    monkeypatch.setattr(torch, "lerp", noted)
    for _ in range(3):
        distiller.observe(batch)
    expected = [base**-0.7 for base in (2, 3, 4) for _ in STATISTICS]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forgetting": 0.2}, r"forgetting must be a finite number in \[0.5, 1\], got 0.2"),
        ({"warm_up": 0}, "warm_up must be an integer >= 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        OnlinePFA(PFA(vocab_size=3, states=2), tomita(4), **options)
