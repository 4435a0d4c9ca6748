"""Training of a generator against a discriminator: how adversarial teachers and teacher-free baselines are made.

With noise z, generator G, discriminator D (a logit) and samples x of the data, the terms are, by the choice of ``form``
in :mod:`kdzoo.functional.adversarial`,

    generator   E l_G(D(G(z)))          generated   E l_g(D(G(z)))
    real        E l_r(D(x))             penalty     of the gradient of D, if there is one

The term ``generator`` trains G alone, the other three D alone (:mod:`kdzoo.core.two_players`). With a condition, both
players get the class of the sample x.

No gradient passes from D to a generator of discrete samples, which returns the logits of a distribution P(x | G(z)) of
independent values. Then it is estimated: with the reward R = -l_G(D(x)) of a sample x of P, the score function is

    grad E R = E_z E_{x ~ P(. | G(z))} R grad log P(x | G(z)).
"""

from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.batch import Batch, n_samples
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.two_players import TwoPlayerDistiller
from kdzoo.data.derived.noise import NoisyData
from kdzoo.distillers.generative.batch_noise import pack_noise, unpack_noise
from kdzoo.distillers.generative.estimators import make_estimator
from kdzoo.errors import ConfigError
from kdzoo.functional.adversarial import (
    FORMS,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    squared_gradient,
)
from kdzoo.graphical_models.discrete import leave_one_out, with_gradient
from kdzoo.models.gan import GAN

PENALTIES = ("none", "r1", "gradient")
ESTIMATORS = ("none", "straight_through", "gumbel", "reinforce")
# A discriminator that tells all samples apart says little about how to improve them. Its loss is below the first number
# then; one that is only ahead for a moment is not meant.
_WON_LOSS, _WON_EPOCHS = 0.01, 5
# Key of a batch: where between a real and a generated sample the gradient penalty looks.
_SHARES = "between"

ADVERSARIAL_EXEMPT = {
    "training": "the players have opposite losses, so that steps lower neither of them for long",
    "compile": "the models are rolled out with noise, not called",
}
"""Contract checks that cannot apply to a game of two players."""


class Adversarial(TwoPlayerDistiller):
    """Train a generator against its discriminator, without a teacher.

    Args:
        student: The generator with its discriminator.
        teacher: Is not used.
        form: Losses of the two players: ``non_saturating``, ``hinge``, ``least_squares`` or ``wasserstein``.
        penalty: Penalty on the discriminator's gradient: ``none``, ``r1`` (squared norm at real samples, Mescheder et
            al. 2018, whose weight is gamma / 2) or ``gradient`` (distance of the norm from 1 between real and generated
            samples, Gulrajani et al. 2017, whose weight is 10). One of them, or spectral normalisation, keeps the
            discriminator from winning.
        estimator: How the generator's gradient passes discrete samples: ``none`` (it does not, so that the generator
            learns nothing), ``straight_through``, ``gumbel`` (the discriminator sees relaxed samples) or ``reinforce``
            (the score function, unbiased, with the mean of the other samples of a noise as baseline). It has no effect
            on continuous samples.
        samples: Samples of each noise for ``reinforce``, >= 2.
        temperature: Temperature of ``gumbel``, > 0.
        seed: Seed of the noise, >= 0.
        **options: See :class:`kdzoo.core.two_players.TwoPlayerDistiller`; the terms are ``generator``, ``real``,
            ``generated`` and ``penalty``.

    Raises:
        ConfigError: An argument is out of its range, a loss without a bound has no penalty, ``reinforce`` is to train a
            generator of continuous samples, or the data have values that the generator cannot have.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"generator": 1.0, "real": 1.0, "generated": 1.0, "penalty": 0.5},
        paper="Goodfellow et al. 2014, Generative adversarial nets, algorithm 1",
        bibtex="""@inproceedings{goodfellow2014generative,
  title     = {Generative Adversarial Nets},
  author    = {Goodfellow, Ian and Pouget-Abadie, Jean and Mirza, Mehdi and Xu, Bing and Warde-Farley, David and
               Ozair, Sherjil and Courville, Aaron and Bengio, Yoshua},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2014},
}""",
        teacher="none",
        student_kinds=("adversarial",),
        contract_settings={"student.norm": None},  # a norm over a batch would make a micro-batch depend on the others
        exempt=ADVERSARIAL_EXEMPT,
    )
    student: GAN
    epochs_won: Tensor

    def __init__(
        self,
        student: GAN,
        teacher: nn.Module | None = None,  # noqa: ARG002 - every distiller takes one
        *,
        form: str = "non_saturating",
        penalty: str = "r1",
        estimator: str = "straight_through",
        samples: int = 4,
        temperature: float = 0.5,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(student, None, **options)
        self.form = validation.choice("form", form, FORMS)
        self.penalty = validation.choice("penalty", penalty, PENALTIES)
        if self.form == "wasserstein" and self.penalty == "none" and not student.discriminator.has_unit_norm:
            raise ConfigError(
                "form='wasserstein' has no bound, so that it needs a penalty or student.spectral_norm=true, "
                "got penalty='none'"
            )
        validation.choice("estimator", estimator, ESTIMATORS)
        self.estimator = make_estimator(estimator, temperature=temperature, samples=samples, divergence="kl")
        self.seed = validation.integer("seed", seed, 0)
        if estimator == "reinforce" and not student.is_discrete:
            raise ConfigError(
                "estimator='reinforce' needs discrete samples: student.output=bits or student.output=classes"
            )
        if estimator == "none" and student.is_discrete:
            self.notes["estimator"] = "no gradient reaches the generator, since its samples are discrete"
        self.register_buffer("epochs_won", torch.zeros((), dtype=torch.int64))  # in a row; part of the checkpoint

    def prepare(self, batch: Batch) -> None:
        """Reject data with values that the generator cannot have."""
        real = self._real(batch)
        if self.student.is_bounded and not bool(((real >= 0) & (real <= 1)).all()):
            raise ConfigError(
                f"the generator's output is 'sigmoid', with values in [0, 1], but the data have values from "
                f"{float(real.min()):.3g} to {float(real.max()):.3g}; set output=linear, or do not normalise the data"
            )

    def on_train_epoch_end(self) -> None:
        """Warn of a discriminator that has made no mistake on the validation split for several epochs."""
        losses = [self.trainer.callback_metrics.get(f"val/{name}") for name in ("real", "generated")]
        # The losses of a Wasserstein discriminator have no bound.
        if self.form == "wasserstein" or None in losses:
            return
        has_won = all(float(loss) < _WON_LOSS for loss in losses if loss is not None)
        self.epochs_won = (self.epochs_won + 1) * has_won
        if self.epochs_won >= _WON_EPOCHS:
            self.warnings["discriminator"] = (
                f"it has won: for {int(self.epochs_won)} epochs it has made no mistake on the validation split, which "
                "tells the generator little; try a penalty, spectral_norm, or a smaller opponent_lr"
            )
        else:
            self.warnings.pop("discriminator", None)

    def opponent(self) -> nn.Module:
        """Return the discriminator."""
        return self.student.discriminator

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return the data with noise for the generator and the penalty."""
        return NoisyData(data, self.draw_noise, noise_only=False, seed=self.seed)  # type: ignore[arg-type]

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return the random numbers of a step on n samples, as the tensors of a batch."""
        noise = self.student.noise(n, generator=generator)
        if (draws := self.estimator.samples) > 1:  # several samples of the same latent
            noise["image"] = self.student.noise(n * draws, generator=generator)["image"].unflatten(0, (n, draws))
        return {**pack_noise(noise), _SHARES: torch.rand(n, generator=generator)}

    def play(self, batch: Batch) -> Any:
        """Return generated samples of the batch's classes, ``[b, ...]``, or several of each noise as adjacent rows."""
        return self.student.samples(*self._rows(batch), sampler=self.estimator.sampler)

    def player_losses(self, batch: Batch, played: Any) -> dict[str, Tensor]:
        """Return the generator's loss."""
        noise, inputs = self._rows(batch)
        losses = self._by_sample(generator_loss(self.student.discriminate(played, inputs), form=self.form))
        if self.estimator.samples > 1:
            scores = self._by_sample(self.student.log_prob(played, noise, inputs))
            losses = with_gradient(losses, (losses - leave_one_out(losses)).detach() * scores)
        return {"generator": losses.mean(1)}

    def opponent_losses(self, batch: Batch, played: Any) -> dict[str, Tensor]:
        """Return the discriminator's losses on real and generated samples, and the penalty."""
        (_, inputs), generated, real = self._rows(batch), played.detach(), self._real(batch)
        real_loss, generated_loss = discriminator_loss(
            self.student.discriminate(real, self._inputs(batch)),
            self.student.discriminate(generated, inputs),
            form=self.form,
        )
        return {
            "real": real_loss,
            "generated": self._by_sample(generated_loss).mean(1),
            "penalty": self._penalty(batch, real, self._by_sample(generated)[:, 0]),
        }

    def _penalty(self, batch: Batch, real: Tensor, generated: Tensor) -> Tensor:
        """Return the chosen penalty, ``[b]``."""
        inputs = self._inputs(batch)

        def logits(samples: Tensor) -> Tensor:
            return self.student.discriminate(samples, inputs)

        match self.penalty:
            case "none":
                return real.new_zeros(len(real))
            case "r1":
                return squared_gradient(logits, real)
            case _:
                shares = batch.get(_SHARES)
                return gradient_penalty(logits, real, generated, torch.rand(len(real)) if shares is None else shares)

    def _noise(self, batch: Batch) -> dict[str, Tensor]:
        """Return the noise of the generated samples by node; new noise if the batch has none."""
        return unpack_noise(batch) or unpack_noise(self.draw_noise(n_samples(batch)))

    def _rows(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return noise and conditions by node with a row for each generated sample, ``[b * samples, ...]``."""
        noise = self._noise(batch)
        rows = self.estimator.repeat({name: value for name, value in noise.items() if name != "image"})
        if "image" in noise:
            rows["image"] = noise["image"].flatten(0, 1) if self.estimator.samples > 1 else noise["image"]
        return rows, self.estimator.repeat(self._inputs(batch))

    def _by_sample(self, values: Tensor) -> Tensor:
        """Return values of generated samples ``[b * samples, ...]`` as ``[b, samples, ...]``."""
        return values.unflatten(0, (-1, self.estimator.samples))

    def _real(self, batch: Batch) -> Tensor:
        """Return the batch's own samples, ``[b, ...]``."""
        return self.student.as_data(self.student.observed_targets(batch, {}))

    def _inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return the conditions of the batch's samples by node; empty without a condition."""
        return self.student.observed(batch, self.student.inputs())
