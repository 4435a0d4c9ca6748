"""Directed graphical models: their samples are compared with observed ones and with those of the teacher."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.core.abilities import HasExactDivergence, HasLogDensity, HasModes
from kdzoo.core.batch import Batch, as_batch
from kdzoo.core.inference import inference, try_call
from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Graph, inference_scores, posterior_plots, sample_plots
from kdzoo.graphical_models.diagnostics import diagnose, recommendation
from kdzoo.graphical_models.paired import check_compatible
from kdzoo.kinds import class_scores, sample_scores
from kdzoo.kinds.feature_extractors import FeatureExtractors, some_batches, steps_of
from kdzoo.kinds.kind import Kind
from kdzoo.kinds.sample_sets import (
    MAX_SAMPLES,
    StoredSamples,
    draw_samples,
    observations,
    observed_inputs,
    sample_set,
)

COLUMNS = 16
"""Samples of each model in a figure, as many small images as fit across a page."""
IMPORTANCE_SAMPLES, WEIGHED_OBSERVATIONS = 50, 1000
"""Samples of the latents for each observation, and observations, of the importance-weighted bound.

A convolutional model of 28 x 28 images takes about ten CPU seconds for them; 50 samples are those of the largest model
of Burda et al. 2016.
"""
# Numbers of sets of samples, which are the seeds of their noise. The sets of the reference ``teacher_again`` must be
# independent of the teacher's own.
SHARED, INDEPENDENT, REFERENCE_SHARED, REFERENCE_INDEPENDENT, DIAGNOSIS = range(5)


@dataclass(frozen=True)
class Predictions:
    """Features of a model's samples and of the observations, by extractor.

    Attributes:
        model: The model that generates; None for stored samples.
        data: Features of observations, ``[n, d]`` by extractor.
        shared: Features of samples under the noise that all models share, ``[n, d]`` by extractor.
        independent: Features of samples under other noise, ``[n, d]`` by extractor.
        pictures: The first samples under the shared noise as images, ``[m, c, h, w]``; None if they are not images.
        likelihood: Mean over the observations in nats: ``negative_log_density`` of a model whose density is known
            exactly; of one that was trained to infer ``negative_bound`` and, without a sequence,
            ``negative_weighted_bound`` (:func:`kdzoo.graphical_models.inference_scores.importance_weighted_bound`) of
            the first observations and the share of ``active_units``.
        modes: Which modes of the data the samples under the shared noise have found, where these are known.
        classes: Their scores by a classifier of the data (:func:`kdzoo.kinds.class_scores.class_scores`), for images
            with labels.
    """

    model: Graph | None
    data: dict[str, Tensor]
    shared: dict[str, Tensor]
    independent: dict[str, Tensor]
    pictures: Tensor | None
    likelihood: dict[str, float]
    modes: dict[str, float] = field(default_factory=dict)
    classes: dict[str, float] = field(default_factory=dict)


class GraphicalModelKind(Kind):
    """Measured by distances between features of generated and observed samples.

    Args:
        feature_extractors: Networks by whose features samples are compared; None: the samples themselves.
        modes: Data whose modes are known; None: modes are not counted.
    """

    name: ClassVar[str] = "graphical_model"
    needs: ClassVar[str] = "a directed graphical model (kdzoo.graphical_models.Graph)"
    score: ClassVar[str] = "frechet"
    lower_is_better: ClassVar[bool] = True
    teacher_free: ClassVar[str | None] = "kdzoo.distillers.ELBO"

    def __init__(self, feature_extractors: FeatureExtractors | None = None, modes: HasModes | None = None) -> None:
        self.feature_extractors = feature_extractors or FeatureExtractors()
        self.modes = modes

    def bind(self, data: Any, cache: Path, feature_extractor: str | None = None) -> "GraphicalModelKind":
        """Return this kind with the feature extractors of some data, the user's own first."""
        modes = data if isinstance(data, HasModes) else None
        return type(self)(FeatureExtractors.of(data, cache, feature_extractor), modes)

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether the model is a graph."""
        return isinstance(model, Graph)

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Reject what is not a graph, and a graph whose samples have another shape than the data."""
        if not isinstance(model, Graph):
            raise ConfigError(f"{role} {type(model).__name__} is not {self.needs}; choose for example student=hvae")
        shape = tuple(try_call(role, model, batch["input"]).shape[1:])
        expected = tuple(batch["input"].shape[1:])
        if shape != expected:
            raise ConfigError(f"{role} does not fit the data: its samples have shape {shape}, the data {expected}")

    def check_teacher_free(self, model: nn.Module) -> None:
        """Reject a student whose control could not be trained on data."""
        assert isinstance(model, Graph)
        lacking = [name for name, node in model.latents().items() if node.posterior is None]
        # A model that overrides the bound, as wake-sleep does, needs no posteriors.
        if lacking and type(model).negative_elbo is Graph.negative_elbo:
            raise ConfigError(
                f"the student cannot be trained on data, as a control: latent {lacking[0]!r} has no posterior; "
                "set control=false"
            )

    # ---------------------------------------------------------------- samples

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return features of observations and of two sets of as many samples, given the observations' inputs."""
        batches = [as_batch(batch) for batch in batches]
        data, lengths = observations(batches)
        inputs = observed_inputs(model, batches)
        shared, independent = (sample_set(model, len(data), number, inputs) for number in (SHARED, INDEPENDENT))
        shared_steps, independent_steps = (self._lengths(model, len(data), n) for n in (SHARED, INDEPENDENT))
        extractors = self.feature_extractors
        classifier = extractors.classifier
        return Predictions(
            model=model if isinstance(model, Graph) else None,
            data=extractors.features(data, lengths),
            shared=extractors.features(shared, shared_steps),
            independent=extractors.features(independent, independent_steps),
            pictures=extractors.pictures(shared[:COLUMNS], None if shared_steps is None else shared_steps[:COLUMNS]),
            likelihood=_likelihood(model, batches) if isinstance(model, Graph) else {},
            modes={} if self.modes is None else sample_scores.modes(self.modes.mode_counts(shared), len(shared)),
            classes={} if classifier is None else class_scores.class_scores(classifier, model, shared, batches),
        )

    def _lengths(self, model: nn.Module, n: int, number: int) -> Tensor | None:
        """Return the numbers of valid steps of a set of samples, ``[n]``; None for samples without steps."""
        if isinstance(model, StoredSamples) and model.lengths is not None:
            return model.lengths[number][:n]
        return self.feature_extractors.lengths(n, number)

    def quick_scores(self, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        """Return the Frechet distance and the nearest-neighbour accuracy, by the first feature extractor alone."""
        batches = [as_batch(batch) for batch in batches]
        data, lengths = observations(batches)
        samples = sample_set(model, len(data), SHARED, observed_inputs(model, batches))
        # Many models are measured this way; the other extractors and distances would multiply the time.
        first = dict(list(self.feature_extractors.extractors.items())[:1])
        extractors = replace(self.feature_extractors, extractors=first)
        (real,) = extractors.features(data, lengths).values()
        (generated,) = extractors.features(samples, self._lengths(model, len(data), SHARED)).values()
        return {"frechet": sample_scores.frechet(real, generated), "one_nn": sample_scores.one_nn(real, generated)}

    def reference_models(self, models: Mapping[str, nn.Module], data: Any) -> dict[str, nn.Module]:
        """Return training samples (data against data), and the teacher under other noise (teacher against teacher)."""
        # The two sets do not overlap if there are enough training samples.
        batches = list(some_batches(data, 2 * MAX_SAMPLES))
        samples, lengths = torch.cat([batch["input"] for batch in batches]), steps_of(batches)
        first, last = slice(None, MAX_SAMPLES), slice(-MAX_SAMPLES, None)
        own_lengths = None if lengths is None else (lengths[first], lengths[last])
        references: dict[str, nn.Module] = {"data": StoredSamples(samples[first], samples[last], own_lengths)}
        teacher = models.get("teacher")
        if isinstance(teacher, Graph):
            inputs = observed_inputs(teacher, [as_batch(batch) for batch in data.test_dataloader()])
            n = len(next(iter(inputs.values()))) if inputs else MAX_SAMPLES
            references["teacher_again"] = StoredSamples(
                draw_samples(teacher, n, REFERENCE_SHARED, inputs),
                draw_samples(teacher, n, REFERENCE_INDEPENDENT, inputs),
            )
        return references

    # ---------------------------------------------------------------- measurements

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Return the distances between data and samples, by the features of the first extractor.

        ``frechet`` is the root of the squared Frechet distance, ``frechet_low`` and ``frechet_high`` are its bootstrap
        interval, and ``frechet_<extractor>`` is the distance by another extractor's features. Where the modes of the
        data are known, ``modes`` is the number of those that have a sample, ``mode_kl`` the divergence of their shares
        from equal ones in nats, and ``mode_share`` the share of samples that lie at a mode. For images with labels the
        classes of the samples are counted, and those of a model with a class as condition are compared with it.
        """
        first, *others = predictions.data
        real, generated = predictions.data[first], predictions.shared[first]
        return {
            **sample_scores.distances(real, generated),
            **sample_scores.frechet_interval(real, generated),
            **sample_scores.further_distances(real, generated),
            **{
                f"frechet_{name}": sample_scores.frechet(predictions.data[name], predictions.shared[name])
                for name in others
            },
            **predictions.likelihood,
            **predictions.modes,
            **predictions.classes,
        }

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return the distances to the teacher's samples: under other noise, and under shared noise if it is shared.

        Stored samples, such as those of the reference scores, are compared as if their noise were shared.
        """
        first, *others = teacher.shared
        result: dict[str, float] = {}
        # Without the same noise "paired" numbers would only repeat the independent ones.
        if student.model is None or teacher.model is None or _share_noise(teacher.model, student.model):
            paired = sample_scores.distances(teacher.shared[first], student.shared[first])
            result |= {f"{name}_paired": value for name, value in paired.items()}
            for name in others:
                result[f"frechet_{name}_paired"] = sample_scores.frechet(teacher.shared[name], student.shared[name])
        independent = sample_scores.distances(teacher.shared[first], student.independent[first])
        result |= {f"{name}_independent": value for name, value in independent.items()}
        if student.model is None or teacher.model is None:
            return result
        return result | _diagnosis(teacher.model, student.model)

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Return a warning of a model that has collapsed to a few modes of the data."""
        collapse = class_scores.collapse(metrics)
        return [] if collapse is None else [collapse]

    def recommendation(self, fidelity: Mapping[str, Mapping[str, float]]) -> str | None:
        """Return which of the surrogate loss and local distillation is recommended for these models."""
        surrogate, local = (fidelity.get(role, {}) for role in ("student", "local"))
        return recommendation(surrogate, local) if surrogate and local else None

    def properties(self, model: nn.Module) -> dict[str, int | float]:
        """Return the number of parameters that samples depend on."""
        if not isinstance(model, Graph):
            return {}
        inferring = sum(parameter.numel() for parameter in model.inference_parameters())
        return {"generative_parameters": sum(parameter.numel() for parameter in model.parameters()) - inferring}

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Draw samples of all models, a row for each model and a column for each noise."""
        pictures = {role: prediction.pictures for role, prediction in predictions.items()}
        rows = {role: images.numpy() for role, images in pictures.items() if images is not None}
        caption = "Images that each model generates; a column has the same noise where models can share it."
        path = folder / "samples.png"
        return [plotting.image_rows(rows, path, title="Samples", caption=caption)] if rows else []

    def plot_model(self, models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:
        """Draw samples, and what models with trained posteriors infer, as far as it applies to models and data."""
        return sample_plots.plot_model(models, folder, data) + posterior_plots.plot_model(models, folder, data)

    def snapshots(self, data: Any) -> Callable[[nn.Module], Tensor | None]:
        """Return a function that draws images of a model from noise that is always the same."""
        return partial(sample_plots.snapshot, view=sample_plots.view_of(data))


def _likelihood(model: Graph, batches: Iterable[Batch]) -> dict[str, float]:
    """Return the mean negative log density of observations, or bounds of it, in nats; empty if neither is known.

    Of models that infer, the share of active units comes with them.
    """
    if isinstance(model, HasLogDensity):
        with inference(model):
            density = model.log_density(torch.cat([batch["input"] for batch in batches]).to(model.like))
        return {"negative_log_density": -float(density.mean())}
    # Without trained posteriors the bound says nothing about the model.
    if not bool(model.posteriors_trained):
        return {}
    # Of a target that is a function of the latents, observations have no density.
    has_density = all(node.family.is_random for node in model.targets().values())
    result = {"negative_bound": inference_scores.negative_bound(model, batches)} if has_density else {}
    if inference_scores.can_be_weighted(model):
        if has_density:
            weighed = _first(batches, WEIGHED_OBSERVATIONS)
            bound = inference_scores.importance_weighted_bound(model, weighed, IMPORTANCE_SAMPLES)
            result["negative_weighted_bound"] = -bound
        active = inference_scores.active_units(model, batches)
        if active:
            result["active_units"] = float(torch.cat([units.flatten() for units in active.values()]).double().mean())
    return result


def _first(batches: Iterable[Batch], n: int) -> Iterator[Batch]:
    """Yield the first n observations of batches."""
    for batch in batches:
        if n > 0:
            yield {key: value[:n] for key, value in batch.items()}
        n -= len(batch["input"])


def _share_noise(teacher: Graph, student: Graph) -> bool:
    """Return whether both models need noise of the same names and shapes."""
    teacher_shapes, student_shapes = (
        {name: value.shape for name, value in model.noise(1).items()} for model in (teacher, student)
    )
    return teacher_shapes == student_shapes


def _diagnosis(teacher: Graph, student: Graph) -> dict[str, float]:
    """Return how a student errs on shared noise; empty if latents are not shared or a target is a point mass."""
    try:
        check_compatible(teacher, student)
    except ConfigError:
        return {}
    if not all(node.family.is_random for node in teacher.targets().values()):
        return {}
    size = sum(math.prod(node.family.shape) for node in teacher.targets().values())
    # The moments of the marginals need twice as many samples as values. Where that is out of reach, as for sequences
    # and large images, a few samples are enough for the other numbers.
    n = MAX_SAMPLES // 4 if teacher.scan is not None or size > 2 * MAX_SAMPLES else 4 * MAX_SAMPLES
    generator = torch.Generator().manual_seed(DIAGNOSIS)
    inputs = {name: value.to(teacher.like) for name, value in teacher.draw_inputs(n, generator=generator).items()}
    result = diagnose(teacher, student, teacher.noise(n, generator=generator), inputs).as_dict()
    if isinstance(teacher, HasExactDivergence):
        result["kl"] = teacher.divergence_from(student)
    return result
