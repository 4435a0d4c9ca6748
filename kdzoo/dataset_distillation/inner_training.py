"""The training of networks on a synthetic set while this is learned: how many, from where, how long and how."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.randomness import mix_seed
from kdzoo.dataset_distillation.synthetic_set import SyntheticSet
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.functional.unroll import ENGINES, Adam, choose_engine

# Bytes that the graphs of all inner networks together may keep, by which the automatic choice takes an engine. 1 GiB
# leaves room for data and activations on a machine of a few GiB; a larger budget takes the fastest engine more often.
MEMORY_BUDGET = 2**30


class InnerTraining:
    """Networks trained on a synthetic set, as differentiable functions of its examples and step sizes.

    Args:
        synthetic_set: The set.
        inits: Number K of networks of each inner network, >= 1.
        lengths: ``[least, most]``: the number of steps is drawn uniformly from these, both included; None always
            takes the number of the set.
        adam_share: Probability in [0, 1) with which the networks of a draw are trained by Adam at one step size instead
            of the set's own schedule.
        adam_rates: ``[least, most]`` of Adam's step size, > 0, drawn log-uniformly.
        window: The gradient goes back through this many last steps only, >= 1; None takes all of them.
        engine: One of ``kdzoo.functional.unroll.ENGINES``, or ``auto``.
        seed: Seed of initial weights and lengths, >= 0.
        notes: Dictionary to which the automatic choice of an engine adds its reason, by subject.

    Raises:
        ConfigError: An argument is out of its range.
    """

    def __init__(
        self,
        synthetic_set: SyntheticSet,
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
        self.synthetic_set, self.notes = synthetic_set, notes
        self.inits = validation.integer("inits", inits)
        lengths = (synthetic_set.steps, synthetic_set.steps) if lengths is None else lengths
        self.lengths = validation.interval("lengths", lengths, validation.integer)
        self.adam_share = validation.probability("adam_share", adam_share)
        self.adam_rates = validation.interval("adam_rates", adam_rates, validation.positive)
        self.window = None if window is None else validation.integer("window", window)
        if self.window is not None and self.window > self.lengths[0]:
            raise ConfigError(
                f"window must be at most the smallest number of inner steps, {self.lengths[0]}, got {window}"
            )
        self.engine = validation.choice("engine", engine, ("auto", *ENGINES))
        self.seed = validation.integer("seed", seed, 0)
        self._chosen_engines: dict[str, str] = {}
        self._evaluated: tuple[tuple[int, ...], dict[str, Tensor]] | None = None

    def train_sampled(self, step: int) -> dict[str, Tensor]:
        """Train newly sampled networks, with the graph that leads back to the set.

        Args:
            step: Number of the optimizer step. All random draws are a function of it and of the seed, so that a
                resumed run, and every part of a batch that is split for memory, sees the same networks.

        Returns:
            Weights ``[K, P]`` by the name of the inner network; ``[1, P]`` of one with a fixed start.

        Raises:
            NonFiniteLossError: A training diverged.
        """
        generator = torch.Generator().manual_seed(mix_seed(self.seed, step))
        steps = int(torch.randint(self.lengths[0], self.lengths[1] + 1, (), generator=generator))
        schedule = self._schedule(steps, generator)
        result = {}
        for name, inner_network in self.synthetic_set.inner_networks.items():
            weights = inner_network.sample(self.inits, generator).to(self.synthetic_set.images)
            options = {"engine": self.engine_for(name, weights), "window": self.window, **schedule}
            result[name] = self._train(name, weights, steps, **options)
        return result

    def train_held_out(self, step: int, count: int, *, dry_run: bool = False) -> dict[str, Tensor]:
        """Train networks from held-out weights by the set's own schedule, once for each state of the set.

        Args:
            step: Number of the optimizer step, a part of the cache key.
            count: Number of networks of each inner network.
            dry_run: Whether pools may be untrained still; random initial weights then stand in for theirs.

        Returns:
            Weights ``[count, P]`` by the name of the inner network.

        Raises:
            NonFiniteLossError: A training diverged.
        """
        # Validation calls this once for each batch, but the set changes only between epochs. The version counter of a
        # tensor grows with each change in place, such as an optimizer step or a projection.
        state = (step, *(parameter._version for parameter in self.synthetic_set.parameters()))
        if self._evaluated is None or self._evaluated[0] != state:
            result = {}
            for name, inner_network in self.synthetic_set.inner_networks.items():
                if dry_run and not inner_network.is_ready:
                    initial = inner_network.initial.sample(1)
                else:
                    initial = inner_network.held_out(count, validation=True)
                result[name] = self._train(name, initial.to(self.synthetic_set.images))
            self._evaluated = (state, result)
        return self._evaluated[1]

    def check_twice_differentiable(self) -> None:
        """Differentiate one step on the set for each inner network.

        The step contains the gradient of the inner loss; its derivative with respect to the images is a second
        derivative, which custom operations often lack.

        Raises:
            ConfigError: The loss of an inner network is not twice differentiable.
        """
        with torch.enable_grad():  # a dry run is called under no_grad
            for name, inner_network in self.synthetic_set.inner_networks.items():
                initial = inner_network.initial.sample(1).to(self.synthetic_set.images)
                engine = "full" if self.engine == "auto" else self.engine
                weights = self.synthetic_set.train_networks(name, initial, 1, engine=engine)
                torch.autograd.grad(weights.sum(), self.synthetic_set.images)

    def engine_for(self, name: str, weights: Tensor) -> str:
        """Return the engine for an inner network; the automatic choice is made once and notes its reason.

        Args:
            name: Name of the inner network.
            weights: Weights ``[K, P]`` of its networks, from which the memory of a step is measured.
        """
        if self.engine != "auto":
            return self.engine
        if name not in self._chosen_engines:
            synthetic_set, steps = self.synthetic_set, self.window or self.lengths[1]
            # The state of Adam is three times as large as that of SGD: where both occur, the memory must do for it.
            optimizer = Adam() if self.adam_share else synthetic_set.optimizer
            choice = choose_engine(
                synthetic_set.inner_networks[name].loss,
                weights,
                synthetic_set.images,
                synthetic_set.labels,
                steps,
                optimizer,
                MEMORY_BUDGET // len(synthetic_set.inner_networks),  # their graphs exist at the same time
            )
            self._chosen_engines[name] = choice.engine
            self.notes[f"engine of {name}"] = choice.reason
        return self._chosen_engines[name]

    def _train(self, name: str, weights: Tensor, *args: Any, **options: Any) -> Tensor:
        """Return trained networks, or name the inner network whose networks diverged."""
        try:
            return self.synthetic_set.train_networks(name, weights, *args, **options)
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f"inner_network.{name}: {error}") from error

    def _schedule(self, steps: int, generator: torch.Generator) -> dict[str, Any]:
        """Return optimizer and step sizes of a training by Adam, or nothing for the set's own schedule."""
        if not self.adam_share:
            return {}
        # Both numbers are drawn in either case, so that the draws that follow do not depend on the outcome.
        chance, position = torch.rand(2, generator=generator).tolist()
        if chance >= self.adam_share:
            return {}
        least, most = self.adam_rates
        rate = least * (most / least) ** position  # log-uniform: each order of magnitude is as likely as another
        return {"optimizer": Adam(), "step_sizes": torch.full((steps,), rate).to(self.synthetic_set.images)}
