"""Sets of samples that are compared: drawn from a graphical model, observed, or stored in the place of a model."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kdzoo.core.batch import Batch
from kdzoo.core.inference import inference
from kdzoo.graphical_models import Graph
from kdzoo.kinds.feature_extractors import steps_of

MAX_SAMPLES = 1024
"""Largest number of samples of a set, as in Chen et al. 2023: distances depend on the number, and the earth mover's
distance takes about 0.2 s for two sets of this size."""


class StoredSamples(nn.Module):
    """Two sets of samples in the place of a model, which show how good a score can be.

    Args:
        shared: Set that is compared where models share their noise, ``[n, ...]``.
        independent: Another set, compared where the noise of every model is independent, ``[n, ...]``.
        lengths: Numbers of valid steps of the sequences of both sets, int64 ``[n]``; None: those that are drawn for
            all models.
    """

    shared: Tensor
    independent: Tensor

    def __init__(self, shared: Tensor, independent: Tensor, lengths: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.register_buffer("shared", shared)
        self.register_buffer("independent", independent)
        self.lengths = lengths

    def forward(self, inputs: Tensor) -> Tensor:
        """Return as many samples as there are inputs, at most all."""
        return self.shared[: len(inputs)]


def sample_set(model: nn.Module, n: int, number: int, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return n samples of a model, or at most n stored ones.

    Args:
        model: A graph or stored samples.
        n: Number of samples.
        number: 0 for the set with shared noise, 1 for the independent one.
        inputs: Values of a graph's inputs, ``[n, ...]`` by node; those of an empty mapping are drawn.
    """
    if isinstance(model, StoredSamples):
        return (model.shared, model.independent)[number][:n]
    assert isinstance(model, Graph)
    return draw_samples(model, n, number, inputs)


def draw_samples(model: Graph, n: int, number: int, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return n samples on the CPU, drawn in eval mode.

    Args:
        model: The model.
        n: Number of samples.
        number: Seed. The noise is a function of it and of the order and shapes of the nodes, so models with the same
            nodes have the same noise.
        inputs: Values of the inputs, ``[n, ...]`` by node; those of an empty mapping are drawn.
    """
    generator = torch.Generator().manual_seed(number)
    like = model.like
    if not inputs:
        inputs = {name: value.to(like) for name, value in model.draw_inputs(n, generator=generator).items()}
    with inference(model):
        return model.samples(model.noise(n, generator=generator), inputs).float().cpu()


def observations(batches: Sequence[Batch]) -> tuple[Tensor, Tensor | None]:
    """Return at most ``MAX_SAMPLES`` observations in order, and their numbers of valid steps if they are sequences."""
    lengths = steps_of(batches)
    inputs = torch.cat([batch["input"] for batch in batches])[:MAX_SAMPLES]
    return inputs, None if lengths is None else lengths[:MAX_SAMPLES]


def observed_inputs(model: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Return the values of a graph's inputs in the same observations, by node; empty for stored samples."""
    if not isinstance(model, Graph):
        return {}
    values = [model.observed(batch, model.inputs()) for batch in batches]
    return {name: torch.cat([value[name] for value in values])[:MAX_SAMPLES] for name in model.inputs()}
