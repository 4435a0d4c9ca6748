"""Prefix trees against sets of prefixes."""

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.automata.prefix_tree import prefix_forest, prefix_tree
from kdzoo.text.token_sequences import TokenSequences

STRINGS = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=8)


@settings(max_examples=30, deadline=None)
@given(sequences=STRINGS, most=st.integers(1, 20))
def test_every_prefix_is_one_node_with_its_weight(sequences, most):
    strings = TokenSequences.of(sequences)
    prefixes = Counter(tuple(one[:length]) for one in sequences for length in range(len(one) + 1))
    tree = prefix_tree(strings)
    token = {node: token for layer in tree.groups for token, first, end in layer for node in range(first, end)}

    def prefix(node):
        return () if node == 0 else (*prefix(int(tree.parent[node])), token[node])

    assert {prefix(node): tree.weight[node].item() for node in range(tree.n_nodes)} == dict(prefixes)
    ends = Counter(tuple(one) for one in sequences)
    assert {prefix(n): tree.stops[n].item() for n in range(tree.n_nodes) if tree.stops[n]} == dict(ends)
    wanted = [tuple(one[:length]) for one in sequences for length in range(len(one) + 1)]
    assert [prefix(node) for node in tree.nodes.tolist()] == wanted
    assert sum(one.total for one in prefix_forest(strings, most=most)) == tree.total == strings.n_prefixes


def test_weights_and_distributions_are_summed_over_equal_prefixes():
    strings = TokenSequences.of([[0], [0, 1], []])
    probs = torch.arange(18.0, dtype=torch.float64).reshape(6, 3)
    tree = prefix_tree(strings, weights=torch.tensor([1.0, 2.0, 5.0]), next_probs=probs)
    assert tree.weight.tolist() == [8.0, 3.0, 2.0]
    assert tree.stops.tolist() == [5.0, 1.0, 2.0]
    expected = torch.stack([probs[0] + 2 * probs[2] + 5 * probs[5], probs[1] + 2 * probs[3], 2 * probs[4]])
    torch.testing.assert_close(tree.symbols, expected)


@settings(max_examples=20, deadline=None)
@given(sequences=STRINGS)
def test_edges_by_token_list_every_node_but_the_root_once(sequences):
    tree = prefix_tree(TokenSequences.of(sequences))
    tokens, nodes = zip(*tree.edges_by_token(), strict=True) if tree.groups else ((), ())
    assert list(tokens) == sorted(set(tokens))
    assert sorted(node for part in nodes for node in part.tolist()) == list(range(1, tree.n_nodes))
