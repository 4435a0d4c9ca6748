"""First images of a synthetic set: noise, or a selection of the real data."""

import torch
from torch import Tensor

from kdzoo.synthetic.selection import SELECTIONS, select
from kdzoo.synthetic.synthetic_set import SyntheticSet, first_labels

STARTS = ("noise", *SELECTIONS)


def set_images(few: SyntheticSet, name: str, inputs: Tensor, targets: Tensor, *, seed: int) -> None:
    """Set the images of a synthetic set to a selection of real ones, in place.

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
    shares = first_labels(few.size, few.num_classes)
    rank = (shares.argmax(1)[:, None] == shares.argmax(1)).long().tril(-1).sum(1)  # place among those of its class
    per_class = int(rank.max()) + 1
    chosen, _ = select(name, inputs, targets, per_class, few.num_classes, seed)
    by_rank = chosen.view(few.num_classes, per_class, *chosen.shape[1:])[:, rank]  # [C, M, ...]
    with torch.no_grad():
        few.images.copy_(torch.einsum("mc,cm...->m...", shares.to(by_rank), by_rank))
        few.labels.copy_(shares)
