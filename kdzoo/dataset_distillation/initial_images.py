"""First images of a synthetic set: noise, or a selection of the real data."""

import torch
from torch import Tensor

from kdzoo.dataset_distillation.selection import SELECTIONS, select
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet, initial_labels

INITIAL_IMAGES = ("noise", *SELECTIONS)


def set_real_images(few: SyntheticSet, name: str, inputs: Tensor, targets: Tensor, *, seed: int) -> None:
    """Set the images of a synthetic set to a selection of real ones, in place and in its range of pixels.

    An example whose label is shared by classes becomes the mean of an image of each.

    Args:
        few: M examples; their labels are set to the first ones.
        name: one of ``SELECTIONS``.
        inputs: real images [n, ...].
        targets: their classes [n].
        seed: of the selection.

    Raises:
        DataError: a class has too few images.
    """
    shares = initial_labels(few.size, few.num_classes)
    counts = shares.argmax(1).bincount(minlength=few.num_classes).tolist()
    if few.size >= few.num_classes:
        images, _ = select(name, inputs, targets, counts, few.num_classes, seed)
    else:
        of_each, _ = select(name, inputs, targets, 1, few.num_classes, seed)
        images = torch.einsum("mc,c...->m...", shares.to(of_each), of_each)
    with torch.no_grad():
        few.images.copy_(images)
        few.labels.copy_(shares)
    few.project_()
