"""Training of a directed graphical model on data: how teachers and teacher-free baselines are made.

The terms are those of the model's negative evidence lower bound, by node: -log p(target | parents) for targets and
KL(posterior || prior) for latents (Kingma & Welling 2014, Auto-encoding variational Bayes, equation 3). A model that is
trained in another way, such as by wake-sleep, overrides its own ``negative_elbo``.
"""

from typing import Any, ClassVar

import pytorch_lightning as pl
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch, n_samples
from kdzoo.core.method_info import MethodInfo
from kdzoo.data.derived.noise import NoisyData, with_lengths
from kdzoo.distillers.generative.batch_noise import pack_noise, unpack_noise
from kdzoo.distillers.generative.progress import elapsed_share
from kdzoo.graphical_models import Graph


class ELBO(Distiller):
    """Maximise the evidence lower bound of the data, without a teacher.

    Args:
        student: The graphical model.
        teacher: Is not used.
        warmup: Share of the training in which the weight of the latents' terms grows linearly from 0 to 1, in [0, 1].
            Without it the upper latents of a hierarchy are easily left unused; 0.5 is the choice of Chen et al. 2023.
        free_bits: Nats of each latent's KL that cost nothing in training, finite and >= 0: the term of a latent is
            max(free_bits, KL) for each sample. Kingma et al. 2016 (appendix C.8) take the maximum of the mean over a
            batch instead, which micro-batches and several processes could not compute apart.
        seed: Seed of the noise, >= 0.
        **options: See :class:`kdzoo.Distiller`; the terms have the names of the nodes.

    Raises:
        ConfigError: If an argument is out of its range.
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
        free_bits: float = 0.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(student, None, **options)
        self.warmup = validation.number("warmup", warmup, 0.0, 1.0)
        self.free_bits = validation.number("free_bits", free_bits, 0.0)
        self.seed = validation.integer("seed", seed, 0)

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return the data with the noise of the posteriors."""

        def draw(n: int, generator: Any) -> dict[str, Tensor]:
            return pack_noise(self.student.elbo_noise(n, generator=generator))

        return NoisyData(data, draw, noise_only=False, seed=self.seed)  # type: ignore[arg-type]

    def on_train_start(self) -> None:
        """Note in the model that its posteriors are trained, if it has any."""
        nodes = self.student.latents().values()
        self.student.posteriors_trained.fill_(any(node.posterior is not None for node in nodes))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the negative evidence lower bound, in nats for each sample."""
        batch = with_lengths(batch)
        noise = unpack_noise(batch) or self.student.elbo_noise(n_samples(batch))
        terms = self.student.negative_elbo(batch, noise, batch.get("length"))
        latents = self.student.latents().keys() & terms.keys()
        return {name: self._in_training(value) if name in latents else value for name, value in terms.items()}

    def _in_training(self, term: Tensor) -> Tensor:
        """Return the term of a latent as the training weights it; outside of training it stays that of the bound."""
        free = term.clamp_min(self.free_bits) if self.training else term
        # The factor is in the terms, not in ``loss_weights``, because it changes from step to step.
        return elapsed_share(self, self.warmup) * free
