"""Images in two views: every training sample is augmented twice, independently."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from kdzoo.core.batch import Batch
from kdzoo.core.randomness import mix_seed
from kdzoo.core.validation import integer
from kdzoo.data.derived.base import DerivedData
from kdzoo.data.images.augment import Augment
from kdzoo.data.loading.batch_loader import BatchDataset, batch_loader
from kdzoo.data.memory import InMemoryData
from kdzoo.errors import ConfigError


class TwoViews(DerivedData):
    """Images whose training batches have a second view of each sample, ``view``, in addition to the first, ``input``.

    Both views are functions of (seed, epoch, index), so that a sample looks the same in any micro-batch, on any process
    and after a restart. Validation and test batches are not augmented: there, both views are the sample itself.

    Args:
        source: Images in memory, after ``setup()``. Their own augmentation is replaced by that of the views.
        augment: Augmentation of ``view``: ``shift``, ``crop`` and ``flip``; see
            :class:`kdzoo.data.images.augment.Augment`.
        input_augment: Augmentation of ``input``; None leaves it as it is.
        seed: Seed of the views, >= 0.

    Raises:
        ConfigError: An argument is out of its range, or the source does not hold its images in memory.
    """

    def __init__(
        self,
        source: Any,
        *,
        augment: Mapping[str, Any],
        input_augment: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(source)
        if not isinstance(source, InMemoryData):
            raise ConfigError(f"two views need images in memory (kdzoo.data.InMemoryData), got {type(source).__name__}")
        self.views = Augment.from_options(input_augment), Augment.from_options(augment)
        for view in self.views:
            view.check_shape(tuple(source.sizes["in_shape"]))
        self.seed = integer("seed", seed, 0)
        self.train_sampler = source.train_sampler

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches of this process, in two views."""
        return batch_loader(_TwoViewBatches(self), self.train_sampler)

    def train_eval_dataloader(self) -> Iterable[Batch]:
        """Return the training samples in index order, not augmented."""
        return _WithSameView(self.source.train_eval_dataloader())

    def val_dataloader(self) -> Iterable[Batch]:
        """Return the validation split, not augmented."""
        loader = self.source.val_dataloader()
        return [] if isinstance(loader, list) and not loader else _WithSameView(loader)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the source's fingerprint, the augmentations and the seed."""
        return hashlib.sha256(f"{self.source.fingerprint()} {self.views} {self.seed}".encode()).hexdigest()


class _TwoViewBatches(BatchDataset):
    """Training batches in two views."""

    def __init__(self, data: TwoViews) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.train_sampler.n

    def get_batch(self, epoch: int, index: Tensor) -> Batch:
        """Return the samples at ``index`` in two views."""
        samples: Batch = {**self.data.source.splits.train.batch(index), "index": index}
        # The views need different seeds. Otherwise equal augmentations would give equal views.
        views = [
            augment(samples["input"], mix_seed(self.data.seed, number), epoch, index)
            for number, augment in enumerate(self.data.views)
        ]
        return {**samples, "input": views[0], "view": views[1]}


class _WithSameView:
    """Batches of an evaluation loader with the sample itself as its second view."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            yield {**batch, "view": batch["input"]}
