"""The base of transfer sets that replace the training split of other data and keep its val and test splits."""

from collections.abc import Iterable
from typing import Any

from kdzoo.core.batch import Batch
from kdzoo.core.data_module import BatchData


class DerivedData(BatchData):
    """Data whose val and test splits and sizes are those of other data; a subclass makes the training split.

    Args:
        source: The other data, after ``setup()``.
    """

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.source = source

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - the source has been set up
        """Take this process's share of the batches."""
        self.train_sampler.set_share(*self._rank_and_world_size())

    def val_dataloader(self) -> Iterable[Batch]:
        """Return the val split of the other data."""
        return self.source.val_dataloader()

    def test_dataloader(self) -> Iterable[Batch]:
        """Return the test split of the other data."""
        return self.source.test_dataloader()

    @property
    def sizes(self) -> dict[str, Any]:
        """The sizes of the other data."""
        return self.source.sizes

    @property
    def is_augmented(self) -> bool:
        """True: every epoch has different samples."""
        return True

    def summary(self) -> dict[str, int]:
        """Return the summary of the other data."""
        return self.source.summary()
