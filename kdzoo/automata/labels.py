"""Labels of the states and edges in a drawing of an automaton."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdzoo.automata.pfa import PFA
from kdzoo.core import validation
from kdzoo.errors import ConfigError

# Maximum number of tokens on the label of one edge. More lines would cover the neighbouring edges.
MAX_LINES = 4


@dataclass(frozen=True)
class Edge:
    """All transitions from one state to another, which a drawing shows as one arrow.

    Args:
        source: Index of the state that the edge leaves.
        target: Index of the state that it enters.
        tokens: (token, probability) of every transition, the most likely first.
        probability: Sum of these probabilities.
        label: Names of the tokens with rounded probabilities, one on each line; at most ``MAX_LINES`` of them, then
            the number of the others.
    """

    source: int
    target: int
    tokens: tuple[tuple[int, float], ...]
    probability: float
    label: str


def token_names(symbols: Sequence[str] | None, n_tokens: int) -> tuple[str, ...]:
    """Return ``symbols`` as strings, or the token ids ``"0"``, ``"1"``, ... if ``symbols`` is None.

    Args:
        symbols: Name of each token, or None.
        n_tokens: Number of tokens.

    Raises:
        ConfigError: If the number of names is not the number of tokens.
    """
    if symbols is None:
        return tuple(map(str, range(n_tokens)))
    if len(symbols) != n_tokens:
        raise ConfigError(f"symbols must be {n_tokens} names, one for each token, got {len(symbols)}")
    return tuple(map(str, symbols))


def edge_labels(pfa: PFA, names: Sequence[str], threshold: float = 0.0) -> Iterator[Edge]:
    r"""Yield one edge for each pair of states that has a transition with at least the threshold probability.

    Args:
        pfa: The automaton.
        names: Name of each token.
        threshold: Transitions with a lower probability are left out, in [0, 1].

    Raises:
        ConfigError: If ``threshold`` is out of its range.

    Example:
        >>> (edge,) = edge_labels(PFA.from_parameters([1.0], [[[0.5]], [[0.3]]], [0.2]), "ab")
        >>> edge.label, round(edge.probability, 3)
        ('a: .50\nb: .30', 0.8)
    """
    threshold = validation.probability("threshold", threshold)
    table = pfa.transitions.cpu()
    for source, target in table.sum(0).nonzero().tolist():
        probabilities = enumerate(table[:, source, target].tolist())
        # Also > 0, for a threshold of 0: most tokens do not lead from source to target at all.
        visible = [(token, value) for token, value in probabilities if value > 0 and value >= threshold]
        visible.sort(key=lambda transition: -transition[1])
        if visible:
            lines = [f"{_printable(names[token])}: {format_probability(value)}" for token, value in visible[:MAX_LINES]]
            if len(visible) > len(lines):
                lines.append(f"+{len(visible) - len(lines)} more")
            yield Edge(source, target, tuple(visible), sum(value for _, value in visible), "\n".join(lines))


def state_label(state: int, stop: float) -> str:
    r"""Return the label of a state: its index and, on a second line, its stop probability unless that is 0.

    Example:
        >>> state_label(3, 0.25)
        '3\n.25'
    """
    return f"{state}\n{format_probability(stop)}" if stop > 0 else str(state)


def format_probability(probability: float) -> str:
    """Return a probability with two decimals and without the leading zero, since space on an edge is scarce.

    Example:
        >>> format_probability(0.257), format_probability(1.0), format_probability(0.001)
        ('.26', '1', '<.01')
    """
    # From 0.995 on two decimals would be 1.00, and below 0.005 they would be 0.00.
    if probability >= 0.995:
        return "1"
    return f"{probability:.2f}"[1:] if probability >= 0.005 else "<.01"


def _printable(name: str) -> str:
    """Return a name that can be read in print: control characters are escaped, spaces alone are shown as open boxes."""
    if not name.strip(" "):
        return "␣" * len(name)
    return name if name.isprintable() and name.strip() else repr(name)[1:-1]
