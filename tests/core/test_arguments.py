"""Wrong arguments of a distiller in Python get the messages of the command line."""

import copy
import inspect
import pickle

import pytest
from torch import nn

from kdzoo.distillers import LogitKD, SketchedKD
from kdzoo.errors import ConfigError


def models():
    return nn.Linear(2, 3), nn.Linear(2, 3)


class OwnKD(LogitKD):
    """Takes an argument out of the options, which its signature does not show."""

    def __init__(self, *models, **options):
        self.extra = options.pop("extra", None)
        super().__init__(*models, **options)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (LogitKD, {"temprature": 4}, r"LogitKD has no argument 'temprature'; did you mean 'temperature'\?"),
        (LogitKD, {"micro_batch": 4}, r"LogitKD has no argument 'micro_batch'; did you mean 'micro_batch_size'\?"),
        (LogitKD, {"qqq": 4}, "LogitKD has no argument 'qqq'"),
        (SketchedKD, {"sampels": 4}, r"SketchedKD has no argument 'sampels'; did you mean 'samples'\?"),
        (OwnKD, {"temprature": 4}, r"OwnKD has no argument 'temprature'; did you mean 'temperature'\?"),
    ],
)
def test_an_unknown_argument_is_refused_with_the_most_similar_one(method, options, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        method(*models(), **options)


def test_an_argument_that_a_method_takes_out_of_its_options_is_not_unknown():
    assert OwnKD(*models(), extra=3, temperature=2.0).temperature == 2.0


def test_an_error_in_something_that_a_constructor_builds_is_not_hidden():
    class Builds(LogitKD):
        def __init__(self, *models, **options):
            super().__init__(*models, **options)
            nn.Linear(1, 1, no_such=1)

    with pytest.raises(TypeError, match="no_such"):
        Builds(*models(), temperature=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mlp", nn.Linear(1, 1)), "student must be a torch.nn.Module, got 'mlp'"),
        ((nn.Linear(1, 1), "mlp"), "teacher must be a torch.nn.Module or None, got 'mlp'"),
        ((nn.Linear(1, 1), None), "LogitKD needs a teacher, got teacher=None"),
        ((None, None), "student must be a torch.nn.Module, got None"),
    ],
)
def test_what_is_not_a_model_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        LogitKD(*arguments)


def test_a_distiller_can_be_copied_and_pickled():
    distiller = LogitKD(*models(), temperature=3.0)
    for again in (copy.deepcopy(distiller), pickle.loads(pickle.dumps(distiller))):
        assert again.temperature == 3.0


def test_the_signature_lists_the_arguments_of_all_constructors():
    signature = inspect.signature(LogitKD)
    names = list(signature.parameters)
    assert names[:2] == ["student", "teacher"]
    assert {"temperature", "loss_weights", "optimizer", "micro_batch_size"} <= set(names)
    assert "options" not in names
    assert signature.parameters["micro_batch_size"].kind == inspect.Parameter.KEYWORD_ONLY
    assert signature.parameters["temperature"].default == 4.0
    assert signature.bind(*models(), temperature=2.0).arguments["temperature"] == 2.0
    of_own = list(inspect.signature(OwnKD).parameters.values())
    assert of_own[0].kind == inspect.Parameter.VAR_POSITIONAL
    assert "temperature" in [parameter.name for parameter in of_own]
