"""What a Lightning trainer calls outside of the training: the steps of validation, test and prediction."""

from abc import abstractmethod
from typing import Any, final

import pytorch_lightning as pl
from torch import Tensor, nn

from kdzoo.core.batch import Batch, as_batch, n_samples
from kdzoo.core.frozen_teacher import FrozenTeacher
from kdzoo.core.loss_terms import RunningMeans


class EvaluationSteps(pl.LightningModule):
    """Base of the distillers that measures the loss terms on other splits and predicts with the student.

    ``trainer.validate`` and ``trainer.test`` log the mean of each term, such as ``val/soft`` and ``test/soft``, and the
    weighted sum ``val/loss`` and ``test/loss``. ``trainer.predict`` returns the student's outputs.
    """

    student: nn.Module
    frozen_teacher: FrozenTeacher
    loss_weights: dict[str, float]

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the named loss terms of one batch; see :meth:`kdzoo.Distiller.losses`."""

    @final
    def on_validation_epoch_start(self) -> None:
        """Start the means of the validation terms."""
        self._evaluation_means = RunningMeans()

    @final
    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Add the loss terms of one validation batch."""
        with self.frozen_teacher.using_cache("val"):
            self._add_terms(batch)

    @final
    def on_validation_epoch_end(self) -> None:
        """Log the mean of each term and their weighted sum over the validation split."""
        self._log_means("val")

    @final
    def on_test_epoch_start(self) -> None:
        """Start the means of the test terms."""
        self._evaluation_means = RunningMeans()

    @final
    def test_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Add the loss terms of one test batch."""
        self._add_terms(batch)

    @final
    def on_test_epoch_end(self) -> None:
        """Log the mean of each term and their weighted sum over the test split."""
        self._log_means("test")

    @final
    def predict_step(self, batch: Any, batch_idx: int) -> Any:  # noqa: ARG002 - Lightning's signature
        """Return the student's output for a batch."""
        return self.student(as_batch(batch)["input"])

    def _add_terms(self, batch: Any) -> None:
        batch = as_batch(batch)
        self._evaluation_means.add(self.losses(batch), n_samples(batch))

    def _log_means(self, split: str) -> None:
        means = self._evaluation_means.means()
        loss = sum(self.loss_weights.get(name, 1.0) * mean for name, mean in means.items())
        # The means are those over all ranks already; without sync_dist, Lightning warns that they may not be.
        self.log_dict(
            {**{f"{split}/{name}": mean for name, mean in means.items()}, f"{split}/loss": loss}, sync_dist=True
        )
