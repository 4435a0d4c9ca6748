"""Directed graphical models: judged by their samples, beside those of the data and of the teacher."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.core.batch import Batch, as_batch
from kdzoo.core.inference import inference, try_call
from kdzoo.errors import ConfigError
from kdzoo.functional import sample_distances
from kdzoo.graphical_models import Graph, sample_plots
from kdzoo.graphical_models.diagnostics import diagnose, recommendation
from kdzoo.graphical_models.paired import check_compatible
from kdzoo.kinds.feature_extractors import FeatureExtractors, some_batches, steps_of
from kdzoo.kinds.kind import Kind

MOST = 1024
"""Samples of a model, and of the data, that are compared."""
SHOWN = 16
"""Samples of each model in a picture."""


@runtime_checkable
class HasDensity(Protocol):
    """A model whose density is known exactly."""

    def log_density(self, points: Tensor) -> Tensor:
        """Return the log density of points [n, d], nats, [n]."""

    def divergence_from(self, student: Any) -> float:
        """Return KL(this model || a student of the same class), nats."""


@dataclass(frozen=True)
class Predictions:
    """What a model generates, and what is observed.

    Attributes:
        model: that generates; None for samples that are kept.
        data: observations, features by extractor [n, d].
        shared: features of samples under the noise that all models share.
        other: features of samples under noise of the model's own.
        pictures: of the first samples under the shared noise, [m, c, h, w]; None where they cannot be drawn.
        likelihood: of the observations, mean nats: ``negative_bound`` of a model that was trained to infer,
            ``negative_log_density`` of one that has an exact ``log_density``.
    """

    model: Graph | None
    data: dict[str, Tensor]
    shared: dict[str, Tensor]
    other: dict[str, Tensor]
    pictures: Tensor | None
    likelihood: dict[str, float]


class Samples(nn.Module):
    """Samples that are kept, in the place of a model: how good a score can be.

    Args:
        shared: compared where models share their noise, [n, ...].
        other: another set, [n, ...].
        lengths: int64 [n] of both, valid steps of sequences; None: those that models' sequences are given.
    """

    shared: Tensor
    other: Tensor

    def __init__(self, shared: Tensor, other: Tensor, lengths: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.register_buffer("shared", shared)
        self.register_buffer("other", other)
        self.lengths = lengths

    def forward(self, inputs: Tensor) -> Tensor:
        """Return as many samples as there are inputs, at most all."""
        return self.shared[: len(inputs)]


class GraphicalModelKind(Kind):
    """Measured by distances between features of generated and observed samples.

    Args:
        feature_extractors: the networks by whose features samples are compared; None: the samples themselves.
    """

    name: ClassVar[str] = "graphical_model"
    needs: ClassVar[str] = "a directed graphical model (kdzoo.graphical_models.Graph)"
    score: ClassVar[str] = "frechet"
    lower_is_better: ClassVar[bool] = True
    teacher_free: ClassVar[str] = "kdzoo.distillers.ELBO"

    def __init__(self, feature_extractors: FeatureExtractors | None = None) -> None:
        self.feature_extractors = feature_extractors or FeatureExtractors()

    def bind(self, data: Any, cache: Path, feature_extractor: str | None = None) -> "GraphicalModelKind":
        """Return this kind with networks that judge samples of these data, the user's own first."""
        return GraphicalModelKind(FeatureExtractors.of(data, cache, feature_extractor))

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether it is a graph."""
        return isinstance(model, Graph)

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Refuse what is no graph, and a graph whose samples are unlike the data."""
        if not isinstance(model, Graph):
            raise ConfigError(f"{role} {type(model).__name__} is not {self.needs}; choose for example student=hvae")
        shape = tuple(try_call(role, model, batch["input"]).shape[1:])
        expected = tuple(batch["input"].shape[1:])
        if shape != expected:
            raise ConfigError(f"{role} does not fit the data: its samples have shape {shape}, the data {expected}")

    def check_teacher_free(self, model: nn.Module) -> None:
        """Refuse a control that could not be trained on data."""
        assert isinstance(model, Graph)
        lacking = [name for name, node in model.latents().items() if node.posterior is None]
        if lacking and type(model).negative_elbo is Graph.negative_elbo:
            raise ConfigError(
                f"the student cannot be trained on data, as a control: latent {lacking[0]!r} has no posterior; "
                "set control=false"
            )

    # ---------------------------------------------------------------- samples

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return features of observations and of as many samples, twice; they have the inputs of the observations."""
        rows = [as_batch(batch) for batch in batches]
        data, lengths = _observations(rows)
        given = _observed_inputs(model, rows)
        sets = [self._generated(model, len(data), number, given) for number in (0, 1)]
        drawn = [self._lengths(model, len(data), number) for number in (0, 1)]
        return Predictions(
            model if isinstance(model, Graph) else None,
            self.feature_extractors.features(data, lengths),
            self.feature_extractors.features(sets[0], drawn[0]),
            self.feature_extractors.features(sets[1], drawn[1]),
            self.feature_extractors.pictures(sets[0][:SHOWN], None if drawn[0] is None else drawn[0][:SHOWN]),
            _likelihood(model, rows) if isinstance(model, Graph) else {},
        )

    def _generated(self, model: nn.Module, n: int, number: int, given: Mapping[str, Tensor]) -> Tensor:
        """Return n samples; the noise of a number is the same for all models with the same nodes."""
        if isinstance(model, Samples):
            return (model.shared, model.other)[number][:n]
        assert isinstance(model, Graph)
        with inference(model):
            return _draw(model, n, number, given)

    def _lengths(self, model: nn.Module, n: int, number: int) -> Tensor | None:
        if isinstance(model, Samples) and model.lengths is not None:
            return model.lengths[number][:n]
        return self.feature_extractors.lengths(n, number)

    def quick_scores(self, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        """Return the Frechet distance and the nearest-neighbour accuracy of data and samples by the first judge."""
        rows = [as_batch(batch) for batch in batches]
        data, lengths = _observations(rows)
        samples = self._generated(model, len(data), 0, _observed_inputs(model, rows))
        feature_extractors = replace(
            self.feature_extractors, extractors=dict(list(self.feature_extractors.extractors.items())[:1])
        )
        (real,) = feature_extractors.features(data, lengths).values()
        (drawn,) = feature_extractors.features(samples, self._lengths(model, len(data), 0)).values()
        return {
            "frechet": _frechet(real, drawn),
            "one_nn": float(sample_distances.nearest_neighbour_accuracy(real, drawn)),
        }

    def reference_models(self, models: Mapping[str, nn.Module], data: Any) -> dict[str, nn.Module]:
        """Return training samples (data against data), and the teacher under other noise (teacher against teacher)."""
        rows = list(some_batches(data, 2 * MOST))
        train, lengths = torch.cat([batch["input"] for batch in rows]), steps_of(rows)
        ends = slice(None, MOST), slice(-MOST, None)
        own = None if lengths is None else (lengths[ends[0]], lengths[ends[1]])
        found: dict[str, nn.Module] = {"data": Samples(train[ends[0]], train[ends[1]], own)}
        teacher = models.get("teacher")
        if isinstance(teacher, Graph):
            given = _observed_inputs(teacher, [as_batch(batch) for batch in data.test_dataloader()])
            n = len(next(iter(given.values()))) if given else MOST
            with inference(teacher):
                found["teacher_again"] = Samples(_draw(teacher, n, 2, given), _draw(teacher, n, 3, given))
        return found

    # ---------------------------------------------------------------- measurements

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Return the distances between data and samples, in the features of the first judge.

        ``frechet`` is the root of the squared Frechet distance, with a bootstrap interval; those by the other feature_extractors
        have their names.
        """
        first, *others = predictions.data
        found = _distances(predictions.data[first], predictions.shared[first])
        found |= _interval(predictions.data[first], predictions.shared[first])
        found |= _more_distances(predictions.data[first], predictions.shared[first])
        for name in others:
            found[f"frechet_{name}"] = _frechet(predictions.data[name], predictions.shared[name])
        return found | predictions.likelihood

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return the distances to the teacher's samples: under other noise, and under shared noise where there is such.

        What is no model, such as the floors, is compared as if its samples were paired.
        """
        first, *others = teacher.shared
        found: dict[str, float] = {}
        if student.model is None or teacher.model is None or _share_noise(teacher.model, student.model):
            paired = _distances(teacher.shared[first], student.shared[first])
            found |= {f"{name}_paired": value for name, value in paired.items()}
            for name in others:
                found[f"frechet_{name}_paired"] = _frechet(teacher.shared[name], student.shared[name])
        independent = _distances(teacher.shared[first], student.other[first])
        found |= {f"{name}_independent": value for name, value in independent.items()}
        if student.model is None or teacher.model is None:
            return found
        return found | _diagnosis(teacher.model, student.model)

    def recommendation(self, fidelity: Mapping[str, Mapping[str, float]]) -> str | None:
        """Return whether the surrogate loss or local distillation suits these models."""
        both = [fidelity.get(role, {}) for role in ("student", "local")]
        return recommendation(*both) if all(both) else None

    def properties(self, model: nn.Module) -> dict[str, int | float]:
        """Return the number of parameters that samples depend on."""
        if not isinstance(model, Graph):
            return {}
        inferring = sum(parameter.numel() for parameter in model.inference_parameters())
        return {"generative_parameters": sum(parameter.numel() for parameter in model.parameters()) - inferring}

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Draw samples of all models, a row each, a column for each noise."""
        rows = {name: one.pictures.numpy() for name, one in predictions.items() if one.pictures is not None}
        return [plotting.image_rows(rows, folder / "samples.png")] if rows else []

    def plot_model(self, models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:
        """Draw what models make of observations, of their latents and of noise, as far as it fits them and the data."""
        return sample_plots.plot_model(models, folder, data)


def _observations(rows: Sequence[Batch]) -> tuple[Tensor, Tensor | None]:
    """Return the first ``MOST`` observations, and their numbers of valid steps if they are sequences."""
    lengths = steps_of(rows)
    return torch.cat([batch["input"] for batch in rows])[:MOST], None if lengths is None else lengths[:MOST]


def _observed_inputs(model: nn.Module, rows: Iterable[Batch]) -> dict[str, Tensor]:
    """Return the values of a model's inputs in the first ``MOST`` observations; nothing of what is no model."""
    if not isinstance(model, Graph):
        return {}
    seen = [model.observed(batch, model.inputs()) for batch in rows]
    return {name: torch.cat([values[name] for values in seen])[:MOST] for name in model.inputs()}


def _draw(model: Graph, n: int, number: int, given: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return n samples by noise that is a function of the number and of the nodes' order and shapes.

    Inputs that are not given are drawn.
    """
    generator = torch.Generator().manual_seed(number)
    like = model.like
    given = given or {name: value.to(like) for name, value in model.draw_inputs(n, generator=generator).items()}
    return model.samples(model.noise(n, generator=generator), given).float().cpu()


def _likelihood(model: Graph, rows: Iterable[Batch]) -> dict[str, float]:
    if isinstance(model, HasDensity):
        with inference(model):
            density = model.log_density(torch.cat([batch["input"] for batch in rows]).to(model.like))
        return {"negative_log_density": -float(density.mean())}
    return {"negative_bound": _bound(model, rows)} if bool(model.posteriors_trained) else {}


def _bound(model: Graph, rows: Iterable[Batch]) -> float:
    total, seen = 0.0, 0
    generator = torch.Generator().manual_seed(0)
    like = model.like
    with inference(model):
        for batch in rows:
            here = {key: value.to(like.device) for key, value in batch.items()}
            lengths = here.pop("mask").sum(1) if "mask" in here else None
            noise = model.elbo_noise(len(batch["input"]), generator=generator)
            total += float(torch.stack(list(model.negative_elbo(here, noise, lengths).values())).sum())
            seen += len(batch["input"])
    return total / seen


def _share_noise(teacher: Graph, student: Graph) -> bool:
    """Return whether the noise of a sample is the same for both."""
    own, theirs = ({name: value.shape for name, value in one.noise(1).items()} for one in (student, teacher))
    return own == theirs


def _diagnosis(teacher: Graph, student: Graph) -> dict[str, float]:
    """Return what a student makes of shared noise; nothing where latents are not shared or a target is a point."""
    try:
        check_compatible(teacher, student)
    except ConfigError:
        return {}
    if not all(node.family.is_random for node in teacher.targets().values()):
        return {}
    size = sum(math.prod(node.family.shape) for node in teacher.targets().values())
    n = MOST // 4 if teacher.scan is not None or size > 2 * MOST else 4 * MOST  # moments need twice as many as values
    generator = torch.Generator().manual_seed(4)
    given = {name: value.to(teacher.like) for name, value in teacher.draw_inputs(n, generator=generator).items()}
    found = diagnose(teacher, student, teacher.noise(n, generator=generator), given).as_dict()
    if isinstance(teacher, HasDensity):
        found["kl"] = teacher.divergence_from(student)
    return found


def _frechet(real: Tensor, generated: Tensor) -> float:
    return float(sample_distances.frechet_distance(real, generated, squared=False))


def _distances(real: Tensor, generated: Tensor) -> dict[str, float]:
    """Return the four distances of Xu et al. 2018 that Chen et al. 2023 print."""
    return {
        "frechet": _frechet(real, generated),
        "emd": float(sample_distances.earth_movers_distance(real, generated)),
        "mmd": float(sample_distances.mean_discrepancy(real, generated)),
        "one_nn": float(sample_distances.nearest_neighbour_accuracy(real, generated)),
    }


def _more_distances(real: Tensor, generated: Tensor) -> dict[str, float]:
    found = {"frechet_squared": float(sample_distances.frechet_distance(real, generated))}
    found["kid"] = float(sample_distances.kernel_distance(real, generated))
    around = sample_distances.precision_recall_density_coverage(real, generated)
    return found | {name: float(value) for name, value in around.items()}


def _interval(real: Tensor, generated: Tensor, resamples: int = 100) -> dict[str, float]:
    """Return the ends of the 95 % bootstrap interval of the Frechet distance, moved to its value."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(resamples):
        rows = [torch.randint(len(one), (len(one),), generator=generator) for one in (real, generated)]
        values.append(_frechet(real[rows[0]], generated[rows[1]]))
    spread = torch.tensor(values, dtype=torch.float64)
    spread += _frechet(real, generated) - spread.mean()  # samples that are drawn again are farther apart
    low, high = spread.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return {"frechet_low": float(low), "frechet_high": float(high)}
