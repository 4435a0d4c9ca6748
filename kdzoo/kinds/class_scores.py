"""The classes of samples, as a classifier sees them.

The accuracies in both directions are those of Shmelkov et al. 2018, *How good is my GAN?*: a classifier trained on data
is tested on samples of known class (GAN-test), and one trained on samples is tested on data (GAN-train). The first is
high for a model that knows one good image of each class; the second needs the variety of the data as well.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdzoo.core.batch import Batch
from kdzoo.graphical_models import Categorical, Graph
from kdzoo.kinds.evaluation_classifier import EvaluationClassifier
from kdzoo.kinds.sample_sets import draw_samples

# Samples of known class: a classifier is trained on them, which has five passes over them, and is tested on them.
LABELLED = 10_240
# Samples that are drawn in one call: bounds the memory of the activations.
DRAWN_AT_ONCE = 1024
# Seed of the first set of labelled samples; other sets of a report have smaller ones.
FIRST_SET = 1000
# A class is missed if less than this part of its share in the data is generated. Single samples are not enough, since
# the classifier errs. Of classes whose share in the data is below the second number, it may be chance.
PRESENT, COMMON = 0.1, 0.01
# A model whose samples look real but that covers almost none of the data has collapsed to a few modes.
MIN_RECALL, MIN_PRECISION = 0.1, 0.5


def condition_of(model: nn.Module) -> str | None:
    """Return the name of the input of a graph that is the class of a sample; None for models without one."""
    if not isinstance(model, Graph) or model.scan is not None:
        return None
    names = [
        name
        for name, node in model.inputs().items()
        if node.source == "target" and isinstance(node.family, Categorical)
    ]
    return names[0] if names else None


def class_scores(
    classifier: EvaluationClassifier,
    model: nn.Module,
    samples: Tensor,
    batches: Sequence[Batch],
) -> dict[str, float]:
    """Return how many of the data's classes samples lack, and the accuracies of a model with a condition.

    Args:
        classifier: A classifier trained on the data.
        model: A graph, or stored samples.
        samples: Its samples, ``[n, ...]``.
        batches: Batches of the data with labels.

    Returns:
        ``missed_classes``, the number of the data's common classes that almost no sample has; of models with a class as
        condition also ``gan_test_accuracy`` and ``gan_train_accuracy``, and of stored samples
        ``classifier_accuracy``, that of the classifier on the batches, with which these compare.
    """
    targets = torch.cat([batch["target"] for batch in batches])
    observed = torch.bincount(targets[targets >= 0])
    found = torch.bincount(classifier.classes(samples), minlength=len(observed))[: len(observed)]
    shares, generated = observed / observed.sum(), found / len(samples)
    scores = {"missed_classes": float(((shares >= COMMON) & (generated < PRESENT * shares)).sum())}
    data = torch.cat([batch["input"] for batch in batches])
    if not isinstance(model, Graph):
        return scores | {"classifier_accuracy": classifier.accuracy(data, targets)}
    condition = condition_of(model)
    if condition is None:
        return scores
    drawn, labels, num_classes = _labelled_samples(model, condition)
    trained = classifier.retrained(drawn, labels, num_classes)
    return scores | {
        "gan_test_accuracy": classifier.accuracy(drawn, labels),
        "gan_train_accuracy": trained.accuracy(data, targets),
    }


def collapse(metrics: Mapping[str, float]) -> str | None:
    """Return a clause on a model that lacks classes or modes of the data, by its metrics; None for others."""
    missed = round(metrics.get("missed_classes", 0))
    precision, recall = metrics.get("precision", 0.0), metrics.get("recall", 1.0)
    if missed and precision <= MIN_PRECISION:
        return f"its samples do not look like data (precision {precision:.2f}) and lack {missed} of their classes"
    if missed:
        return f"its samples lack {missed} of the classes of the data, so that it has collapsed to a part of them"
    if recall < MIN_RECALL and precision > MIN_PRECISION:
        return (
            f"its samples look like data (precision {precision:.2f}) but cover {recall:.0%} of them (recall), so that "
            "it has collapsed to a few modes"
        )
    return None


def _labelled_samples(model: Graph, condition: str) -> tuple[Tensor, Tensor, int]:
    """Return samples of classes that are drawn, these classes, int64 ``[n]``, and the number of classes."""
    samples, labels = [], []
    for number in range(FIRST_SET, FIRST_SET + LABELLED // DRAWN_AT_ONCE):
        generator = torch.Generator().manual_seed(number)
        inputs = model.draw_inputs(DRAWN_AT_ONCE, generator=generator)
        samples.append(
            draw_samples(model, DRAWN_AT_ONCE, number, {name: value.to(model.like) for name, value in inputs.items()})
        )
        labels.append(inputs[condition].cpu())
    one_hot = torch.cat(labels)
    return torch.cat(samples), one_hot.argmax(1), one_hot.shape[1]
