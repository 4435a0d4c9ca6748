"""Adapts a user's Lightning data module, or a pair of loaders, to the interface of :class:`BatchData`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset

from kdzoo.core.abilities import DeclaresAugmentation, DeclaresClassCount, DeclaresIgnoreIndex
from kdzoo.core.batch import IGNORE, Batch
from kdzoo.core.data_module import BatchData
from kdzoo.core.samplers import EpochBatches
from kdzoo.core.validation import integer
from kdzoo.data.loading.batch_loader import batch_loader
from kdzoo.data.loading.class_labels import (
    check_any_label,
    check_labels,
    checked_ignore_index,
    count_classes,
)
from kdzoo.data.loading.convert import BatchFormat, ConvertedBatches
from kdzoo.data.loading.fingerprint import hash_inputs
from kdzoo.data.loading.replay import ReplayedBatches
from kdzoo.errors import DataError

# Lightning calls these hooks on the data module that the trainer has, which is the adapter and not the source.
_TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class AdaptedData(BatchData):
    """A user's Lightning data module or pair of loaders, with batches as dictionaries, positions and exact resume.

    The train loader is rebuilt over the same data set, ``collate_fn`` and workers, with a resumable order; its
    batch size becomes that of the global batch over all processes. Randomness in transforms is seeded for
    each (seed, epoch, sample). The val and test loaders are kept; only their batches are converted.

    A source may have three optional abilities: :class:`kdzoo.core.abilities.DeclaresAugmentation` (if it declares
    ``is_augmented = False``, its training samples must never change; this is not checked),
    :class:`kdzoo.core.abilities.DeclaresClassCount`, which saves a pass over the labels of all splits, and
    :class:`kdzoo.core.abilities.DeclaresIgnoreIndex`.

    Args:
        source: A data module, or ``(train loader, test loader)``.
        seed: Decides order and augmentation.
        input_key: Name of the inputs in batches that are mappings; None tries the usual names.
        target_key: Name of the labels there; None tries the usual names, and labels may be missing.
        ignore_index: The label that stands for a missing one; None: what the source declares, or else -100.
        eval_batch_size: Samples of a block of ``train_eval_dataloader``, >= 1.

    Raises:
        ConfigError: If an option is out of range.
        DataError: If the source is neither of the two, or overrides a transfer hook, which would not be called; in
            ``setup``, if its train loader cannot be replayed.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> samples = TensorDataset(torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
        >>> data = AdaptedData((DataLoader(samples, batch_size=2, shuffle=True), DataLoader(samples)))
        >>> data.setup()
        >>> data.sizes, len(data.train_dataloader())
        ({'in_shape': (4,), 'num_classes': 3}, 3)
    """

    def __init__(
        self,
        source: pl.LightningDataModule | Sequence[DataLoader[Any]],
        *,
        seed: int = 0,
        input_key: str | None = None,
        target_key: str | None = None,
        ignore_index: int | None = None,
        eval_batch_size: int = 1024,
    ) -> None:
        super().__init__()
        self.source = source if isinstance(source, pl.LightningDataModule) else _LoaderPair(source)
        self.seed = integer("seed", seed, 0)
        if ignore_index is None:
            ignore_index = self.source.ignore_index if isinstance(self.source, DeclaresIgnoreIndex) else IGNORE
        self.layout = BatchFormat(input_key, target_key, checked_ignore_index(ignore_index))
        self.eval_batch_size = integer("eval_batch_size", eval_batch_size, 1)
        self._stages: set[str] = set()
        self._loader: DataLoader[Any] | None = None
        for hook in _TRANSFER_HOOKS:
            # Looking names up in the classes of the MRO below Lightning's own tells an override from the default.
            own_classes = type(self.source).__mro__[: type(self.source).__mro__.index(pl.LightningDataModule)]
            if any(hook in vars(cls) for cls in own_classes):
                raise DataError(f"{type(self.source).__name__}.{hook} would be skipped; move it into the data set")

    def prepare_data(self) -> None:
        """Let the source prepare its data."""
        self.source.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Set up the source and rebuild its train loader once; None sets up fitting and testing."""
        # Not None: many data modules compare the stage with "fit" and "test" only.
        for source_stage in ("fit", "test") if stage is None else (stage,):
            self._set_up_source(source_stage)
        if self._loader is None and "fit" in self._stages:
            loader = replayable(self.source.train_dataloader())
            shuffle = isinstance(loader.sampler, RandomSampler)
            # RandomSampler is what DataLoader makes of shuffle=True; replayable() has excluded all other samplers.
            self._loader, batch_size = loader, self._limited(int(loader.batch_size or 0))
            self.train_sampler = EpochBatches(len(self._dataset), batch_size, self.seed, shuffle, loader.drop_last)
        if self._loader is not None:
            self.train_sampler.set_share(*self._rank_and_world_size())

    def _set_up_source(self, stage: str) -> None:
        """Set up a stage of the source unless that has been done, as Lightning does for its own data module."""
        # The source may read its trainer in setup, for example to know the number of processes.
        self.source.trainer = self.trainer
        if stage not in self._stages:
            self.source.setup(stage)
            self._stages.add(stage)

    def teardown(self, stage: str) -> None:
        """Tear down the source; it is set up again when it is needed next."""
        self.source.teardown(stage)
        self._stages.discard(stage)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches of this process."""
        return self._batches(self.train_sampler)

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """Return the training samples in index order; augmented ones are those of epoch 0."""
        # In index order, so that row i of cached teacher outputs belongs to sample i.
        n = len(self._dataset)
        return self._batches(EpochBatches(n, self.eval_batch_size, self.seed, shuffle=False))

    def val_dataloader(self) -> Any:
        """Return the source's val loaders with converted batches; an empty list when there are none."""
        return self._converted(self.source.val_dataloader)

    def test_dataloader(self) -> Any:
        """Return the source's test loaders with converted batches; an empty list when there are none."""
        self._set_up_source("test")
        return self._converted(self.source.test_dataloader)

    @property
    def is_augmented(self) -> bool:
        """What the source declares; True if it does not, because its transforms may be random."""
        return bool(self.source.is_augmented) if isinstance(self.source, DeclaresAugmentation) else True

    @cached_property
    def sizes(self) -> dict[str, Any]:
        """``in_shape`` (tuple, without the batch) and ``num_classes``."""
        first_sample = self._dataset[0, torch.tensor([0])]
        return {"in_shape": tuple(first_sample["input"].shape[1:]), "num_classes": self._num_classes()}

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the training inputs in order, as they are in epoch 0."""
        return hash_inputs(batch["input"] for batch in self.train_eval_dataloader())

    def summary(self) -> dict[str, int]:
        """Return n_train, n_labelled, n_val, n_test and num_classes; reads all training labels."""
        return {
            "n_train": len(self._dataset),
            "n_labelled": int((self._targets != IGNORE).sum()),
            "n_val": _count(self.val_dataloader()),
            "n_test": _count(self.test_dataloader()),
            "num_classes": self.sizes["num_classes"],
        }

    @cached_property
    def _dataset(self) -> ReplayedBatches:
        if self._loader is None:
            raise RuntimeError("call AdaptedData.setup() or setup('fit') first")
        loader, samples = self._loader, self._loader.dataset
        if self.max_samples is not None:
            n = min(len(samples), max(self.max_samples, self._limited(int(loader.batch_size or 0))))  # type: ignore[arg-type]
            samples = Subset(samples, range(n))
        return ReplayedBatches(samples, loader.collate_fn, self.layout, self.seed, self.is_augmented)

    @cached_property
    def _targets(self) -> Tensor:
        """The labels of all training samples, int64 ``[n]``."""
        return torch.cat([batch["target"] for batch in self.train_eval_dataloader()])

    def _num_classes(self) -> int:
        if isinstance(self.source, DeclaresClassCount) and self.source.num_classes is not None:
            return integer("num_classes", self.source.num_classes, 1)
        if not bool((self._targets != IGNORE).any()):
            raise DataError("the training data have no labels; give the data module an attribute num_classes")
        splits, ignore_index = {"train": self._targets, **self._evaluation_targets()}, self.layout.ignore_index
        # The first samples, which a trial run uses, may lack classes: data are often sorted by them.
        in_trial = None if self.max_samples is None else int(torch.cat(list(splits.values())).max()) + 1
        count = count_classes(self._targets, in_trial, ignore_index=ignore_index)
        for name, targets in splits.items():
            check_labels(targets, count, name, ignore_index=ignore_index)
            check_any_label(targets, name)
        return count

    def _evaluation_targets(self) -> dict[str, Tensor]:
        """Return the labels of val and test, int64 ``[n]`` by split."""
        splits = {"val": self.val_dataloader(), "test": self.test_dataloader()}
        none = torch.empty(0, dtype=torch.int64)
        return {
            name: torch.cat([none, *(batch["target"] for loader in _listed(loaders) for batch in loader)])
            for name, loaders in splits.items()
        }

    def _batches(self, sampler: EpochBatches) -> DataLoader[Batch]:
        dataset, loader = self._dataset, self._loader
        assert loader is not None  # _dataset has checked it
        return batch_loader(
            dataset,
            sampler,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )

    def _converted(self, make_loaders: Callable[[], Any]) -> Any:
        """Return loaders with converted batches, in the container that the source returns them in."""
        try:
            loaders = make_loaders()
        except MisconfigurationException:  # raised by Lightning's default method: the source does not define it
            return []
        if isinstance(loaders, Mapping):
            return {key: ConvertedBatches(loader, self.layout, self.max_samples) for key, loader in loaders.items()}
        if isinstance(loaders, list | tuple):
            return [ConvertedBatches(loader, self.layout, self.max_samples) for loader in loaders]
        return ConvertedBatches(loaders, self.layout, self.max_samples)


class _LoaderPair(pl.LightningDataModule):
    """A train and a test loader as a data module."""

    def __init__(self, loaders: Any) -> None:
        super().__init__()
        if not isinstance(loaders, list | tuple) or len(loaders) != 2:
            kind = type(loaders).__name__
            raise DataError(f"source is {kind}; allowed: a LightningDataModule or (train loader, test loader)")
        self.loaders = loaders

    def train_dataloader(self) -> Any:
        return self.loaders[0]

    def test_dataloader(self) -> Any:
        return self.loaders[1]


def replayable(loader: Any) -> DataLoader[Any]:
    """Check that the order of a train loader can be reproduced from a seed, and return the loader.

    Raises:
        DataError: If it is not a ``DataLoader``, its data set is iterable or empty, or its sampler is not one of
            torch's sequential and random ones.
    """
    if not isinstance(loader, DataLoader):
        raise DataError(f"the train loader is {type(loader).__name__}; allowed: one torch DataLoader")
    if isinstance(loader.dataset, IterableDataset):
        kind = type(loader.dataset).__name__
        raise DataError(f"the train data set {kind} is an IterableDataset; allowed: a map-style data set")
    if type(loader.batch_sampler) is not BatchSampler:
        kind = "absent (batch_size=None)" if loader.batch_sampler is None else type(loader.batch_sampler).__name__
        raise DataError(f"the train loader's batch_sampler is {kind}; allowed: batch_size with shuffle or without")
    # Exact types: a subclass may order samples in its own way, which EpochBatches would silently replace.
    is_standard = type(loader.sampler) is SequentialSampler or (
        type(loader.sampler) is RandomSampler and not loader.sampler.replacement
    )
    if not is_standard:
        kind = type(loader.sampler).__name__
        raise DataError(f"the train loader's sampler {kind} cannot be replayed; allowed: shuffle or none")
    if not len(loader.dataset):  # type: ignore[arg-type]
        raise DataError("the train data set is empty; allowed: at least 1 sample")
    return loader


def _count(loaders: Any) -> int:
    """Return the number of samples of one loader, or of a list or mapping of them."""
    return sum(loader.count() for loader in _listed(loaders))


def _listed(loaders: Any) -> Iterable[ConvertedBatches]:
    """Return one loader, or a list or mapping of them, as loaders one after the other."""
    if isinstance(loaders, Mapping):
        return loaders.values()
    return loaders if isinstance(loaders, list) else [loaders]
