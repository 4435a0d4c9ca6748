"""State merging by ALERGIA, through the optional package aalpy."""

from importlib import import_module

from kdzoo.automata.exchange.aalpy import from_markov_chain
from kdzoo.automata.pfa import PFA
from kdzoo.core.validation import positive
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences

_BEGIN = -1  # the end is token S, as everywhere


def alergia(strings: TokenSequences, vocab_size: int, *, eps: float = 0.05) -> PFA:
    """Return the deterministic automaton that ALERGIA learns from strings.

    aalpy learns a Markov chain whose states carry the symbol that leads to them; the begin and the end of a string
    are symbols of their own, and the probability of the end becomes the stop probability.

    Args:
        strings: the strings, at least one.
        vocab_size: V.
        eps: parameter of Hoeffding's test > 0; less merges more.

    Raises:
        ConfigError: eps is out of range, or aalpy is not installed.
        DataError: a token is outside the alphabet.

    Source:
        Carrasco and Oncina 1994, "Learning stochastic regular grammars by means of a state merging method"; Muskardin
        et al. 2022, "AALpy: an active automata learning library".
    """
    positive("eps", eps)
    strings.check(vocab_size)
    try:
        run = import_module("aalpy").run_Alergia
    except ImportError as error:
        raise ConfigError("alergia needs aalpy: pip install 'kdzoo[automata]'") from error
    data = [[_BEGIN, *one, vocab_size - 1] for one in strings.to_lists()]
    chain = run(data, automaton_type="mc", eps=eps)
    return from_markov_chain(chain, vocab_size - 1, end=vocab_size - 1)
