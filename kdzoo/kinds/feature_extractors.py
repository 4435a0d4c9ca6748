"""The networks whose features are compared to measure samples of generative models.

For images with labels the first extractor is a classifier that is trained on the data, once for each data set; for
other images it is a fixed random network. Principal components of the pixels are used in addition. Vectors are compared
without an extractor, and sequences through the pictures or summary statistics that their data module makes of them.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core.abilities import DrawsPictures, HasLengths, HasPixelScaling, SummarisesSamples
from kdzoo.core.batch import IGNORE, Batch
from kdzoo.core.inference import inference
from kdzoo.core.randomness import mix_seed
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.sample_plots import pixel_view
from kdzoo.metrics.extractors import PenultimateFeatures, PrincipalComponents, RandomConvNet, ScriptedExtractor
from kdzoo.models import ConvNet
from kdzoo.storage import checkpoint

# Training of the classifier: optimizer steps, images in each, learning rate of Adam. It takes seconds for small images.
# The features need not be those of the best classifier, but must be the same for all models that are compared.
STEPS, BATCH, RATE = 400, 128, 1e-3
# Size of the classifier. Its 64 hidden units are the features: the 64 x 64 covariance of a Frechet distance can be
# estimated from a few hundred samples.
OPTIONS: dict[str, Any] = {"channels": [16, 32], "hidden": 64}
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
    """

    view: Callable[[Tensor, Tensor | None], Tensor] = _unchanged
    extractors: dict[str, nn.Module] = field(default_factory=dict)
    step_counts: Tensor | None = None
    are_pictures: bool = False

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
        if classes > 1 and "target" in batches[0]:
            extractors = {"classifier": PenultimateFeatures(_classifier(data, view, cache)), **extractors}
        if file is not None:
            extractors = {"file": ScriptedExtractor(file), **extractors}
        return FeatureExtractors(view, extractors, counts, True)

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


def _classifier(data: Any, view: Callable[[Tensor, Tensor | None], Tensor], cache: Path) -> nn.Module:
    """Return a small convolutional classifier of the training split, from the cache if it was trained before."""
    batches = list(data.train_eval_dataloader())
    targets = torch.cat([batch["target"] for batch in batches])
    # All that the weights depend on. The fingerprint of the data covers the inputs, not the labels.
    recipe = f"{data.fingerprint()} {STEPS} {BATCH} {RATE} {OPTIONS} {torch.__version__} {targets.tolist()}"
    folder = cache / "feature_extractors" / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    # Neither building nor training advances the global random state: a run has the same draws with and without a cache.
    with torch.random.fork_rng(devices=[]):
        if (folder / "config.json").exists():
            return checkpoint.load_student(folder)
        inputs = view(torch.cat([batch["input"] for batch in batches]), None)
        inputs, targets = inputs[targets != IGNORE], targets[targets != IGNORE]
        size = {"in_shape": tuple(inputs.shape[1:]), "num_classes": data.sizes["num_classes"]}
        # One seed for all runs, so that their scores can be compared.
        torch.manual_seed(0)
        model = ConvNet(**size, **OPTIONS)
        _train(model, inputs, targets)
    config = {"_target_": "kdzoo.models.ConvNet", **size, "in_shape": list(size["in_shape"]), **OPTIONS}
    checkpoint.save_model(model, config, folder)
    return model


def _train(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    """Train a classifier by a plain loop; a trainer would take longer to set up than the training takes."""
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        rows = torch.randint(len(inputs), (BATCH,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()
        optimizer.step()
