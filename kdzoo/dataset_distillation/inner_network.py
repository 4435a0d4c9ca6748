"""An inner network: an architecture and the distribution of its initial weights, for many networks at once.

The networks that are trained on a synthetic set share one architecture. Their weights are the rows of one matrix
``[K, P]``, so that K trainings run as one batch.
"""

import copy
import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kdzoo.core import validation
from kdzoo.dataset_distillation.initial_weights import INITS, initial_distribution
from kdzoo.errors import ConfigError, KdzooWarning, first_line
from kdzoo.functional.unroll import vmap_networks

# Number of initial weights that are used for evaluation only. The standard error of a mean over 20 of them is about a
# quarter of their standard deviation, which is enough to distinguish sets that differ by one such deviation.
HELD_OUT = 20
# Seed of the held-out initial weights. Any constant would do that is unlike the small seeds of runs: a set must not be
# evaluated on the initial weights that it was learned from.
_HELD_OUT_SEED = 20180411
_REMEDY = "call kdzoo.dataset_distillation.pool.train_pools first"


class InnerNetwork(nn.Module):
    """A network to be trained on a synthetic set, with the distribution of its initial weights.

    The module does not hold any weights to train: each method takes or returns the weights of K networks as one matrix.

    Args:
        model: A classifier without batch normalisation. Only its structure is used, in eval mode; its weights are not.
        init: Distribution of the initial weights: ``xavier`` or ``kaiming`` (uniform, biases 0), ``normal`` (all
            weights and biases), ``default`` (torch's own).
        mean: Mean of ``normal``.
        std: Standard deviation of ``normal``, >= 0.
        fixed: Seed of one initialisation that all networks start from; None draws new initial weights each time.
        pool: Number of networks that are first trained on the real data, and of which one is drawn each time; 0 uses
            the initial weights as they are drawn.
        pool_steps: Steps of Adam by which a network of the pool is trained, >= 1.

    Raises:
        ConfigError: An argument is out of its range, the model has no parameters or batch normalisation, or both
            ``fixed`` and ``pool`` are given.

    Example:
        >>> inner_network = InnerNetwork(nn.Linear(4, 3))
        >>> weights = inner_network.sample(2)
        >>> weights.shape, inner_network.logits(weights, torch.zeros(5, 4)).shape
        (torch.Size([2, 15]), torch.Size([2, 5, 3]))
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        init: str = "xavier",
        mean: float = 0.0,
        std: float = 0.05,
        fixed: int | None = None,
        pool: int = 0,
        pool_steps: int = 300,
    ) -> None:
        super().__init__()
        model = copy.deepcopy(model)
        # In a tuple, because a module attribute would be registered as a submodule: its weights, which are never
        # used, would appear in the state dict and among the parameters.
        self._model = (model.eval().requires_grad_(False),)
        _reject_running_statistics(model)
        self._shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        self._sizes = [math.prod(shape) for shape in self._shapes.values()]
        if not self._sizes:
            raise ConfigError(f"the inner network {type(model).__name__} has no parameters to train")
        self.initial = initial_distribution(
            model,
            validation.choice("init", init, INITS),
            validation.number("mean", mean),
            validation.number("std", std, least=0.0),
        )
        self.fixed = None if fixed is None else validation.integer("fixed", fixed, least=0)
        self.pool_size = validation.integer("pool", pool, least=0)
        self.pool_steps = validation.integer("pool_steps", pool_steps)
        if self.fixed is not None and self.pool_size:
            raise ConfigError(f"fixed={fixed} and pool={pool} exclude each other: one start, or one of many")
        self._is_batchable = True  # until a call shows that vmap cannot trace the model
        # Trained networks [pool_size, P]. Not saved: they are needed only while the set is learned.
        self.pool: Tensor | None = None
        # Trained networks [HELD_OUT, P] that are never drawn for training, 0 until ``set_pool``. Saved, so that a
        # loaded set is evaluated on the same networks without the data that these were trained on.
        self.evaluation_weights: Tensor | None
        self.register_buffer("evaluation_weights", torch.zeros(HELD_OUT, self.n_weights) if self.pool_size else None)

    @property
    def n_weights(self) -> int:
        """The number of weights P of one network."""
        return sum(self._sizes)

    @property
    def model(self) -> nn.Module:
        """The model that defines the architecture; its own weights are not used."""
        return self._model[0]

    @property
    def is_ready(self) -> bool:
        """Whether there are held-out weights: always without a pool, otherwise once this is trained or loaded."""
        return self.evaluation_weights is None or bool(self.evaluation_weights.any())

    def set_pool(self, weights: Tensor) -> None:
        """Set the trained networks ``[pool_size + HELD_OUT, P]``, of which the last ``HELD_OUT`` are held out."""
        assert self.evaluation_weights is not None
        self.pool = weights[: self.pool_size]
        self.evaluation_weights.copy_(weights[self.pool_size :])

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the weights from which networks are trained while the set is learned.

        Args:
            count: Number of networks.
            generator: Source of random numbers; None uses torch's global one.

        Returns:
            Weights ``[count, P]``; with a fixed start ``[1, P]``, since all networks would be the same.

        Raises:
            ConfigError: The networks come from a pool that has not been trained yet.
        """
        if self.fixed is not None:
            return self.initial.sample(1, torch.Generator().manual_seed(self.fixed))
        if not self.pool_size:
            return self.initial.sample(count, generator)
        if self.pool is None:
            raise ConfigError(f"the inner network's pool of {self.pool_size} networks is not trained; {_REMEDY}")
        return self.pool[torch.randint(self.pool_size, (count,), generator=generator)]

    def held_out(self, count: int = HELD_OUT, *, validation: bool = False) -> Tensor:
        """Return the weights from which networks are trained to evaluate a set, the same at every call.

        Args:
            count: Number of networks; a pool holds at most ``HELD_OUT``.
            validation: Whether the weights are for validation during the training, which uses other ones than the
                test. A pool and a fixed start have no others and ignore it.

        Returns:
            Weights ``[count, P]``; ``[1, P]`` with a fixed start.

        Raises:
            ConfigError: The networks come from a pool that is neither trained nor loaded.
        """
        if self.fixed is not None:
            return self.sample(1)
        if self.evaluation_weights is not None:
            if not self.is_ready:
                raise ConfigError(f"the held-out networks of a pool of {self.pool_size} are not trained; {_REMEDY}")
            return self.evaluation_weights[:count]
        return self.initial.sample(count, torch.Generator().manual_seed(_HELD_OUT_SEED + validation))

    def logits(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """Return the logits ``[K, batch, C]`` of networks with weights ``[K, P]`` for inputs ``[batch, *in_shape]``.

        The networks are computed as one batch by ``torch.func.vmap``. A model that cannot be batched, for example
        because its control flow depends on its weights, is computed one network at a time, after a warning.
        """
        if len(weights) > 1 and self._is_batchable:
            try:
                return vmap_networks(self._single_logits)(weights, inputs)
            except torch.OutOfMemoryError:
                raise  # also a RuntimeError, but says nothing about whether the model can be batched
            except (RuntimeError, ValueError) as error:
                # First without vmap: an error of the model itself is raised again here, and without the warning.
                logits = self._logits_one_by_one(weights, inputs)
                self._is_batchable = False
                reason = first_line(error)
                name = type(self.model).__name__
                warnings.warn(f"{name} is trained one by one, more slowly: {reason}", KdzooWarning, stacklevel=2)
                return logits
        return self._logits_one_by_one(weights, inputs)

    def loss(self, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the sum over K networks of their mean cross entropies on images ``[M, *in_shape]``.

        It is a sum over the networks, so that the gradient of each network does not depend on K, and a mean over the
        examples. The labels ``[M, C]`` may be any real numbers.
        """
        log_probs = self.logits(weights, images).log_softmax(-1)
        return -(labels * log_probs).sum() / len(images)

    def state(self, weights: Tensor) -> dict[str, Tensor]:
        """Return the weights ``[P]`` of one network by name, as ``load_state_dict`` of its model takes them."""
        parts = weights.split(self._sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def _single_logits(self, weights: Tensor, inputs: Tensor) -> Any:
        """Return the logits ``[batch, C]`` of one network with weights ``[P]``."""
        return functional_call(self.model, self.state(weights), (inputs,))

    def _logits_one_by_one(self, weights: Tensor, inputs: Tensor) -> Tensor:
        return torch.stack([self._single_logits(network, inputs) for network in weights])


def _reject_running_statistics(model: nn.Module) -> None:
    """Reject layers that keep running statistics: these are not a function of the weights."""
    for name, module in model.named_modules():
        buffers = [buffer for buffer, _ in module.named_buffers(recurse=False)]
        # Batch normalisation without running statistics is rejected too: it uses those of the batch even in eval mode,
        # so that a prediction would depend on the other inputs of the same call.
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or "running_mean" in buffers:
            raise ConfigError(
                f"the inner network {type(model).__name__} has {type(module).__name__} at {name!r}, whose statistics "
                "of batches make the gradient wrong; use group, layer or instance normalisation, or none"
            )
