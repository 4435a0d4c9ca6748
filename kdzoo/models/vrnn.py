"""Variational recurrent networks: models of sequences with one latent per step.

Chung et al. 2015, "A recurrent latent variable model for sequential data", equations 5 to 11. Notation: step t, value
x_t, latent z_t, features phi_x(x_t) and phi_z(z_t) ``[width]``, output h_t ``[hidden]`` of an LSTM. Each MLP has two
hidden ReLU layers of ``width`` units:

    prior      z_t ~ N(mlp(h_{t-1}))                    equation 5
    decoder    x_t ~ family(mlp(phi_z(z_t), h_{t-1}))   equation 6
    state      h_t = LSTM(phi_x(x_t), phi_z(z_t))       equation 7
    posterior  z_t ~ N(mlp(h_{t-1}, phi_x(x_t)))        equation 9

A deviation is softplus(raw) / ln 2 + 1e-6. If all x are given, phi_x, its product with the LSTM's weights and the
decoder are computed for all steps in one call. So is the prior if latents are inferred.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.graphical_models import (
    LSTM,
    STATE,
    Bernoulli,
    Family,
    GateInput,
    Graph,
    Hidden,
    Latent,
    Normal,
    Scan,
    Target,
)
from kdzoo.graphical_models.nodes import Source


class HiddenLayers(nn.Sequential):
    """Two hidden ReLU layers on concatenated values, optionally followed by a linear layer.

    Args:
        size: Total size of the values.
        width: Units of both hidden layers.
        raw: Size of the result of the linear layer; 0: there is no linear layer.
    """

    def __init__(self, size: int, width: int, raw: int = 0) -> None:
        hidden = [nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        super().__init__(*hidden, *([nn.Linear(width, raw)] if raw else []))

    def forward(self, *values: Tensor) -> Tensor:
        """Return ``[n, width]``, or ``[n, raw]`` with a linear layer, for values ``[n, size_i]``."""
        return super().forward(torch.cat(values, -1) if len(values) > 1 else values[0])


class VRNN(Graph):
    """The graph that all variational recurrent networks share; subclasses define the observed values.

    The nodes of a step, in order, are ``z``, ``z_features``, ``decoder``, the targets, ``x_features`` and
    ``gate_input``.

    Args:
        observed: Family and source of each target by name; x_t is the concatenation of their values.
        steps: Number of steps T, >= 1.
        latents: Size of z_t, >= 1.
        width: Units of each hidden layer, >= 1.
        hidden: Units of the LSTM, >= 1.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self, observed: Mapping[str, tuple[Family, Source]], *, steps: int, latents: int, width: int, hidden: int
    ) -> None:
        width, hidden = validation.integer("width", width), validation.integer("hidden", hidden)
        # A diagonal normal latent with learned deviation in both prior and posterior (equations 5 and 9).
        z = Normal((validation.integer("latents", latents),))
        sizes = {name: family.shape[0] for name, (family, _) in observed.items()}
        nodes = [
            Latent(
                "z",
                z,
                HiddenLayers(hidden, width, z.raw_shape[0]),
                STATE,
                posterior=HiddenLayers(hidden + width, width, z.raw_shape[0]),
                posterior_parents=(STATE, "x_features"),
            ),
            Hidden("z_features", HiddenLayers(latents, width), "z"),
            Hidden("decoder", HiddenLayers(width + hidden, width), ("z_features", STATE)),
            *(
                Target(name, family, nn.Linear(width, family.raw_shape[0]), "decoder", source)
                for name, (family, source) in observed.items()
            ),
            # phi_x and its product with the LSTM's weights are nodes, so that teacher forcing computes both for all
            # steps before the loop.
            Hidden("x_features", HiddenLayers(sum(sizes.values()), width), tuple(observed)),
            Hidden("gate_input", GateInput(width, hidden), "x_features"),
        ]
        super().__init__([Scan(nodes, LSTM(hidden, ("gate_input", "z_features"), width, has_gate_input=True), steps)])


class StrokeVRNN(VRNN):
    """Variational recurrent network for pen strokes.

    A step of ``input`` ``[b, T, 3]`` is (pen, dx, dy). The target ``pen``, 1 where the pen is lifted, is Bernoulli
    (1,); ``offset`` is Normal (2,) with a fixed deviation. Both read the same decoder, so they are independent given
    the latent and the past. The teacher of Chen et al. 2023 has width 512 and 1200 units; the defaults are the sizes of
    its student.

    Args:
        in_shape: (T, 3), T >= 1.
        scale: Deviation of offsets given the latent and the past, > 0, in units of the (standardised) offsets.
        latents: Size of each latent, >= 1.
        width: Units of each hidden layer, >= 1.
        hidden: Units of the LSTM, >= 1.

    Raises:
        ConfigError: If an argument is out of range.

    Example:
        >>> model = StrokeVRNN(in_shape=(5, 3), width=8, hidden=16)
        >>> model(torch.empty(2, 5, 3)).shape  # as many new strokes as there are inputs
        torch.Size([2, 5, 3])
    """

    def __init__(
        self, *, in_shape: Sequence[int], scale: float = 1.0, latents: int = 16, width: int = 128, hidden: int = 600
    ) -> None:
        steps, size = sequence_shape(in_shape)
        if size != 3:
            raise ConfigError(f"in_shape must be (steps, 3) for pen strokes (pen, dx, dy), got {list(in_shape)}")
        offset = Normal((2,), scale=validation.positive("scale", scale))
        observed: dict[str, tuple[Family, Source]] = {"pen": (Bernoulli((1,)), pens), "offset": (offset, offsets)}
        super().__init__(observed, steps=steps, latents=latents, width=width, hidden=hidden)


class VectorVRNN(VRNN):
    """Variational recurrent network for sequences of binary vectors, such as piano rolls or the rows of images.

    A step of ``input`` ``[b, T, d]`` is the target ``frame``, Bernoulli (d,): its elements are independent given the
    latent and the past.

    Args:
        in_shape: (T, d), both >= 1.
        latents: Size of each latent, >= 1.
        width: Units of each hidden layer, >= 1.
        hidden: Units of the LSTM, >= 1.

    Raises:
        ConfigError: If an argument is out of range.

    Example:
        >>> model = VectorVRNN(in_shape=(5, 88), width=8, hidden=16)
        >>> model(torch.empty(2, 5, 88)).unique()
        tensor([0., 1.])
    """

    def __init__(self, *, in_shape: Sequence[int], latents: int = 16, width: int = 128, hidden: int = 600) -> None:
        steps, size = sequence_shape(in_shape)
        observed: dict[str, tuple[Family, Source]] = {"frame": (Bernoulli((size,)), "input")}
        super().__init__(observed, steps=steps, latents=latents, width=width, hidden=hidden)


def sequence_shape(in_shape: Sequence[int]) -> tuple[int, int]:
    """Return (steps, size of a step).

    Raises:
        ConfigError: If the shape does not consist of two integers >= 1.
    """
    steps, size = validation.integers("in_shape (steps, numbers)", in_shape, length=2)
    return steps, size


def pens(batch: Mapping[str, Tensor]) -> Tensor:
    """Return the pen states of a batch, ``[b, T, 1]``."""
    return batch["input"][..., :1]


def offsets(batch: Mapping[str, Tensor]) -> Tensor:
    """Return the offsets of a batch, ``[b, T, 2]``."""
    return batch["input"][..., 1:]
