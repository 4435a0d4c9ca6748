"""The networks whose features are compared to measure samples of generative models.

For images with labels the first extractor is a classifier that is trained on the data, once for each data set; for
other images it is a fixed random network. Principal components of the pixels are used in addition. Vectors are compared
without an extractor, and sequences through the pictures or summary statistics that their data module makes of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core.abilities import DrawsPictures, HasLengths, HasPixelScaling, SummarisesSamples
from kdzoo.core.batch import Batch
from kdzoo.core.inference import inference
from kdzoo.core.randomness import mix_seed
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.sample_plots import pixel_view
from kdzoo.kinds.evaluation_classifier import EvaluationClassifier
from kdzoo.metrics.extractors import PenultimateFeatures, PrincipalComponents, RandomConvNet, ScriptedExtractor

# Principal components of the pixels: as many as the classifier has features.
COMPONENTS = 64
# Training samples that the principal components are fitted to: many times their number.
FITTED = 2048
# Samples that an extractor sees in one call: bounds the memory of its activations.
INPUTS_AT_ONCE = 512


def _unchanged(samples: Tensor, lengths: Tensor | None) -> Tensor:  # noqa: ARG001
    """Return the samples; the view of data that need none."""
    return samples


@dataclass(frozen=True)
class FeatureExtractors:
    """Extractors of features, and how samples become their inputs.

    Attributes:
        view: Turns samples ``[n, ...]`` and their lengths ``[n]`` into inputs of the extractors.
        extractors: Extractors by name; the score of a model is by the first one. Without any, the features are the
            views themselves.
        step_counts: Lengths from which those of generated sequences are drawn, int64 ``[n]``; None for data without
            steps.
        are_pictures: Whether a view is an image ``[channels, height, width]`` in [0, 1].
        classifier: The classifier of the first extractor; None for data without labels, or that are not images.
    """

    view: Callable[[Tensor, Tensor | None], Tensor] = _unchanged
    extractors: dict[str, nn.Module] = field(default_factory=dict)
    step_counts: Tensor | None = None
    are_pictures: bool = False
    classifier: EvaluationClassifier | None = None

    @staticmethod
    def of(data: Any, cache: Path, file: str | None = None) -> "FeatureExtractors":
        """Return the feature extractors of a data set.

        Args:
            data: The data module, after ``setup()``.
            cache: Folder with the classifiers of data sets, in which a new one is saved.
            file: TorchScript file of a network for images, which becomes the first extractor.

        Raises:
            DataError: The file is missing or does not hold such a network.
            ConfigError: A file is given, but the data are not images.
        """
        counts = data.lengths if isinstance(data, HasLengths) else None
        batches = list(some_batches(data, FITTED))
        samples = torch.cat([batch["input"] for batch in batches])
        view = _view_of(data, samples)
        views = view(samples, steps_of(batches))
        if file is not None and views.ndim != 4:
            raise ConfigError(
                f"feature_extractor is for images, and samples of {type(data).__name__} are not images, got {file!r}"
            )
        if views.ndim != 4:
            return FeatureExtractors(view, {}, counts)
        extractors: dict[str, nn.Module] = {
            "random": RandomConvNet(tuple(views.shape[1:])),
            # n samples span at most n - 1 directions around their mean.
            "pixels": PrincipalComponents.fit(views, components=min(COMPONENTS, len(views) - 1)),
        }
        # The order decides which extractor gives the score: the user's own, then one that knows the data.
        classes = data.sizes.get("num_classes", 0)
        classifier = None
        if classes > 1 and "target" in batches[0]:
            classifier = EvaluationClassifier.of(data, lambda samples: view(samples, None), cache)
            extractors = {"classifier": PenultimateFeatures(classifier.network), **extractors}
        if file is not None:
            extractors = {"file": ScriptedExtractor(file), **extractors}
        return FeatureExtractors(view, extractors, counts, True, classifier)

    def features(self, samples: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        """Return the features ``[n, d]`` of samples by each extractor, in float64.

        Args:
            samples: Samples ``[n, ...]``, scaled as the data are.
            lengths: Numbers of valid steps of sequences, int64 ``[n]``; None for samples without steps.
        """
        views = self.view(samples, lengths)
        if not self.extractors:
            return {"values": views.flatten(1).double()}
        features = {}
        for name, extractor in self.extractors.items():
            with inference(extractor):
                outputs = [extractor(part) for part in views.split(INPUTS_AT_ONCE)]
            features[name] = torch.cat(outputs).flatten(1).double()
        return features

    def lengths(self, n: int, number: int) -> Tensor | None:
        """Return the lengths of n generated sequences, int64 ``[n]``; None for data without steps.

        Args:
            n: Number of sequences.
            number: Number of the set of samples. All models have the same lengths in the same set, so that their
                scores do not differ by chance.
        """
        if self.step_counts is None:
            return None
        # 7 only keeps these draws apart from those of the noise, which has the same number.
        generator = torch.Generator().manual_seed(mix_seed(number, 7))
        return self.step_counts[torch.randint(len(self.step_counts), (n,), generator=generator)]

    def pictures(self, samples: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Return samples as images ``[n, channels, height, width]`` in [0, 1]; None if they are not images."""
        return self.view(samples, lengths) if self.are_pictures else None


def _view_of(data: Any, samples: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Return the view of a data set: its samples as images, as statistics of equal length, or unchanged."""
    if isinstance(data, DrawsPictures):
        return data.pictures
    if isinstance(data, SummarisesSamples):
        return data.summaries
    return _unscaled(data, samples)


def _unscaled(data: Any, samples: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Return the view that turns scaled images back into pixels in [0, 1]; other samples are unchanged."""
    if not isinstance(data, HasPixelScaling):
        return _unchanged
    view = pixel_view(data, samples)
    return lambda samples, lengths: view(samples)  # noqa: ARG005 - images have no lengths


def some_batches(data: Any, least: int) -> Iterator[Batch]:
    """Yield training batches in order, until they hold at least ``least`` samples."""
    count = 0
    for batch in data.train_eval_dataloader():
        yield batch
        count += len(batch["input"])
        if count >= least:
            return


def steps_of(batches: Sequence[Batch]) -> Tensor | None:
    """Return the numbers of valid steps of the sequences in batches, int64 ``[n]``; None for samples without steps."""
    return torch.cat([batch["mask"].sum(1) for batch in batches]) if "mask" in batches[0] else None
