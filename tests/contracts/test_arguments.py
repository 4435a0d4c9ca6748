"""The check of arguments: which values are tried, and that an accepted one or an unclear message fails."""

import math

import pytest

from kdzoo.contracts import arguments
from kdzoo.core.closed_form import ClosedFormDistiller
from kdzoo.distillers import LogitKD
from kdzoo.errors import ConfigError


class AcceptsAnyTemperature(LogitKD):
    """Does not validate its argument."""

    def __init__(self, *models, temperature: float = 4.0, **options):
        super().__init__(*models, **options)
        self.temperature = temperature


class NamesNothing(LogitKD):
    """Rejects wrong values without naming the argument."""

    def __init__(self, *models, temperature: float = 4.0, **options):
        if not (type(temperature) in (int, float) and 0 < temperature < math.inf):
            raise ConfigError("wrong value")
        super().__init__(*models, temperature=temperature, **options)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (AcceptsAnyTemperature, "temperature=nan is accepted"),
        (NamesNothing, "temperature=nan is rejected without naming it: wrong value"),
    ],
)
def test_a_violation_is_found(method, reason, subject_of):
    with pytest.raises(AssertionError, match=reason):
        arguments.check_arguments(subject_of(method))


class ManyTypes(ClosedFormDistiller):
    """Has arguments of every type."""

    def __init__(self, *models, rate: float, scale: float | None = None, steps: int = 1, start: str = "own", **options):
        super().__init__(*models, **options)

    def list_of_rates(self, rates: list[float]):
        """Is not a constructor."""


def test_bad_values_follow_the_type_of_an_argument():
    values = arguments._bad_values(ManyTypes)
    assert set(values) == {"rate", "scale", "steps", "start", "micro_batch_size"}
    assert values["rate"] == values["scale"] == arguments.BAD_VALUES[float]
    assert values["steps"] == values["micro_batch_size"] == arguments.BAD_VALUES[int]
    assert values["start"] == ("no_such_choice",)
