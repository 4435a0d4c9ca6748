"""TokenSequences drawn from automata that are known, so that every model of them can be held against the truth."""

from abc import abstractmethod
from typing import Any

from kdzoo.automata.pfa import PFA
from kdzoo.automata.targets import REBER_SYMBOLS, embedded_reber, random_hmm, random_pdfa, random_pnfa, tomita, uhl
from kdzoo.core.randomness import mix_seed
from kdzoo.core.validation import choice, integer
from kdzoo.data.sequences.token_sequence_data import Corpus, TokenSequenceData
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences

# The val and test strings never depend on the run's seed: only such numbers can be compared between seeds.
_TRAIN_KEY, _VAL_KEY, _TEST_KEY = 1_202_621, 1_202_622, 1_202_623
_ROUNDS = 100


class GeneratedTokenSequences(TokenSequenceData):
    """Independent strings of an automaton; a subclass writes ``automaton()`` and nothing else.

    Args:
        n_train: training strings, >= 1.
        n_val: val strings, >= 0, the same for every seed.
        n_test: test strings, >= 1, the same for every seed.
        max_length: longer strings, in tokens, are drawn again.
        batch_size: see :class:`kdzoo.data.sequences.token_sequence_data.TokenSequenceData`.
        seed: decides on the training strings and their order.
        eval_batch_size: see there.
        num_workers: see there.

    Raises:
        ConfigError: an argument is out of range, or nearly all strings are longer than ``max_length``.
    """

    def __init__(
        self,
        *,
        n_train: int = 2500,
        n_val: int = 500,
        n_test: int = 2000,
        max_length: int = 250,
        batch_size: int = 64,
        seed: int = 0,
        eval_batch_size: int = 512,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, eval_batch_size=eval_batch_size, num_workers=num_workers)
        self.n_train = integer("n_train", n_train, 1)
        self.n_val = integer("n_val", n_val, 0)
        self.n_test = integer("n_test", n_test, 1)
        self.max_length = integer("max_length", max_length, 1)

    @abstractmethod
    def automaton(self) -> PFA:
        """Return the automaton that the strings are drawn from."""

    def load(self) -> Corpus:
        """Draw the three parts."""
        truth = self.automaton()
        train = sample_sequences(truth, self.n_train, mix_seed(_TRAIN_KEY, self.seed), self.max_length)
        val = sample_sequences(truth, self.n_val, mix_seed(_VAL_KEY), self.max_length)
        test = sample_sequences(truth, self.n_test, mix_seed(_TEST_KEY), self.max_length)
        return Corpus(train, val, test, self.names(truth.n_tokens), truth)

    def names(self, n_tokens: int) -> tuple[str, ...]:
        """Return what the tokens stand for: their numbers, unless a subclass knows better."""
        return tuple(map(str, range(n_tokens)))


def sample_sequences(pfa: PFA, n: int, seed: int, max_length: int) -> TokenSequences:
    """Draw n strings of at most ``max_length`` tokens; longer ones are drawn again.

    Raises:
        ConfigError: nearly all strings are longer.

    Example:
        >>> len(sample_sequences(tomita(1), 100, seed=0, max_length=3)), int(
        ...     sample_sequences(tomita(1), 100, seed=0, max_length=3).lengths.max()
        ... )
        (100, 3)
    """
    kept = [TokenSequences.of([])]
    for attempt in range(_ROUNDS):
        wanted = n - sum(map(len, kept))
        if not wanted:
            return TokenSequences.cat(kept)
        drawn = pfa.sample(wanted, mix_seed(seed, attempt), max_length + 1)
        kept.append(drawn.select((drawn.lengths <= max_length).nonzero().flatten()))
    raise ConfigError(f"max_length={max_length} is less than the length of nearly all strings; allowed: more")


class Reber(GeneratedTokenSequences):
    """The embedded Reber grammar: 20 states, letters BTPSXVE; options of :class:`GeneratedTokenSequences`.

    Example:
        >>> data = Reber(n_train=100)
        >>> data.setup()
        >>> data.summary()
        {'n_train': 100, 'n_labelled': 100, 'n_val': 500, 'n_test': 2000, 'num_classes': 8}
    """

    def automaton(self) -> PFA:
        """Return the grammar."""
        return embedded_reber()

    def names(self, n_tokens: int) -> tuple[str, ...]:
        """Return the letters."""
        return tuple(REBER_SYMBOLS[:n_tokens])


class Tomita(GeneratedTokenSequences):
    """One of Tomita's languages over 0 and 1, with probabilities; see :func:`kdzoo.automata.targets.tomita`.

    Args:
        language: 1..7.
        stop: probability to end in each accepting state, in (0, 1).
        options: see :class:`GeneratedTokenSequences`.

    Raises:
        ConfigError: an argument is out of range.

    Example:
        >>> data = Tomita(language=3)
        >>> data.setup()
        >>> data.truth.states, data.sizes["vocab_size"]
        (4, 3)
    """

    def __init__(self, *, language: int = 1, stop: float = 0.12, **options: Any) -> None:
        super().__init__(**options)
        self.target = tomita(language, stop=stop)

    def automaton(self) -> PFA:
        """Return the language's automaton."""
        return self.target


class UHL(GeneratedTokenSequences):
    """One of three languages of unbounded history; see :func:`kdzoo.automata.targets.uhl`.

    Args:
        language: 1..3.
        options: see :class:`GeneratedTokenSequences`.

    Raises:
        ConfigError: an argument is out of range.

    Example:
        >>> UHL(language=2).automaton().states
        5
    """

    def __init__(self, *, language: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.target = uhl(language)

    def automaton(self) -> PFA:
        """Return the language's automaton."""
        return self.target


class RandomAutomaton(GeneratedTokenSequences):
    """A random target by the recipe of the PAutomaC competition; see :mod:`kdzoo.automata.targets`.

    Args:
        kind: pdfa, pnfa or hmm.
        states: number of states, >= 1; the competition had 5..74.
        symbols: number of tokens, >= 1; the competition had 4..23.
        symbol_density: share of the pairs (state, token) that are possible, in (0, 1]; None draws it.
        transition_density: share of the states that a pair leads to, in (0, 1]; None draws it. Not for a pdfa.
        target_seed: decides on the target.
        options: see :class:`GeneratedTokenSequences`.

    Raises:
        ConfigError: an argument is out of range, or there is no such target.

    Example:
        >>> RandomAutomaton(kind="hmm", states=6, symbols=4).automaton()
        PFA(vocab_size=5, states=6)
    """

    def __init__(
        self,
        *,
        kind: str = "pdfa",
        states: int = 10,
        symbols: int = 6,
        symbol_density: float | None = None,
        transition_density: float | None = None,
        target_seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        kind = choice("kind", kind, ("pdfa", "pnfa", "hmm"))
        seed = integer("target_seed", target_seed, 0)
        if kind == "pdfa":
            if transition_density is not None:
                raise ConfigError(f"transition_density={transition_density} has no meaning for a pdfa; allowed: null")
            self.target = random_pdfa(states, symbols, symbol_density=symbol_density, seed=seed)
        else:
            draw = random_pnfa if kind == "pnfa" else random_hmm
            densities = {"symbol_density": symbol_density, "transition_density": transition_density}
            self.target = draw(states, symbols, **densities, seed=seed)

    def automaton(self) -> PFA:
        """Return the target."""
        return self.target
