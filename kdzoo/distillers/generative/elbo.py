"""Training a directed graphical model on data: how teachers, and students that are taught by nobody, are made.

The terms are those of the model's negative evidence lower bound, by node: -log p(target | parents) for targets and
KL(posterior || prior) for latents (Kingma & Welling 2014, Auto-encoding variational Bayes, equation 3); a model that is
trained in another way, such as wake-sleep, says so in its own ``negative_elbo``.
"""

from typing import Any, ClassVar

import pytorch_lightning as pl
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, n_samples
from kdzoo.core.method_info import MethodInfo
from kdzoo.data.derived.noise import NoisyData, with_lengths
from kdzoo.distillers.generative.rollout import named, noise_in
from kdzoo.graphical_models import Graph


class ELBO(Distiller):
    """Maximise the evidence lower bound of the data, without a teacher.

    Args:
        student: the graphical model.
        teacher: is not used.
        warmup: share of the training in which the weight of the latents' terms grows from 0 to 1, in [0, 1].
        seed: of the noise, >= 0.
        **options: see :class:`kdzoo.Distiller`; the terms are named like the nodes.

    Raises:
        ConfigError: an argument is out of its range.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        paper="Kingma & Welling 2014, Auto-encoding variational Bayes, equation 3",
        bibtex="""@inproceedings{kingma2014auto,
  title     = {Auto-Encoding Variational {Bayes}},
  author    = {Kingma, Diederik P. and Welling, Max},
  booktitle = {International Conference on Learning Representations},
  year      = {2014},
}""",
        teacher="none",
        student_kinds=("graphical_model",),
        exempt={"compile": "the models are rolled out with noise, not called"},
    )
    student: Graph

    def __init__(
        self,
        student: Graph,
        teacher: nn.Module | None = None,  # noqa: ARG002 - every distiller takes one
        *,
        warmup: float = 0.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(student, None, **options)
        self.warmup = validation.number("warmup", warmup, 0.0, 1.0)
        self.seed = validation.integer("seed", seed, 0)

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return the data with the noise of the posteriors."""

        def draw(n: int, generator: Any) -> dict[str, Tensor]:
            return named(self.student.elbo_noise(n, generator=generator))

        return NoisyData(data, draw, noise_only=False, seed=self.seed)  # type: ignore[arg-type]

    def on_train_start(self) -> None:
        """Note in the model that its posteriors are trained."""
        self.student.posteriors_trained.fill_(True)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the negative bound, nats for each sample."""
        batch = with_lengths(batch)
        noise = noise_in(batch) or self.student.elbo_noise(n_samples(batch))
        terms = self.student.negative_elbo(batch, noise, batch.get("length"))
        share = self._warm()
        latents = self.student.latents()
        return {name: value * share if name in latents else value for name, value in terms.items()}

    def _warm(self) -> float:
        """Return the weight of the latents' terms at this step of the training."""
        if not (self.training and self.warmup and self._trainer is not None):
            return 1.0
        steps = float(self.trainer.estimated_stepping_batches)
        return min(1.0, self.trainer.global_step / (self.warmup * steps))
