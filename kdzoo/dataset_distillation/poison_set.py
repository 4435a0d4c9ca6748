"""A synthetic set that is meant to make trained networks confuse two classes."""

from typing import Any

from kdzoo.dataset_distillation.poisoning import check_attack_classes
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet


class PoisonSet(SyntheticSet):
    """A synthetic set with the classes of an attack.

    Args:
        source: class under attack, 0..C-1.
        target: class that networks shall take it for, another of 0..C-1.
        **options: see :class:`SyntheticSet`.

    Raises:
        ConfigError: an argument is out of its range.
    """

    def __init__(self, *, source: int = 1, target: int = 7, **options: Any) -> None:
        super().__init__(**options)
        self.source, self.target = check_attack_classes(source, target, self.num_classes)
