"""A synthetic set that is meant to make trained networks confuse two classes."""

from typing import Any

from kdzoo.dataset_distillation.poisoning import check_attack_classes
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet


class PoisonSet(SyntheticSet):
    """A synthetic set with the two classes of an attack.

    Args:
        source: Class under attack, in 0..C-1.
        target: Class that the attack makes networks predict for it, another one in 0..C-1.
        **options: See :class:`SyntheticSet`.

    Raises:
        ConfigError: An argument is out of its range, or source and target are the same class.
    """

    # 1 and 7 are a pair of digits that look alike: a default for MNIST, on which the attack was published.
    def __init__(self, *, source: int = 1, target: int = 7, **options: Any) -> None:
        super().__init__(**options)
        self.source, self.target = check_attack_classes(source, target, self.num_classes)
