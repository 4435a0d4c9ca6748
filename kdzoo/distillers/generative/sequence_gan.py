r"""A language model trained against a discriminator by policy gradient (Yu et al. 2017, SeqGAN).

Strings are discrete, so that no gradient passes from the discriminator D to the generator. With a string y that the
student p generates, the gradient of its expected reward J = E D(y) is (equation 6 of the paper, with a baseline b)

    grad J = E sum_t (Q(y_1..y_t) - b(y_1..y_t-1)) grad log p(y_t | y_1..y_t-1)

where Q is the expected reward of a prefix, estimated by completing it k times, and D a probability. The training has
three parts: the student by maximum likelihood (term ``hard``), the discriminator alone on strings of the student
(``real``, ``generated``), and the game of both (``generator``, whose value is -D(y), ``baseline``).
"""

from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from kdzoo.core import validation
from kdzoo.core.abilities import TracesInParallel
from kdzoo.core.batch import Batch, labelled_selection, labels, n_samples
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.two_players import TwoPlayerDistiller
from kdzoo.data.derived.noise import NoisyData
from kdzoo.distillers.generative.adversarial import ADVERSARIAL_EXEMPT
from kdzoo.distillers.generative.batch_noise import pack_noise, unpack_noise
from kdzoo.errors import ConfigError
from kdzoo.functional import hard_target_ce
from kdzoo.functional.adversarial import discriminator_loss
from kdzoo.graphical_models.discrete import leave_one_out, with_gradient
from kdzoo.models.text_discriminator import TextDiscriminator
from kdzoo.text.generation import draw_strings, has_ended, prefix_rewards
from kdzoo.text.language_model import LanguageModel, Trace, stepwise_trace

BASELINES = ("none", "leave_one_out", "learned")


class SequenceGAN(TwoPlayerDistiller):
    """Train a language model by maximum likelihood, then against a discriminator by policy gradient.

    The student is an ordinary language model, and can be the teacher of other methods afterwards. Its dropout is off
    while it generates, but not while its weights learn, so that the gradient is exact only without dropout.

    Args:
        student: A language model.
        teacher: Is not used.
        max_length: Symbols of a generated string, its end included, >= 1; the discriminator sees as many of real ones.
        strings: Generated strings for each string of the batch, >= 1; at least 2 for ``leave_one_out``.
        rollouts: Completions of every prefix, >= 0. Without any, the reward of a prefix is that of its string, which
            takes a fraction of the time and has more variance.
        baseline: What is subtracted from rewards: ``none``, ``leave_one_out`` (the mean at the same position of the
            other strings that are generated for the string of the batch) or ``learned`` (a linear function of the
            student's hidden vector, trained by squared error).
        warmup: Share of the training in which the student learns by maximum likelihood, in [0, 1).
        discriminator_warmup: Share of the training after it in which the discriminator learns alone, in [0, 1). The
            game takes the rest.
        width: Width of the discriminator, see :class:`kdzoo.models.text_discriminator.TextDiscriminator`.
        opponent_steps: Steps of the discriminator for each step of the student in the game, >= 1.
        seed: Seed of the strings, >= 0.
        **options: See :class:`kdzoo.core.two_players.TwoPlayerDistiller`; the terms are ``hard``, ``generator``,
            ``baseline``, ``real`` and ``generated``.

    Raises:
        ConfigError: An argument is out of its range, the shares leave nothing for the game, or the student is not a
            language model.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"hard": 1.0, "generator": 1.0, "baseline": 1.0, "real": 1.0, "generated": 1.0},
        paper="Yu et al. 2017, SeqGAN, algorithm 1",
        bibtex="""@inproceedings{yu2017seqgan,
  title     = {{SeqGAN}: Sequence Generative Adversarial Nets with Policy Gradient},
  author    = {Yu, Lantao and Zhang, Weinan and Wang, Jun and Yu, Yong},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year      = {2017},
}""",
        teacher="none",
        student_kinds=("language_model",),
        # Six steps: one by maximum likelihood, one of the discriminator, and four of the game.
        contract_settings={
            "distiller.warmup": 0.17,
            "distiller.discriminator_warmup": 0.17,
            "distiller.opponent_steps": 1,
            "distiller.max_length": 8,
            "distiller.baseline": "learned",
        },
        exempt=ADVERSARIAL_EXEMPT,
    )
    student: Any

    def __init__(
        self,
        student: Any,
        teacher: nn.Module | None = None,  # noqa: ARG002 - every distiller takes one
        *,
        max_length: int = 20,
        strings: int = 2,
        rollouts: int = 4,
        baseline: str = "leave_one_out",
        warmup: float = 0.7,
        discriminator_warmup: float = 0.1,
        width: int = 32,
        opponent_steps: int = 5,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(student, None, opponent_steps=opponent_steps, **options)
        if not isinstance(student, LanguageModel):
            raise ConfigError(f"SequenceGAN needs a language model as student, got {type(student).__name__}")
        self.max_length = validation.integer("max_length", max_length)
        self.baseline = validation.choice("baseline", baseline, BASELINES)
        self.strings = validation.integer("strings", strings, 2 if baseline == "leave_one_out" else 1)
        self.rollouts = validation.integer("rollouts", rollouts, 0)
        self.warmup = validation.number("warmup", warmup, 0.0, 1.0)
        self.discriminator_warmup = validation.number("discriminator_warmup", discriminator_warmup, 0.0, 1.0)
        if self.warmup + self.discriminator_warmup >= 1:
            raise ConfigError(
                f"warmup + discriminator_warmup must be below 1, which leaves steps for the game, got "
                f"{self.warmup} + {self.discriminator_warmup}"
            )
        self.seed = validation.integer("seed", seed, 0)
        self.end = student.vocab_size - 1
        self.discriminator = TextDiscriminator(vocab_size=student.vocab_size, width=width)
        self.value: nn.Linear | None = None
        if baseline != "learned":
            self.loss_weights["baseline"] = 0.0

    def prepare(self, batch: Batch) -> None:
        """Build the network of a learned baseline, whose size is that of the student's hidden vectors."""
        if self.baseline == "learned" and self.value is None:
            self.value = nn.Linear(self._trace(batch["input"]).hidden.shape[-1], 1).to(self.device)

    def opponent(self) -> nn.Module:
        """Return the discriminator."""
        return self.discriminator

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return the data with the noise of the generated strings and of the rollouts."""
        return NoisyData(data, self.draw_noise, noise_only=False, seed=self.seed)  # type: ignore[arg-type]

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return the uniform numbers of a step on n strings, as the tensors of a batch."""
        shape = (n, self.strings)
        return pack_noise(
            {
                "strings": torch.rand(*shape, self.max_length, generator=generator),
                "rollouts": torch.rand(*shape, self.rollouts, self.max_length, generator=generator),
            }
        )

    # ---------------------------------------------------------------- the parts of the training

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the present part of the training; outside of it those of all parts."""
        if not self._is_training():
            return self._likelihood(batch) | super().losses(batch)
        return self.reaching_all(self._likelihood(batch)) if self._is_warming_up() else super().losses(batch)

    def resting_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of all networks but the student during its warm-up, and of the player as it rests."""
        if not self._is_warming_up():
            return super().resting_parameters()
        learning = {id(parameter) for parameter in self.student.parameters()}
        return [parameter for parameter in self.trainable_parameters() if id(parameter) not in learning]

    def on_train_start(self) -> None:
        """Note a training that is too short for the student's steps in the game."""
        steps = int(self.trainer.estimated_stepping_batches)
        first = round((self.warmup + self.discriminator_warmup) * steps)
        if all(step % self.opponent_steps != self.opponent_steps - 1 for step in range(first, steps)):
            self.notes["game"] = f"the training has {steps} steps, too few for a step of the student in the game"

    def _is_training(self) -> bool:
        return self.training and self._trainer is not None

    def _is_warming_up(self) -> bool:
        """Return whether the student learns by maximum likelihood in this step."""
        return self._is_training() and self.trainer.global_step < self._steps(self.warmup)

    def _is_opponents_turn(self) -> bool:
        """Return whether the discriminator learns alone: in its warm-up, and in all but some steps of the game."""
        if not self._is_training() or self._is_warming_up():
            return False
        warms_up = self.trainer.global_step < self._steps(self.warmup + self.discriminator_warmup)
        return warms_up or super()._is_opponents_turn()

    def _steps(self, share: float) -> int:
        return round(share * float(self.trainer.estimated_stepping_batches))

    # ---------------------------------------------------------------- the terms

    def _likelihood(self, batch: Batch) -> dict[str, Tensor]:
        labelled = labelled_selection(batch)
        return {"hard": hard_target_ce(self.student(batch["input"])[labelled], labels(batch))}

    def play(self, batch: Batch) -> Tensor:
        """Return strings that the student generates, int64 ``[b * strings, max_length]``."""
        return draw_strings(self.student, self._noise(batch)["strings"].flatten(0, 1))

    def player_losses(self, batch: Batch, played: Tensor) -> dict[str, Tensor]:
        """Return the negative rewards, with the policy gradient, and the squared error of a learned baseline."""
        begin = torch.full_like(played[:, :1], self.end)
        traced = self._trace(torch.cat([begin, played[:, :-1]], 1))
        is_over = has_ended(self.student, played)
        scores = traced.log_probs.gather(-1, played[..., None]).squeeze(-1).masked_fill(is_over, 0.0)
        rewards = self._rewards(batch, played)
        terms, baseline = {}, torch.zeros_like(rewards)
        if self.baseline == "leave_one_out":
            baseline = leave_one_out(self._by_sample(rewards)).flatten(0, 1)
        elif self.value is not None:
            expected = self.value(traced.hidden.detach()).squeeze(-1)
            error = (expected - rewards).square().masked_fill(is_over, 0.0).sum(1) / (~is_over).sum(1)
            terms["baseline"], baseline = self._by_sample(error).mean(1), expected.detach()
        negative_rewards = with_gradient(-rewards[:, -1], ((baseline - rewards) * scores).sum(1))
        return {"generator": self._by_sample(negative_rewards).mean(1), **terms}

    def opponent_losses(self, batch: Batch, played: Tensor) -> dict[str, Tensor]:
        """Return the discriminator's cross entropies on real and on generated strings."""
        real = pad(batch["input"][:, 1 : self.max_length + 1], (0, self.max_length), value=self.end)
        logits = [self.discriminator(strings) for strings in (real[:, : self.max_length], played)]
        real_loss, generated_loss = discriminator_loss(*logits)
        return {"real": real_loss, "generated": self._by_sample(generated_loss).mean(1)}

    def _rewards(self, batch: Batch, played: Tensor) -> Tensor:
        """Return the estimated reward of every prefix of generated strings, ``[b * strings, max_length]``."""

        def reward(strings: Tensor) -> Tensor:
            return self.discriminator(strings).sigmoid().detach()

        # In validation nothing learns from the rewards of prefixes.
        if self.rollouts and (self.training or self._trainer is None):
            return prefix_rewards(self.student, played, self._noise(batch)["rollouts"].flatten(0, 1), reward)
        return reward(played)[:, None].expand(-1, self.max_length)

    def _noise(self, batch: Batch) -> dict[str, Tensor]:
        """Return the noise of a batch by purpose; new noise if it has none."""
        noise = unpack_noise(batch) or unpack_noise(self.draw_noise(n_samples(batch)))
        return {name: value.to(batch["input"].device) for name, value in noise.items()}

    def _by_sample(self, values: Tensor) -> Tensor:
        """Return values of generated strings ``[b * strings, ...]`` as ``[b, strings, ...]``."""
        return values.unflatten(0, (-1, self.strings))

    def _trace(self, input: Tensor) -> Trace:
        """Return hidden vectors and log-probabilities of the student, with gradients."""
        student = self.student
        return student.trace(input) if isinstance(student, TracesInParallel) else stepwise_trace(student, input)
