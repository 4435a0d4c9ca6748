"""Poisoned data sets: judged by what they do to trained networks whose weights the attack did not know."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from kdzoo.core.batch import Batch, labelled_samples
from kdzoo.dataset_distillation import PoisonSet, evaluation_networks
from kdzoo.dataset_distillation.poisoning import poisoning_effect
from kdzoo.errors import ConfigError
from kdzoo.kinds.synthetic_set import Predictions, SyntheticSetKind


@dataclass(frozen=True)
class Attack(Predictions):
    """What networks say after their steps on a poisoned set, and before.

    Attributes:
        before: of each inner network, by name, [R, n, C].
        classes: the class under attack and the class it shall be taken for; None of models that attack nothing.
    """

    before: dict[str, Tensor]
    classes: tuple[int, int] | None


class PoisonedSetKind(SyntheticSetKind):
    """Measured like every data set, and by the four measures of the attack."""

    name: ClassVar[str] = "poison"
    needs: ClassVar[str] = "a poisoned data set (kdzoo.dataset_distillation.PoisonSet)"

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether it is a poisoned set."""
        return isinstance(model, PoisonSet)

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Refuse a student that names no classes."""
        if not isinstance(model, PoisonSet):
            raise ConfigError(f"{role} {type(model).__name__} is not {self.needs}; choose student=poison")
        super().check(role, model, batch, sizes)

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Attack:
        """Return what networks say before and after their steps on a set; another model speaks for itself."""
        rows = list(batches)
        after = super().predict(model, rows)
        if not isinstance(model, PoisonSet):
            return Attack(**vars(after), before=after.logits, classes=None)
        inputs, _ = labelled_samples(rows)
        before = {
            name: evaluation_networks.predict_logits(one, one.held_out().to(model.images), inputs)
            for name, one in model.inner_networks.items()
        }
        return Attack(**vars(after), before=before, classes=(model.source, model.target))

    def metrics(self, predictions: Attack) -> dict[str, float]:
        """Return the measures of a data set, and those of the attack, averaged over networks and inner_networks.

        ``source_as_target`` is the share of the class under attack that is taken for the target class,
        ``others_lost`` the mean recall that the other classes lose, ``modified_accuracy`` the accuracy by the labels
        that the attack wants, and ``accuracy_before`` that of the networks before.
        """
        found = super().metrics(predictions)
        if predictions.classes is None:
            return found
        effects = [
            poisoning_effect(
                predictions.before[name].argmax(-1),
                after.argmax(-1),
                predictions.target,
                *predictions.classes,
                num_classes=after.shape[-1],
            )
            for name, after in predictions.logits.items()
        ]
        return {
            **found,
            "accuracy_before": _mean([one.accuracy[0] for one in effects]),
            "modified_accuracy": _mean([one.modified_accuracy[1] for one in effects]),
            "source_as_target": _mean([one.source_as_target[1] for one in effects]),
            "source_as_target_before": _mean([one.source_as_target[0] for one in effects]),
            "others_lost": _mean([one.others_lost for one in effects]),
        }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
