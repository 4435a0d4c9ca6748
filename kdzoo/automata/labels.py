"""Labels of the states and edges in a drawing of an automaton."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdzoo.automata.pfa import PFA
from kdzoo.core import validation
from kdzoo.errors import ConfigError

# Tokens on the label of one edge, the most likely ones. More lines would cover the neighbouring edges.
MOST_LINES = 4


@dataclass(frozen=True)
class Edge:
    """All transitions from one state to another, which a drawing shows as one arrow.

    Args:
        source: The state.
        target: The next state.
        tokens: Token and probability of every transition, the most likely first.
        probability: Sum of these probabilities.
        label: Tokens with rounded probabilities, one on each line.
    """

    source: int
    target: int
    tokens: tuple[tuple[int, float], ...]
    probability: float
    label: str


def token_names(symbols: Sequence[str] | None, n_tokens: int) -> tuple[str, ...]:
    """Return the names of the tokens, which are their numbers if ``symbols`` is None.

    Raises:
        ConfigError: If the number of names is not the number of tokens.
    """
    if symbols is None:
        return tuple(map(str, range(n_tokens)))
    if len(symbols) != n_tokens:
        raise ConfigError(f"symbols must be {n_tokens} names, one for each token, got {len(symbols)}")
    return tuple(map(str, symbols))


def edge_labels(pfa: PFA, names: Sequence[str], threshold: float = 0.0) -> Iterator[Edge]:
    r"""Yield one edge for each pair of states, without the transitions whose probability is below the threshold.

    Example:
        >>> (edge,) = edge_labels(PFA.from_parameters([1.0], [[[0.5]], [[0.3]]], [0.2]), "ab")
        >>> edge.label, round(edge.probability, 3)
        ('a .50\nb .30', 0.8)
    """
    threshold = validation.probability("threshold", threshold)
    table = pfa.transitions.cpu()
    for source, target in table.sum(0).nonzero().tolist():
        arcs = [(token, float(table[token, source, target])) for token in range(pfa.n_tokens)]
        # 0 < ... also at threshold 0: most tokens do not lead from source to target at all.
        visible = sorted((arc for arc in arcs if 0 < arc[1] >= threshold), key=lambda arc: -arc[1])
        if visible:
            lines = [f"{_printable(names[token])} {format_probability(value)}" for token, value in visible[:MOST_LINES]]
            rest = len(visible) - len(lines)
            label = "\n".join([*lines, *([f"+{rest} more"] if rest else [])])
            yield Edge(source, target, tuple(visible), sum(value for _, value in visible), label)


def state_label(state: int, stop: float) -> str:
    r"""Return the number of a state, with its stop probability below unless that is 0.

    Example:
        >>> state_label(3, 0.25)
        '3\n.25'
    """
    return f"{state}\n{format_probability(stop)}" if stop > 0 else str(state)


def format_probability(probability: float) -> str:
    """Return a probability with two decimals and without the leading zero, as space on an edge is scarce.

    Example:
        >>> format_probability(0.257), format_probability(1.0), format_probability(0.001)
        ('.26', '1', '<.01')
    """
    if probability >= 0.995:
        return "1"
    return f"{probability:.2f}"[1:] if probability >= 0.005 else "<.01"


def _printable(name: str) -> str:
    """Return a name that can be read in print: control characters are escaped, blanks are shown as open boxes."""
    return name if name.isprintable() and name.strip() else repr(name)[1:-1] if name.strip(" ") else "␣" * len(name)
