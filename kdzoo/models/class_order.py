"""The order of a pretrained classifier's classes, which need not be that of the data."""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core.inference import inference
from kdzoo.errors import ConfigError, KdzooWarning

# Names that only number the classes: those that transformers gives by itself, and numbers in files of data.
_NUMBER = re.compile(r"(?:LABEL_)?(\d+)")


def align_classes(model: Any, example: dict[str, Tensor], classes: Sequence[str], path: str) -> None:
    """Put the outputs of a classifier of transformers into the order of the data's classes, in place.

    Classes are matched by their names. Nothing happens where the names of either side only number the classes.

    Args:
        model: The transformers model.
        example: Arguments of the model for one sample, by which the new order is verified.
        classes: Names of the data's classes 0..C-1.
        path: Where the model comes from, for messages.

    Raises:
        ConfigError: The names differ, the classifier gives each class a probability of its own, or its last layer was
            not found.
    """
    if model.config.problem_type == "multi_label_classification":
        raise ConfigError(f"{path} gives each class a probability of its own (multi-label); a teacher must choose one")
    own = [str(model.config.id2label[number]) for number in range(model.config.num_labels)]
    wanted = list(map(str, classes))
    if own == wanted or _only_numbers(own) or _only_numbers(wanted):
        return
    if sorted(own) != sorted(wanted):
        raise ConfigError(
            f"the classes of {path} are {own}, those of the data are {wanted}; give them in the order of the data, by "
            "the names that the model has, as teacher.classes or student.classes"
        )
    order = torch.tensor([own.index(name) for name in wanted])
    _permute_head(model, example, order, path)
    model.config.id2label = dict(enumerate(wanted))
    model.config.label2id = {name: number for number, name in enumerate(wanted)}
    message = f"the classes of {path}, {own}, are put into the order of the data, {wanted}"
    warnings.warn(message, KdzooWarning, stacklevel=2)


def _only_numbers(names: Sequence[str]) -> bool:
    """Return whether names are the numbers of the classes, such as ``LABEL_0, LABEL_1``."""
    numbers = [_NUMBER.fullmatch(name) for name in names]
    return [number and int(number[1]) for number in numbers] == list(range(len(names)))


def _permute_head(model: Any, example: dict[str, Tensor], order: Tensor, path: str) -> None:
    """Permute the rows of the layer that computes the logits; the outputs for the example show which one it is."""
    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == len(order)]
    with inference(model):
        expected = model(**example).logits[:, order]
        for head in reversed(heads):
            _reorder_rows(head, order)
            if torch.allclose(model(**example).logits, expected):
                return
            _reorder_rows(head, order.argsort())
    raise ConfigError(
        f"the classes of {path} have another order than the data's, and its last layer was not found; "
        "number the data's classes as the model does"
    )


def _reorder_rows(layer: nn.Linear, order: Tensor) -> None:
    """Permute the outputs of a layer, in place."""
    for parameter in (layer.weight, layer.bias):
        if parameter is not None:
            parameter.data = parameter.data[order].clone()
