"""The base class of methods in which two players train against each other, such as a generator and a discriminator.

Each loss term belongs to one player and reaches the weights of that player alone. One backward pass then gives the
gradients of both players, and one optimizer with a group of parameters for each of them makes both steps. That is the
simultaneous gradient method; it is one ordinary step, so that micro-batches, several ranks, exact resume, schedules and
signals work as for every other method. (Lightning's manual optimization with an optimizer for each player supports none
of the first two: data parallelism averages the gradients of one backward pass in each step.)
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.base import Distiller, ParameterGroup
from kdzoo.core.batch import Batch


class TwoPlayerDistiller(Distiller):
    """Base class of every method in which an opponent learns beside the student.

    The player is the student, or what of it is not the opponent. A method implements ``opponent``, ``play``,
    ``player_losses`` and ``opponent_losses``. In ``player_losses`` the opponent's weights are constants; in
    ``opponent_losses`` no gradient reaches the player, whose outputs are detached.

    Args:
        student: The module that learns, or the part of it that is not the opponent.
        teacher: The module to distil; None for methods without one.
        opponent_lr: Learning rate of the opponent as a factor on the optimizer's, > 0.
        opponent_steps: Steps of the opponent for each step of the player, >= 1. In the steps between, the player's
            losses are not computed.
        **options: See :class:`kdzoo.Distiller`.

    Raises:
        ConfigError: An argument is out of its range.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None = None,
        *,
        opponent_lr: float = 1.0,
        opponent_steps: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        self.opponent_lr = validation.positive("opponent_lr", opponent_lr)
        self.opponent_steps = validation.integer("opponent_steps", opponent_steps)

    @abstractmethod
    def opponent(self) -> nn.Module:
        """Return the opponent: a submodule of the student or of the distiller."""

    @abstractmethod
    def play(self, batch: Batch) -> Any:
        """Return what the losses of both sides are computed from, such as the generated samples, with gradients."""

    @abstractmethod
    def player_losses(self, batch: Batch, played: Any) -> dict[str, Tensor]:
        """Return the player's loss terms, as ``losses`` does; the opponent's weights are constants in them."""

    @abstractmethod
    def opponent_losses(self, batch: Batch, played: Any) -> dict[str, Tensor]:
        """Return the opponent's loss terms, as ``losses`` does; they must not reach the player's weights."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of both players, or of the opponent alone where it is its turn."""
        if not self._is_opponents_turn():
            played = self.play(batch)
            with constant(self.opponent()):
                terms = self.player_losses(batch, played)
            return terms | self.opponent_losses(batch, played)
        with torch.no_grad():
            played = self.play(batch)
        return self.reaching_all(self.opponent_losses(batch, played))

    def trainable(self) -> Iterator[nn.Parameter | ParameterGroup]:
        """Yield the player's parameters and the opponent's as two groups."""
        parameters = [parameter for parameter in super().trainable() if isinstance(parameter, nn.Parameter)]
        opponents = {id(parameter) for parameter in self.opponent().parameters()}
        yield {"params": [p for p in parameters if id(p) not in opponents], "lr_scale": 1.0}
        yield {"params": [p for p in parameters if id(p) in opponents], "lr_scale": self.opponent_lr}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of each side by itself: a large gradient of one must not shrink the other's step."""
        if gradient_clip_val is None:
            return
        clip = nn.utils.clip_grad_value_ if gradient_clip_algorithm == "value" else nn.utils.clip_grad_norm_
        for group in optimizer.param_groups:
            clip(group["params"], gradient_clip_val)

    def resting_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that this step leaves as they are: the player's where it is the opponent's turn."""
        if not self._is_opponents_turn():
            return []
        player, _ = self.trainable()
        assert not isinstance(player, nn.Parameter)
        return player["params"]

    @final
    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002
        """Leave resting weights and their momentum alone."""
        for parameter in self.resting_parameters():
            parameter.grad = None

    @final
    def reaching_all(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the same terms, which between several ranks also depend on the resting weights, with gradient 0."""
        # torch's data parallelism waits for the gradient of every parameter in every step.
        if self.trainer.world_size == 1:
            return terms
        nothing = torch.stack([parameter.sum() for parameter in self.resting_parameters()]).sum() * 0
        return {name: value + nothing for name, value in terms.items()}

    def _is_opponents_turn(self) -> bool:
        """Return whether this step is one of the opponent alone; never outside of the training."""
        if self.opponent_steps == 1 or not self.training or self._trainer is None:
            return False
        # The player moves in the last of these steps, when the opponent has adapted to it.
        return self.trainer.global_step % self.opponent_steps != self.opponent_steps - 1


@contextmanager
def constant(module: nn.Module) -> Iterator[None]:
    """Within this context, calls of a module record no gradients for its parameters, but do for its inputs."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
