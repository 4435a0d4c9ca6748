"""State merging by ALERGIA, through the optional package aalpy."""

from importlib import import_module

from kdzoo.automata.exchange.aalpy import from_markov_chain
from kdzoo.automata.pfa import PFA
from kdzoo.core.validation import positive
from kdzoo.errors import ConfigError
from kdzoo.text.token_sequences import TokenSequences

# A symbol that no token uses. aalpy compares symbols, so the begin marker has to be an integer as well.
_BEGIN = -1


def alergia(strings: TokenSequences, vocab_size: int, *, eps: float = 0.05) -> PFA:
    """Return the deterministic automaton that ALERGIA learns from strings.

    aalpy learns a Markov chain whose states carry the symbol that leads to them. The begin and the end of a string
    are separate symbols, and the probability of the end becomes the stop probability.

    Args:
        strings: At least one string, tokens in 0..V-2.
        vocab_size: Number of symbols V with the end token.
        eps: Parameter of Hoeffding's test, > 0; a smaller value merges more states.

    Returns:
        The automaton, usually with zeros: strings unlike the given ones are impossible.

    Raises:
        ConfigError: If ``eps`` is out of range, or aalpy is not installed.
        DataError: If a token is outside the alphabet.

    References:
        Carrasco and Oncina 1994, "Learning stochastic regular grammars by means of a state merging method"; Muskardin
        et al. 2022, "AALpy: an active automata learning library".
    """
    positive("eps", eps)
    strings.check(vocab_size)
    # Imported here because aalpy is an optional dependency that only this baseline needs.
    try:
        run_alergia = import_module("aalpy").run_Alergia
    except ImportError as error:
        raise ConfigError("alergia needs aalpy: pip install 'kdzoo[automata]'") from error
    # The end of a string is token S = V - 1, as in the inputs of every language model here.
    data = [[_BEGIN, *tokens, vocab_size - 1] for tokens in strings.to_lists()]
    chain = run_alergia(data, automaton_type="mc", eps=eps)
    return from_markov_chain(chain, vocab_size - 1, end=vocab_size - 1)
