"""Targets against independent descriptions: regular expressions, a recursive grammar, the competition's bounds."""

import itertools
import re

import numpy as np
import pytest
import torch

from kdzoo.automata.targets import (
    REBER_SYMBOLS,
    embedded_reber,
    random_hmm,
    random_pdfa,
    random_pnfa,
    tomita,
    tomita_dfa,
    uhl,
)
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences

WORDS = [word for n in range(11) for word in itertools.product((0, 1), repeat=n)]
IN_TOMITA = {
    1: lambda w: "0" not in w,
    2: lambda w: re.fullmatch("(10)*", w),
    3: lambda w: not any(len(ones) % 2 and len(zeros) % 2 for ones, zeros in re.findall("(1+)(0+)", w)),
    4: lambda w: "000" not in w,
    5: lambda w: w.count("0") % 2 == 0 and w.count("1") % 2 == 0,
    6: lambda w: (w.count("0") - w.count("1")) % 3 == 0,
    7: lambda w: re.fullmatch("0*1*0*1*", w),
}
KINDS = {"pdfa": random_pdfa, "pnfa": random_pnfa, "hmm": random_hmm}


def total_mass(pfa):
    moves = torch.eye(pfa.states, dtype=torch.float64) - pfa.transitions.sum(0)
    return float(pfa.initial @ torch.linalg.solve(moves, pfa.stop))


def is_deterministic(pfa):
    return (pfa.initial > 0).sum() == 1 and bool(((pfa.transitions > 0).sum(2) <= 1).all())


def reber(rng):
    """One string of the embedded grammar, drawn from the picture in the literature, and its probability."""
    inner = {1: "T2 P3", 2: "S2 X4", 3: "T3 V5", 4: "X3 S6", 5: "P4 V6", 6: "E0"}
    outer, word, node, probability = "TP"[rng.integers(2)], "B", 1, 0.5
    while node:
        choices = inner[node].split()
        letter, following = choices[rng.integers(len(choices))]
        word, node, probability = word + letter, int(following), probability / len(choices)
    return f"B{outer}{word}{outer}E", probability


@pytest.mark.parametrize("language", range(1, 8))
def test_tomita_is_the_language_that_its_description_says(language):
    expected = torch.tensor([bool(IN_TOMITA[language]("".join(map(str, word)))) for word in WORDS])
    strings = TokenSequences.of(WORDS)
    assert torch.equal(tomita_dfa(language).accepts(strings), expected)
    assert torch.equal(tomita(language).log_prob(strings).isfinite(), expected)


@pytest.mark.parametrize("language", range(1, 8))
def test_tomita_automata_are_minimal_and_stop_as_told(language):
    dfa, pfa = tomita_dfa(language), tomita(language, stop=0.3)
    assert dfa.minimise().states == dfa.states
    assert sorted(set(pfa.stop.tolist())) in ([0.0, pytest.approx(0.3)], [pytest.approx(0.3)])
    assert pfa.states == dfa.states - (language in (1, 2, 3, 4, 7))
    assert total_mass(pfa) == pytest.approx(1, abs=1e-12)


def test_reber_gives_every_string_its_probability():
    rng = np.random.default_rng(0)
    drawn = [reber(rng) for _ in range(200)]
    strings = TokenSequences.of([[REBER_SYMBOLS.index(letter) for letter in word] for word, _ in drawn])
    expected = torch.tensor([probability for _, probability in drawn], dtype=torch.float64)
    torch.testing.assert_close(embedded_reber().log_prob(strings), expected.log(), rtol=1e-13, atol=0)


def test_reber_has_twenty_states_that_all_differ():
    pfa = embedded_reber()
    assert (pfa.states, pfa.n_tokens, is_deterministic(pfa)) == (20, 7, True)
    assert total_mass(pfa) == pytest.approx(1, abs=1e-12)
    # Two states are one if the same strings are as likely from both; strings of 12 tokens tell all states apart.
    tokens = pfa.sample(400, seed=0, max_length=60)
    ends = {tuple(string[start:]) for string in tokens.to_lists() for start in range(len(string) + 1)}
    values = torch.stack(
        [
            type(pfa).from_parameters(row, pfa.transitions, pfa.stop).log_prob(TokenSequences.of(sorted(ends)))
            for row in torch.eye(20, dtype=torch.float64)
        ]
    )
    assert len(values.unique(dim=0)) == 20


def test_reber_rejects_another_second_last_letter():
    words = [[REBER_SYMBOLS.index(letter) for letter in word] for word in ("BTBPVVEPE", "BPBPVVETE", "BPBPVVEPE", "")]
    assert embedded_reber().log_prob(TokenSequences.of(words)).isfinite().tolist() == [False, False, True, False]


@pytest.mark.parametrize("language", [1, 2, 3])
def test_uhl_prefers_as_described(language):
    pfa = uhl(language)
    for word in np.random.default_rng(0).integers(pfa.n_tokens, size=(10, 20)).tolist():
        belief = pfa.initial_state(1)
        for n, token in enumerate(word):
            probs = pfa.next_log_probs(belief)[0].exp()
            if language == 1:
                likely, value = int(n % 9 in (1, 4, 8)), 0.75
            elif language == 2:
                likely, value = n % 5, 6.5 / 11
            else:
                likely, value = int(word[:n].count(0) % 2 == 1 and word[:n].count(1) % 2 == 1), 0.525
            assert int(probs.argmax()) == likely
            assert float(probs[likely]) == pytest.approx(value, abs=1e-12)
            belief = pfa.step(belief, torch.tensor([token]))
    assert total_mass(pfa) == pytest.approx(1, abs=1e-9)
    assert is_deterministic(pfa)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("states", "symbols"), [(1, 3), (6, 5), (30, 12)])
def test_random_targets_are_within_the_competitions_bounds(kind, states, symbols):
    pfa = KINDS[kind](states, symbols, seed=3)
    assert (pfa.states, pfa.n_tokens) == (states, symbols)
    assert total_mass(pfa) == pytest.approx(1, abs=1e-9)
    mean = float(pfa.sample(4000, seed=0, max_length=1000).lengths.double().mean())
    assert 4.5 < mean < 52
    assert (pfa.sample(4000, seed=1, max_length=1000).lengths >= 100).double().mean() < 0.02
    assert (pfa.emissions[:, :-1] > 0).any(1).all()


def test_each_kind_has_its_structure():
    assert is_deterministic(random_pdfa(12, 6, seed=0))
    pnfa, hmm = random_pnfa(12, 6, seed=0), random_hmm(12, 6, seed=0)
    assert not is_deterministic(pnfa)
    targets = hmm.transitions / hmm.emissions.T[:-1, :, None]
    shared = targets.nan_to_num().amax(0)
    torch.testing.assert_close(hmm.transitions, hmm.emissions.T[:-1, :, None] * shared, rtol=1e-12, atol=0)
    assert ((hmm.transitions > 0).sum(2) > 1).any()


@pytest.mark.parametrize("kind", ["pnfa", "hmm"])
def test_densities_are_shares(kind):
    pfa = KINDS[kind](20, 10, symbol_density=0.3, transition_density=0.15, seed=5)
    pairs = pfa.emissions[:, :-1] > 0
    assert int(pairs.sum()) == round(0.3 * 200)
    assert int((pfa.stop > 0).sum()) == 6
    assert int((pfa.initial > 0).sum()) == 3
    arcs = int((pfa.transitions > 0).sum())
    if kind == "pnfa":
        assert arcs == round(0.15 * 60 * 20)
    else:
        assert arcs == int(((pfa.transitions.sum(0) > 0).sum(1) * pairs.sum(1)).sum())


def test_the_result_depends_on_the_seed():
    first, again, other = (random_pnfa(8, 5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.transitions, again.transitions)
    assert not torch.equal(first.transitions, other.transitions)
    before = torch.get_rng_state()
    random_hmm(8, 5, seed=1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tomita(8), "language must be an integer in 1..7, got 8"),
        (lambda: tomita_dfa(0), "language must be an integer in 1..7, got 0"),
        (lambda: tomita(1, stop=0), r"stop must be in \(0, 1\), got 0"),
        (lambda: tomita(1, stop=1.0), r"stop must be in \[0, 1\), got 1.0"),
        (lambda: uhl(4), "language must be an integer in 1..3, got 4"),
        (lambda: random_pdfa(0, 3), "states must be an integer >= 1, got 0"),
        (lambda: random_pnfa(3, 0), "symbols must be an integer >= 1, got 0"),
        (lambda: random_hmm(3, 3, seed=-1), "seed must be an integer >= 0"),
        (lambda: random_pdfa(3, 3, symbol_density=1.2), r"symbol_density must be in \(0, 1\], got 1.2"),
        (lambda: random_pnfa(3, 3, transition_density=0), "transition_density must be finite and > 0, got 0"),
        (lambda: random_pdfa(1, 400, symbol_density=1.0), "none of 1000 random targets with states=1, symbols=400"),
    ],
)
def test_invalid_arguments_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
