"""The base of transfer sets that are made of other data: their training part is new, the rest is that of the source."""

from collections.abc import Iterable
from typing import Any

from kdzoo.core.batch import Batch
from kdzoo.core.data_module import BatchData


class DerivedData(BatchData):
    """Data whose val and test parts and sizes are those of other data; a subclass makes the training part.

    Args:
        source: the other data; set up.
    """

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.source = source

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - the source is set up
        """Take this process's share of the batches."""
        self.train_sampler.set_share(*self._share())

    def val_dataloader(self) -> Iterable[Batch]:
        """Return the val part of the other data."""
        return self.source.val_dataloader()

    def test_dataloader(self) -> Iterable[Batch]:
        """Return the test part of the other data."""
        return self.source.test_dataloader()

    @property
    def sizes(self) -> dict[str, Any]:
        """Those of the other data."""
        return self.source.sizes

    @property
    def is_augmented(self) -> bool:
        """True: every epoch has other samples."""
        return True

    def summary(self) -> dict[str, int]:
        """Return that of the other data."""
        return self.source.summary()
