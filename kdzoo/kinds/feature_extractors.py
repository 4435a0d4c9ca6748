"""The networks by whose features samples of generative models are compared.

For images with labels the first judge is a classifier that is trained on the data, once for each data set; for other
images it is a fixed random network. Pixels in principal components judge too. Vectors are compared as they are, and
sequences as the pictures or summaries that their data make of them.
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

STEPS, BATCH, RATE = 400, 128, 1e-3
"""Training of the classifier: optimizer steps, images of each, Adam's learning rate."""
OPTIONS: dict[str, Any] = {"channels": [16, 32], "hidden": 64}
"""Of the classifier."""
COMPONENTS, FITTED = 64, 2048
"""Principal components, and training samples that they are fitted to."""
_INPUTS = 512


def _as_they_are(samples: Tensor, lengths: Tensor | None) -> Tensor:  # noqa: ARG001
    return samples


@dataclass(frozen=True)
class FeatureExtractors:
    """Extractors of features, and how samples become what they look at.

    Attributes:
        view: turns samples [n, ...] and their lengths [n] into what the extractors take.
        extractors: modules by name, the first one feature_extractors.
        step_counts: int64 [n], lengths that generated sequences are given; None for data without steps.
        are_pictures: whether a view is an image [c, h, w] in [0, 1].
    """

    view: Callable[[Tensor, Tensor | None], Tensor] = _as_they_are
    extractors: dict[str, nn.Module] = field(default_factory=dict)
    step_counts: Tensor | None = None
    are_pictures: bool = False

    @staticmethod
    def of(data: Any, cache: Path, file: str | None = None) -> "FeatureExtractors":
        """Return the feature extractors of a data set.

        Args:
            data: the data module.
            cache: where the classifier of the data is, or is put when it is trained.
            file: TorchScript file of a network for images, whose features are then compared first.

        Raises:
            DataError: the file is missing or no such network.
            ConfigError: the data are no images.
        """
        counts = data.lengths if isinstance(data, HasLengths) else None
        batches = list(some_batches(data, FITTED))
        some = torch.cat([batch["input"] for batch in batches])
        view = _view_of(data, some)
        seen = view(some, steps_of(batches))
        if file is not None and seen.ndim != 4:
            raise ConfigError(
                f"feature_extractor is for images, and samples of {type(data).__name__} are not images, got {file!r}"
            )
        if seen.ndim != 4:
            return FeatureExtractors(view, {}, counts)
        extractors: dict[str, nn.Module] = {
            "random": RandomConvNet(tuple(seen.shape[1:])),
            "pixels": PrincipalComponents.fit(seen, components=min(COMPONENTS, len(seen) - 1)),
        }
        classes = data.sizes.get("num_classes", 0)
        if classes > 1 and "target" in batches[0]:
            extractors = {"classifier": PenultimateFeatures(_classifier(data, view, cache)), **extractors}
        if file is not None:
            extractors = {"file": ScriptedExtractor(file), **extractors}
        return FeatureExtractors(view, extractors, counts, True)

    def features(self, samples: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        """Return the features [n, d] of samples by every extractor, in float64."""
        seen = self.view(samples, lengths)
        if not self.extractors:
            return {"values": seen.flatten(1).double()}
        found = {}
        for name, extractor in self.extractors.items():
            with inference(extractor):
                found[name] = torch.cat([extractor(some) for some in seen.split(_INPUTS)]).flatten(1).double()
        return found

    def lengths(self, n: int, number: int) -> Tensor | None:
        """Return lengths for n generated sequences, the same for all models, or None."""
        if self.step_counts is None:
            return None
        generator = torch.Generator().manual_seed(mix_seed(number, 7))
        return self.step_counts[torch.randint(len(self.step_counts), (n,), generator=generator)]

    def pictures(self, samples: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Return samples as images [n, c, h, w] in [0, 1]; None where they are none."""
        return self.view(samples, lengths) if self.are_pictures else None


def _view_of(data: Any, samples: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Return what turns samples of a data set into images, into statistics of one length, or leaves them as they are."""
    if isinstance(data, DrawsPictures):
        return data.pictures
    if isinstance(data, SummarisesSamples):
        return data.summaries
    return _unscaled(data, samples)


def _unscaled(data: Any, seen: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Return what turns the numbers of a data set back into pixels in [0, 1]; samples that are no images stay."""
    if not isinstance(data, HasPixelScaling):
        return _as_they_are
    view = pixel_view(data, seen)
    return lambda samples, lengths: view(samples)  # noqa: ARG005 - images have no lengths


def some_batches(data: Any, least: int) -> Iterator[Batch]:
    """Yield training batches in order, until they hold ``least`` samples."""
    seen = 0
    for batch in data.train_eval_dataloader():
        yield batch
        seen += len(batch["input"])
        if seen >= least:
            return


def steps_of(batches: Sequence[Batch]) -> Tensor | None:
    """Return the valid steps of all sequences of several batches, int64 [n]; None for samples without steps."""
    return torch.cat([batch["mask"].sum(1) for batch in batches]) if "mask" in batches[0] else None


def _classifier(data: Any, view: Callable[[Tensor, Tensor | None], Tensor], cache: Path) -> nn.Module:
    """Return a small convolutional classifier of the training part; a function of the training part alone."""
    batches = list(data.train_eval_dataloader())
    targets = torch.cat([batch["target"] for batch in batches])
    recipe = f"{data.fingerprint()} {STEPS} {BATCH} {RATE} {OPTIONS} {torch.__version__} {targets.tolist()}"
    folder = cache / "feature_extractors" / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if (folder / "config.json").exists():
        return checkpoint.load_student(folder)
    inputs = view(torch.cat([batch["input"] for batch in batches]), None)
    inputs, targets = inputs[targets != IGNORE], targets[targets != IGNORE]
    size = {"in_shape": tuple(inputs.shape[1:]), "num_classes": data.sizes["num_classes"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ConvNet(**size, **OPTIONS)
        _train(model, inputs, targets)
    config = {"_target_": "kdzoo.models.ConvNet", **size, "in_shape": list(size["in_shape"]), **OPTIONS}
    checkpoint.save_model(model, config, folder)
    return model


def _train(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        rows = torch.randint(len(inputs), (BATCH,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()
        optimizer.step()
