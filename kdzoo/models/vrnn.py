"""Variational recurrent networks: sequences whose every step has a latent of its own.

Chung et al. 2015, "A recurrent latent variable model for sequential data", equations 5 to 11. Notation: step t, value
x_t, latent z_t, features phi_x(x_t) and phi_z(z_t) [width], output h_t [hidden] of an LSTM, each MLP with two hidden
layers of ``width`` rectified units:

    prior      z_t ~ N(mlp(h_{t-1}))                    equation 5
    decoder    x_t ~ family(mlp(phi_z(z_t), h_{t-1}))   equation 6
    state      h_t = LSTM(phi_x(x_t), phi_z(z_t))       equation 7
    posterior  z_t ~ N(mlp(h_{t-1}, phi_x(x_t)))        equation 9

A deviation is softplus(raw) / ln 2 + 1e-6. Where all x are given, phi_x, its part of the LSTM's gates and the
decoder are computed for all steps at once, and so is the prior where latents are inferred.
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


class Layers(nn.Sequential):
    """Two hidden layers of rectified units on all values side by side, and where ``raw`` is given a linear layer.

    Args:
        size: of the values together.
        width: of both layers.
        raw: numbers that the linear layer returns; 0: there is none.
    """

    def __init__(self, size: int, width: int, raw: int = 0) -> None:
        hidden = [nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        super().__init__(*hidden, *([nn.Linear(width, raw)] if raw else []))

    def forward(self, *values: Tensor) -> Tensor:
        """Return [n, width], or [n, raw], of values [n, ...] with one axis."""
        return super().forward(torch.cat(values, -1) if len(values) > 1 else values[0])


class VRNN(Graph):
    """The graph that all variational recurrent networks share; a subclass says what is observed.

    Nodes of a step, in order: ``z``, ``z_features``, ``decoder``, the targets, ``x_features``, ``drive``.

    Args:
        observed: family and source of each target by name; their values are side by side in x_t.
        steps: T, >= 1.
        latents: numbers of z_t, >= 1.
        width: units of each hidden layer, >= 1.
        hidden: units of the LSTM, >= 1.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self, observed: Mapping[str, tuple[Family, Source]], *, steps: int, latents: int, width: int, hidden: int
    ) -> None:
        width, hidden = validation.integer("width", width), validation.integer("hidden", hidden)
        z = Normal((validation.integer("latents", latents),))
        sizes = {name: family.shape[0] for name, (family, _) in observed.items()}
        nodes = [
            Latent(
                "z",
                z,
                Layers(hidden, width, z.raw_shape[0]),
                STATE,
                posterior=Layers(hidden + width, width, z.raw_shape[0]),
                posterior_parents=(STATE, "x_features"),
            ),
            Hidden("z_features", Layers(latents, width), "z"),
            Hidden("decoder", Layers(width + hidden, width), ("z_features", STATE)),
            *(
                Target(name, family, nn.Linear(width, family.raw_shape[0]), "decoder", source)
                for name, (family, source) in observed.items()
            ),
            Hidden("x_features", Layers(sum(sizes.values()), width), tuple(observed)),
            Hidden("gate_input", GateInput(width, hidden), "x_features"),
        ]
        super().__init__([Scan(nodes, LSTM(hidden, ("gate_input", "z_features"), width, has_gate_input=True), steps)])


class StrokeVRNN(VRNN):
    """Variational recurrent network for pen strokes.

    A step of ``input`` [b, T, 3] is (pen, dx, dy): the target ``pen``, 1 where the pen is lifted, is Bernoulli (1,),
    and ``offset`` is Normal (2,) with a fixed deviation. Both come from one decoder, so that they are independent
    given the latent and the past. Width 512 and 1200 units are the sizes of the teacher in Chen et al. 2023, "A
    unified knowledge distillation framework for deep directed graphical models", the defaults those of the student.

    Args:
        in_shape: (T, 3), T >= 1.
        scale: deviation of offsets given the latent and the past, > 0, in units of the (standardised) offsets.
        latents: numbers of each latent, >= 1.
        width: units of each hidden layer, >= 1.
        hidden: units of the LSTM, >= 1.

    Raises:
        ConfigError: an argument is out of range.

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

    A step of ``input`` [b, T, d] is the target ``frame``, Bernoulli (d,): its numbers are independent given the latent
    and the past.

    Args:
        in_shape: (T, d), both >= 1.
        latents: numbers of each latent, >= 1.
        width: units of each hidden layer, >= 1.
        hidden: units of the LSTM, >= 1.

    Raises:
        ConfigError: an argument is out of range.

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
    """Return (steps, numbers of a step)."""
    steps, size = validation.integers("in_shape (steps, numbers)", in_shape, length=2)
    return steps, size


def pens(batch: Mapping[str, Tensor]) -> Tensor:
    """Return the pen states [b, T, 1] of a batch."""
    return batch["input"][..., :1]


def offsets(batch: Mapping[str, Tensor]) -> Tensor:
    """Return the offsets [b, T, 2] of a batch."""
    return batch["input"][..., 1:]
