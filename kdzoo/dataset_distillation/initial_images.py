"""The images that a synthetic set starts from: noise, or a selection of the real data."""

import torch
from torch import Tensor

from kdzoo.dataset_distillation.selection import SELECTIONS, select
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet, initial_labels

INITIAL_IMAGES = ("noise", *SELECTIONS)
"""Names of the initial images: ``noise`` keeps those that the set was constructed with."""


def set_real_images(synthetic_set: SyntheticSet, selection: str, inputs: Tensor, targets: Tensor, *, seed: int) -> None:
    """Replace the images of a synthetic set by a selection of real ones, in place and within its range of pixels.

    An example whose label is shared by several classes becomes the mean of one image of each of them.

    Args:
        synthetic_set: The set of M examples; its labels are reset to the initial ones.
        selection: One of ``SELECTIONS``.
        inputs: Real images ``[n, *in_shape]``.
        targets: Their classes ``[n]``.
        seed: Seed of the selection, >= 0.

    Raises:
        DataError: A class has fewer images than the set has examples of it.
    """
    labels = initial_labels(synthetic_set.size, synthetic_set.num_classes)
    counts = labels.argmax(1).bincount(minlength=synthetic_set.num_classes).tolist()
    if synthetic_set.size >= synthetic_set.num_classes:
        images, _ = select(selection, inputs, targets, counts, synthetic_set.num_classes, seed)
    else:
        # Fewer examples than classes: one image of every class, averaged with the weights of the shared labels.
        class_images, _ = select(selection, inputs, targets, 1, synthetic_set.num_classes, seed)
        images = torch.einsum("mc,c...->m...", labels.to(class_images), class_images)
    with torch.no_grad():
        synthetic_set.images.copy_(images)
        synthetic_set.labels.copy_(labels)
    synthetic_set.project_()
