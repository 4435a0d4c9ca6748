"""The options of a distillation: their defaults are valid, and each wrong value is refused by name."""

import pytest

from kdzoo.automata.options import DistillationOptions
from kdzoo.errors import ConfigError


@pytest.mark.parametrize(
    "options",
    [{}, {"states": 3, "clusters": 3}, {"states": 2, "merge": False}, {"features": "learned"}, {"held_out": 0}],
)
def test_valid_options_are_kept(options):
    created = DistillationOptions(**options)
    assert {name: getattr(created, name) for name in options} == options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"states": 0}, "states must be an integer >= 1, got 0"),
        ({"clusters": 0}, "clusters must be an integer >= 1, got 0"),
        ({"states": 3, "clusters": 2}, "clusters must be at least states = 3, got 2"),
        ({"merge": False}, "states must be given if merge is false, got None"),
        ({"features": "all"}, "features must be one of hidden, sqrt_probs, both, learned, got 'all'"),
        ({"merge": 1}, "merge must be true or false, got 1"),
        ({"soft": "yes"}, "soft must be true or false, got 'yes'"),
        ({"em": None}, "em must be true or false, got None"),
        ({"em_steps": -1}, "em_steps must be an integer >= 0, got -1"),
        ({"restarts": 0}, "restarts must be an integer >= 1, got 0"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"determinism": 0}, "determinism must be finite and > 0, got 0"),
        ({"penalty": float("inf")}, "penalty must be finite and > 0, got inf"),
        ({"pseudocount": 0.0}, "pseudocount must be finite and > 0, got 0.0"),
        ({"held_out": 1.0}, r"held_out must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_values_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        DistillationOptions(**options)
