"""The networks that are trained on a synthetic set while it is learned: how many, from where, how long and how."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.randomness import mix_seed
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.functional.unroll import ENGINES, Adam, choose

BUDGET = 2**30
"""Bytes that the graphs of all inner_networks may keep, by which the engine is chosen."""


class InnerTraining:
    """Networks trained on a synthetic set, as functions of its examples and step sizes.

    Args:
        few: the set.
        inits: networks K of each inner network, >= 1.
        lengths: [least, most]: the number of steps is drawn from these, inclusive; None takes the set's own.
        adam_share: share of the draws, in [0, 1), in which the networks are trained by Adam at one rate, whatever the
            set's own schedule.
        adam_rates: [least, most] of that rate, > 0, log-uniform.
        window: the gradient goes back through the last so many steps only, >= 1; None takes all of them.
        engine: one of ``ENGINES``, or ``auto``.
        seed: of initial weights and lengths, >= 0.
        notes: where the automatic choice says why it was made, by subject.

    Raises:
        ConfigError: an argument is out of its range.
    """

    def __init__(
        self,
        few: SyntheticSet,
        *,
        inits: int,
        lengths: Sequence[int] | None,
        adam_share: float,
        adam_rates: Sequence[float],
        window: int | None,
        engine: str,
        seed: int,
        notes: dict[str, str],
    ) -> None:
        self.few, self.notes = few, notes
        self.inits = validation.integer("inits", inits)
        self.lengths = (
            (few.steps, few.steps) if lengths is None else validation.interval("lengths", lengths, validation.integer)
        )
        self.adam_share = validation.probability("adam_share", adam_share)
        self.adam_rates = validation.interval("adam_rates", adam_rates, validation.positive)
        self.window = None if window is None else validation.integer("window", window)
        if self.window is not None and self.window > self.lengths[0]:
            raise ConfigError(
                f"window must be at most the least number of inner steps, {self.lengths[0]}, got {window}"
            )
        self.engine = validation.choice("engine", engine, ("auto", *ENGINES))
        self.seed = validation.integer("seed", seed, 0)
        self._chosen: dict[str, str] = {}
        self._judged: tuple[tuple[int, ...], dict[str, Tensor]] | None = None

    def train_sampled(self, step: int) -> dict[str, Tensor]:
        """Return networks [K, P] of each inner network with the set's gradient; all draws are functions of seed and step."""
        generator = torch.Generator().manual_seed(mix_seed(self.seed, step))
        steps = int(torch.randint(self.lengths[0], self.lengths[1] + 1, (), generator=generator))
        schedule = self._schedule(steps, generator)
        found = {}
        for name, inner_network in self.few.inner_networks.items():
            weights = inner_network.sample(self.inits, generator).to(self.few.images)
            options = {"engine": self.engine_for(name, weights), "window": self.window, **schedule}
            found[name] = self._trained(name, weights, steps, **options)
        return found

    def train_held_out(self, step: int, count: int, *, dry_run: bool = False) -> dict[str, Tensor]:
        """Return networks [count, P] from held-out weights by the set's own schedule, trained once a state of it.

        A rehearsal comes before pools are trained, and does without.
        """
        state = (step, *(parameter._version for parameter in self.few.parameters()))
        if self._judged is None or self._judged[0] != state:
            found = {}
            for name, inner_network in self.few.inner_networks.items():
                untrained = dry_run and not inner_network.is_ready
                begin = inner_network.initial.sample(1) if untrained else inner_network.held_out(count, validation=True)
                found[name] = self._trained(name, begin.to(self.few.images))
            self._judged = (state, found)
        return self._judged[1]

    def check_twice_differentiable(self) -> None:
        """Take the gradient of one step on the set for each inner network.

        Raises:
            ConfigError: an inner network's loss is not twice differentiable.
        """
        with torch.enable_grad():
            for name, inner_network in self.few.inner_networks.items():
                begin = inner_network.initial.sample(1).to(self.few.images)
                engine = "full" if self.engine == "auto" else self.engine
                end = self.few.train_networks(name, begin, 1, engine=engine)
                torch.autograd.grad(end.sum(), self.few.images)

    def engine_for(self, name: str, weights: Tensor) -> str:
        """Return the engine for an inner network; the automatic choice is made once, and says why."""
        if self.engine != "auto":
            return self.engine
        if name not in self._chosen:
            few, steps = self.few, self.window or self.lengths[1]
            optimizer = Adam() if self.adam_share else few.optimizer  # whose state is the larger one
            budget = BUDGET // len(few.inner_networks)
            choice = choose(few.inner_networks[name].loss, weights, few.images, few.labels, steps, optimizer, budget)
            self._chosen[name] = choice.engine
            self.notes[f"engine of {name}"] = choice.reason
        return self._chosen[name]

    def _trained(self, name: str, weights: Tensor, *args: Any, **options: Any) -> Tensor:
        """Return trained networks, or name the inner network whose networks diverged."""
        try:
            return self.few.train_networks(name, weights, *args, **options)
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f"inner network.{name}: {error}") from error

    def _schedule(self, steps: int, generator: torch.Generator) -> dict[str, Any]:
        """Return optimizer and step sizes of a training by Adam, or nothing for the set's own schedule."""
        if not self.adam_share:
            return {}
        chance, place = torch.rand(2, generator=generator).tolist()
        if chance >= self.adam_share:
            return {}
        least, most = self.adam_rates
        rate = least * (most / least) ** place
        return {"optimizer": Adam(), "step_sizes": torch.full((steps,), rate).to(self.few.images)}
