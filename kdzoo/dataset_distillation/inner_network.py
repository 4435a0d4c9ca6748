"""An inner network: a network and the distribution of its initial weights, many networks at once.

The networks that are trained on a synthetic set all have one architecture. Their weights are the rows of one matrix
[K, P], so that K trainings are one.
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
from kdzoo.errors import ConfigError
from kdzoo.functional.unroll import batched

HELD_OUT = 20
"""Networks of a pool that no training sees."""
_HELD_OUT_SEED = 20180411
_REMEDY = "call kdzoo.dataset_distillation.pool.train_pools first"


class InnerNetwork(nn.Module):
    """A network to be trained on a synthetic set, and where its weights start.

    Args:
        model: a classifier without batch normalisation; its weights are only a pattern, and it is used in eval mode.
        init: distribution of the initial weights: ``xavier`` or ``kaiming`` (uniform, biases 0), ``normal`` (all
            weights and biases), ``default`` (torch's own).
        mean: of ``normal``.
        std: deviation of ``normal``, >= 0.
        fixed: seed of the one initialisation that all networks start from; None draws a new one each time.
        pool: number of networks that are first trained on the real data, and of which one is drawn each time; 0 takes
            initial weights as they are drawn.
        pool_steps: steps of Adam by which a network of the pool is trained, >= 1.

    Raises:
        ConfigError: an argument is out of its range, or the model has batch normalisation.

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
        self._pattern = (
            model.eval().requires_grad_(False),
        )  # a tuple: its weights are no part of the inner network's state
        _refuse_statistics(model)
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
        self._is_batchable = True
        self.pool: Tensor | None = None
        """[pool_size, P], weights of trained networks; not saved."""
        self.evaluation_weights: Tensor | None
        """[HELD_OUT, P], trained in the same way and never drawn; 0 until then."""
        self.register_buffer("evaluation_weights", torch.zeros(HELD_OUT, self.n_weights) if self.pool_size else None)
        if self.fixed is not None and self.pool_size:
            raise ConfigError(f"fixed={fixed} and pool={pool} exclude each other: one start, or one of many")

    @property
    def n_weights(self) -> int:
        """The number of weights P of one network."""
        return sum(self._sizes)

    @property
    def model(self) -> nn.Module:
        """The network without weights of its own."""
        return self._pattern[0]

    @property
    def is_ready(self) -> bool:
        """Whether networks can be judged by; those of a pool must be trained or loaded first."""
        return self.evaluation_weights is None or bool(self.evaluation_weights.any())

    def set_pool(self, weights: Tensor) -> None:
        """Take trained networks [pool_size + HELD_OUT, P], the last of which are held out."""
        assert self.evaluation_weights is not None
        self.pool = weights[: self.pool_size]
        self.evaluation_weights.copy_(weights[self.pool_size :])

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return the weights [count, P] from which networks are trained while the set is learned; [1, P] if fixed.

        Raises:
            ConfigError: the networks come from a pool that has not been trained yet.
        """
        if self.fixed is not None:
            return self.initial.sample(1, torch.Generator().manual_seed(self.fixed))
        if not self.pool_size:
            return self.initial.sample(count, generator)
        if self.pool is None:
            raise ConfigError(f"the inner network's pool of {self.pool_size} networks is not trained; {_REMEDY}")
        return self.pool[torch.randint(self.pool_size, (count,), generator=generator)]

    def held_out(self, count: int = HELD_OUT, *, validation: bool = False) -> Tensor:
        """Return the weights [count, P] from which networks are trained to judge a set, the same at every call.

        They are at most ``HELD_OUT`` with a pool, and one with a fixed start. Those of the validation are others, but
        for a pool and a fixed start, which have no others.

        Raises:
            ConfigError: the networks come from a pool that is neither trained nor loaded.
        """
        if self.fixed is not None:
            return self.sample(1)
        if self.evaluation_weights is not None:
            if not self.is_ready:
                raise ConfigError(f"the held-out networks of a pool of {self.pool_size} are not trained; {_REMEDY}")
            return self.evaluation_weights[:count]
        return self.initial.sample(count, torch.Generator().manual_seed(_HELD_OUT_SEED + validation))

    def logits(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """Return the logits [K, b, C] of K networks, weights [K, P], for inputs [b, ...]."""
        if len(weights) > 1 and self._is_batchable:
            try:
                return batched(self._logits)(weights, inputs)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError) as error:
                said = torch.stack([self._logits(one, inputs) for one in weights])  # an error of the model itself again
                self._is_batchable = False
                reason = str(error).splitlines()[0]
                warnings.warn(f"{type(self.model).__name__} is trained one by one, more slowly: {reason}", stacklevel=2)
                return said
        return torch.stack([self._logits(one, inputs) for one in weights])

    def loss(self, weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropies of K networks, summed: each is a mean over images [M, ...], labels [M, C]."""
        log_probs = self.logits(weights, images).log_softmax(-1)
        return -(labels * log_probs).sum() / len(images)

    def state(self, weights: Tensor) -> dict[str, Tensor]:
        """Return the weights [P] of one network by name, as ``load_state_dict`` of its model takes them."""
        parts = weights.split(self._sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def _logits(self, weights: Tensor, inputs: Tensor) -> Any:
        return functional_call(self.model, self.state(weights), (inputs,))


def _refuse_statistics(model: nn.Module) -> None:
    """Refuse layers that keep running statistics: these are no function of the weights."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or getattr(module, "running_mean", None) is not None:
            raise ConfigError(
                f"the inner network {type(model).__name__} has {type(module).__name__} at {name!r}, whose statistics of "
                "batches make the gradient wrong; use group, layer or instance normalisation, or none"
            )
