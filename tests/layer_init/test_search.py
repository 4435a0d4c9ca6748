"""The search for layers: compared with brute force, its limits, and that it restores the teacher."""

from itertools import combinations, pairwise
from math import inf, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdzoo.errors import ConfigError
from kdzoo.layer_init import copy_layers, search_layers
from tests.layer_init.cases import Tagger, made, needs_transformers, outputs_of, texts

some = settings(max_examples=40, deadline=None, derandomize=True)


class Constant(nn.Module):
    """A layer that is a number."""

    def __init__(self, worth: float) -> None:
        super().__init__()
        self.worth = worth


class Chain(nn.Module):
    def __init__(self, *worths: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(map(Constant, worths))

    def score(self) -> float:
        """Depends on the order and on pairs of neighbours, so that layers cannot be chosen one by one."""
        worths = [layer.worth for layer in self.layers]
        return sum(worth / (i + 1) for i, worth in enumerate(worths)) + sum(
            (one - two) ** 2 for one, two in pairwise(worths)
        )


def brute_force(chain: Chain, depth: int) -> dict[tuple[int, ...], float]:
    worths = [layer.worth for layer in chain.layers]
    subsets = combinations(range(len(worths)), depth)
    return {layers: Chain(*(worths[index] for index in layers)).score() for layers in subsets}


@given(worths=st.lists(st.integers(-4, 4), min_size=6, max_size=6), depth=st.integers(1, 6))
@some
def test_all_subsets_are_tried_and_ties_go_to_the_first(worths, depth):
    chain = Chain(*worths)
    search, expected = search_layers(chain, depth, Chain.score, path="layers"), brute_force(chain, depth)
    assert search.scores == expected
    assert search.score == max(expected.values())
    assert search.layers == min(chosen for chosen, score in expected.items() if score == search.score)


@given(worths=st.lists(st.integers(-4, 4), min_size=8, max_size=8), max_tries=st.integers(1, 55))
@some
def test_a_limited_search_climbs_from_every_other_to_a_local_optimum(worths, max_tries):
    chain = Chain(*worths)
    search, expected = search_layers(chain, 3, Chain.score, path="layers", max_tries=max_tries), brute_force(chain, 3)
    assert len(search.scores) <= max_tries
    assert search.scores.items() <= expected.items()
    assert next(iter(search.scores)) == (0, 4, 7)
    assert search.score == max(search.scores.values()) >= expected[(0, 4, 7)]
    if len(search.scores) < max_tries:
        near = [chosen for chosen in expected if len({*chosen} & {*search.layers}) == 2]
        assert all(expected[chosen] <= search.score for chosen in near)


def test_scores_that_are_not_finite_are_the_worst():
    values = iter([nan, inf, -3.0, -inf])
    search = search_layers(Chain(1, 2, 3, 4), 1, lambda _: next(values), path="layers")
    assert search.layers == (2,)
    assert search.score == -3.0
    assert len(search.scores) == 4


def test_a_score_may_be_a_tensor_of_one_number():
    search = search_layers(Chain(1, 3, 2), 1, lambda chain: torch.tensor(chain.score()), path="layers")
    assert (search.layers, search.score) == ((1,), 3.0)


@needs_transformers
@pytest.mark.parametrize("family", ["Bert", "GPT2"])
def test_six_to_three_equals_brute_force_with_copies_and_restores_the_teacher(family):
    depth = "n_layer" if family == "GPT2" else "num_hidden_layers"
    teacher, student, ids = made(family, **{depth: 6}), made(family, **{depth: 3}), texts()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    config, full_logits = teacher.config.to_dict(), outputs_of(teacher, ids).logits
    teacher.train()

    def score(model) -> Tensor:
        with torch.no_grad():
            model.eval()
            return -(outputs_of(model, ids).logits - full_logits).square()[ids != 0].mean()

    expected = {}
    for chosen in combinations(range(6), 3):
        copy_layers(student, teacher, chosen)
        expected[chosen] = float(score(student))
    search = search_layers(teacher, 3, score)
    assert search.scores == expected
    assert search.layers == max(expected, key=lambda chosen: expected[chosen])
    assert len(expected) == 20
    assert teacher.config.to_dict() == config
    torch.testing.assert_close(dict(teacher.state_dict()), before, rtol=0, atol=0)
    torch.testing.assert_close(outputs_of(teacher.eval(), ids).logits, full_logits, rtol=0, atol=0)


@needs_transformers
def test_the_teacher_is_restored_when_a_score_raises():
    teacher, ids, calls = made("Qwen2"), texts(), []
    before, config, full_logits = (
        list(teacher.named_parameters()),
        teacher.config.to_dict(),
        outputs_of(teacher, ids).logits,
    )

    def score(model) -> float:
        calls.append(len(list(model.parameters())))
        if len(calls) == 3:
            raise ArithmeticError("third")
        return 0.0

    with pytest.raises(ArithmeticError, match="third"):
        search_layers(teacher, 2, score)
    after = list(teacher.named_parameters())
    assert [name for name, _ in after] == [name for name, _ in before]
    assert all(one is other for (_, one), (_, other) in zip(after, before, strict=True))
    assert calls[0] < len(before)
    assert teacher.config.to_dict() == config
    torch.testing.assert_close(outputs_of(teacher, ids).logits, full_logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"depth": 4, "path": "encoder.layers"}, r"depth must be an integer in 1\.\.3, got 4"),
        ({"depth": 0, "path": "encoder.layers"}, r"depth must be an integer in 1\.\.3, got 0"),
        ({"depth": 2, "path": "encoder.layers", "max_tries": 0}, "max_tries must be an integer >= 1, got 0"),
        ({"depth": 2}, "path of the layers of Tagger is needed, .*"),
        (
            {"depth": 2, "path": "encoder.layers"},
            r"score must be finite for some choice of layers, got nan for \[0, 1\]",
        ),
    ],
    ids=["too-deep", "no-layers", "no-budget", "no-path", "never-finite"],
)
def test_invalid_searches_are_refused(options, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        search_layers(Tagger(3), score=lambda _: nan, **options)
