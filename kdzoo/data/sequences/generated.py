"""Token sequences drawn from known automata, so that every model of them can be compared with the truth."""

from abc import abstractmethod
from typing import Any

from kdzoo.automata.pfa import PFA
from kdzoo.automata.targets import REBER_SYMBOLS, embedded_reber, random_hmm, random_pdfa, random_pnfa, tomita, uhl
from kdzoo.core.randomness import mix_seed
from kdzoo.core.validation import choice, integer
from kdzoo.data.sequences.token_sequence_data import Corpus, TokenSequenceData
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences

# Any fixed numbers that differ from each other, so that the three splits are independent. The val and test sequences do
# not depend on the run's seed: only then can numbers be compared between seeds.
_TRAIN_KEY, _VAL_KEY, _TEST_KEY = 1_202_621, 1_202_622, 1_202_623
# Attempts to draw sequences that are short enough. If 11 % of all sequences are, 1,000 are complete after 100 attempts
# with a probability of 99 %; if far fewer are, ``max_length`` is a mistake.
_MAX_ATTEMPTS = 100


class GeneratedTokenSequences(TokenSequenceData):
    """Independent sequences of an automaton; a subclass implements ``automaton()`` and nothing else.

    Args:
        n_train: Number of training sequences, >= 1.
        n_val: Number of val sequences, >= 0; they are the same for every seed.
        n_test: Number of test sequences, >= 1; they are the same for every seed.
        max_length: Sequences of more tokens are drawn again, >= 1.
        batch_size: See :class:`kdzoo.data.sequences.token_sequence_data.TokenSequenceData`.
        seed: Decides the training sequences and their order.
        eval_batch_size: See ``batch_size``.
        num_workers: See ``batch_size``.

    Raises:
        ConfigError: An argument is out of range; or, in ``setup``, nearly all sequences are longer than ``max_length``.
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
        """Return the automaton that the sequences are drawn from."""

    def load(self) -> Corpus:
        """Draw the three splits."""
        truth = self.automaton()
        train = sample_sequences(truth, self.n_train, mix_seed(_TRAIN_KEY, self.seed), self.max_length)
        val = sample_sequences(truth, self.n_val, mix_seed(_VAL_KEY), self.max_length)
        test = sample_sequences(truth, self.n_test, mix_seed(_TEST_KEY), self.max_length)
        return Corpus(train, val, test, self.names(truth.n_tokens), truth)

    def names(self, n_tokens: int) -> tuple[str, ...]:
        """Return the names of the tokens: their numbers, unless a subclass overrides this."""
        return tuple(map(str, range(n_tokens)))


def sample_sequences(pfa: PFA, n: int, seed: int, max_length: int) -> TokenSequences:
    """Draw n sequences of at most ``max_length`` tokens; longer ones are drawn again.

    The result follows the automaton's distribution under the condition that a sequence is short enough.

    Raises:
        ConfigError: Nearly all sequences are longer.

    Example:
        >>> len(sample_sequences(tomita(1), 100, seed=0, max_length=3)), int(
        ...     sample_sequences(tomita(1), 100, seed=0, max_length=3).lengths.max()
        ... )
        (100, 3)
    """
    accepted = [TokenSequences.of([])]
    for attempt in range(_MAX_ATTEMPTS):
        missing = n - sum(map(len, accepted))
        if not missing:
            return TokenSequences.cat(accepted)
        # Cut one token behind the limit, so that a cut sequence can be told from one that ends there.
        drawn = pfa.sample(missing, mix_seed(seed, attempt), max_length + 1)
        accepted.append(drawn.select((drawn.lengths <= max_length).nonzero().flatten()))
    raise ConfigError(f"max_length={max_length} is less than the length of nearly all sequences; allowed: more")


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
        language: Number of the language, in 1..7.
        stop: Probability of the end in each accepting state, in (0, 1).
        options: See :class:`GeneratedTokenSequences`.

    Raises:
        ConfigError: An argument is out of range.

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
        language: Number of the language, in 1..3.
        options: See :class:`GeneratedTokenSequences`.

    Raises:
        ConfigError: An argument is out of range.

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
    """A random automaton by the recipe of the PAutomaC competition; see :mod:`kdzoo.automata.targets`.

    Args:
        kind: ``pdfa``, ``pnfa`` or ``hmm``.
        states: Number of states, >= 1; 5..74 in the competition.
        symbols: Number of tokens, >= 1; 4..23 in the competition.
        symbol_density: Share of the pairs (state, token) that are possible, in (0, 1]; None draws it.
        transition_density: Share of the states that a pair leads to, in (0, 1]; None draws it. Not allowed for a pdfa.
        target_seed: Decides the automaton.
        options: See :class:`GeneratedTokenSequences`.

    Raises:
        ConfigError: An argument is out of range, or there is no such automaton.

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
            if transition_density is not None:  # each pair of a deterministic automaton leads to one state
                raise ConfigError(f"transition_density={transition_density} has no meaning for a pdfa; allowed: null")
            self.target = random_pdfa(states, symbols, symbol_density=symbol_density, seed=seed)
        else:
            draw = random_pnfa if kind == "pnfa" else random_hmm
            densities = {"symbol_density": symbol_density, "transition_density": transition_density}
            self.target = draw(states, symbols, **densities, seed=seed)

    def automaton(self) -> PFA:
        """Return the automaton."""
        return self.target
