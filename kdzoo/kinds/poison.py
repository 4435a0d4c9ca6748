"""Poisoned data sets, which are evaluated by their effect on trained networks with weights unknown to the attack."""

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
class PoisonPredictions(Predictions):
    """Logits of networks before and after their training on a poisoned set.

    Attributes:
        logits_before: Logits ``[R, n, C]`` before the training, by name of the inner network.
        classes: The class under attack and the class that the attack makes networks predict for it; None for a model
            that is not a poisoned set.
    """

    logits_before: dict[str, Tensor]
    classes: tuple[int, int] | None


class PoisonedSetKind(SyntheticSetKind):
    """Measures a poisoned set as a synthetic set, and by the effect of the attack."""

    name: ClassVar[str] = "poison"
    needs: ClassVar[str] = "a poisoned data set (kdzoo.dataset_distillation.PoisonSet)"

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether the model is a poisoned set."""
        return isinstance(model, PoisonSet)

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Reject a model that is not a poisoned set, and a set that does not fit the data."""
        if not isinstance(model, PoisonSet):
            raise ConfigError(f"{role} {type(model).__name__} is not {self.needs}; choose student=poison")
        super().check(role, model, batch, sizes)

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> PoisonPredictions:
        """Return logits of networks before and after their training on a set, or those of another model."""
        batches = list(batches)  # read twice below, and a loader may draw other batches each time
        after = super().predict(model, batches)
        # The teacher and the baselines of the report are not poisoned: they have no effect to measure.
        if not isinstance(model, PoisonSet):
            return PoisonPredictions(**vars(after), logits_before=after.logits, classes=None)
        inputs, _ = labelled_samples(batches)
        logits_before = {
            name: evaluation_networks.predict_logits(network, network.held_out().to(model.images), inputs)
            for name, network in model.inner_networks.items()
        }
        return PoisonPredictions(**vars(after), logits_before=logits_before, classes=(model.source, model.target))

    def metrics(self, predictions: PoisonPredictions) -> dict[str, float]:
        """Return the metrics of a synthetic set, and the effect of the attack, averaged over networks.

        Args:
            predictions: What :meth:`predict` returned.

        Returns:
            The metrics of :class:`SyntheticSetKind` and, of a poisoned set, ``accuracy_before``, the accuracy before
            the training on the set; ``modified_accuracy``, that after it with respect to the changed labels;
            ``source_as_target``, the share of the source class that is predicted as the target class, and
            ``source_as_target_before``; ``others_lost``, the mean recall that the other classes lose.
        """
        metrics = super().metrics(predictions)
        if predictions.classes is None:
            return metrics
        effects = [
            poisoning_effect(
                predictions.logits_before[name].argmax(-1),
                logits.argmax(-1),
                predictions.target,
                *predictions.classes,
                num_classes=logits.shape[-1],
            )
            for name, logits in predictions.logits.items()
        ]
        before, after = 0, 1
        return {
            **metrics,
            "accuracy_before": _mean([effect.accuracy[before] for effect in effects]),
            "modified_accuracy": _mean([effect.modified_accuracy[after] for effect in effects]),
            "source_as_target": _mean([effect.source_as_target[after] for effect in effects]),
            "source_as_target_before": _mean([effect.source_as_target[before] for effect in effects]),
            "others_lost": _mean([effect.others_lost for effect in effects]),
        }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
