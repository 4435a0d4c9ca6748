"""The classifier by which samples of images are measured: by its features, and by the classes that it sees in them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core.batch import IGNORE
from kdzoo.core.inference import inference
from kdzoo.models import ConvNet
from kdzoo.storage import checkpoint

# Training of the classifier: optimizer steps, images in each, learning rate of Adam. It takes seconds for small images.
# The features need not be those of the best classifier, but must be the same for all models that are compared.
STEPS, BATCH, RATE = 400, 128, 1e-3
# Size of the classifier. Its 64 hidden units are the features: the 64 x 64 covariance of a Frechet distance can be
# estimated from a few hundred samples.
OPTIONS: dict[str, Any] = {"channels": [16, 32], "hidden": 64}
# Samples that the classifier sees in one call: bounds the memory of its activations.
INPUTS_AT_ONCE = 512


@dataclass(frozen=True)
class EvaluationClassifier:
    """A small convolutional classifier of images, trained in the same way for every data set.

    Attributes:
        network: The network, which returns logits ``[n, num_classes]``.
        view: Turns samples ``[n, ...]`` into images ``[n, c, h, w]`` in [0, 1], the network's inputs.
    """

    network: nn.Module
    view: Callable[[Tensor], Tensor]

    @staticmethod
    def of(data: Any, view: Callable[[Tensor], Tensor], cache: Path) -> "EvaluationClassifier":
        """Return the classifier of a data set, trained on its training split, or from the cache.

        Args:
            data: The data module, after ``setup()``, whose batches have labels.
            view: Turns samples into images.
            cache: Folder with the classifiers of data sets, in which a new one is saved.
        """
        batches = list(data.train_eval_dataloader())
        targets = torch.cat([batch["target"] for batch in batches])
        # All that the weights depend on. The fingerprint of the data covers the inputs, not the labels.
        recipe = f"{data.fingerprint()} {STEPS} {BATCH} {RATE} {OPTIONS} {torch.__version__} {targets.tolist()}"
        folder = cache / "feature_extractors" / hashlib.sha256(recipe.encode()).hexdigest()[:16]
        # Loading a model also builds it, which must not advance the global random state: a run has the same draws with
        # and without a cache.
        with torch.random.fork_rng(devices=[]):
            if (folder / "config.json").exists():
                return EvaluationClassifier(checkpoint.load_student(folder), view)
        inputs = torch.cat([batch["input"] for batch in batches])
        network, sizes = _trained(view(inputs), targets, data.sizes["num_classes"])
        checkpoint.save_model(network, {"_target_": "kdzoo.models.ConvNet", **sizes, **OPTIONS}, folder)
        return EvaluationClassifier(network, view)

    def retrained(self, samples: Tensor, targets: Tensor, num_classes: int) -> "EvaluationClassifier":
        """Return the same network, trained in the same way on other samples ``[n, ...]`` and labels, int64 ``[n]``."""
        return replace(self, network=_trained(self.view(samples), targets, num_classes)[0])

    def classes(self, samples: Tensor) -> Tensor:
        """Return the most likely class of each sample, int64 ``[n]``."""
        with inference(self.network):
            return torch.cat([self.network(part).argmax(1) for part in self.view(samples).split(INPUTS_AT_ONCE)])

    def accuracy(self, samples: Tensor, targets: Tensor) -> float:
        """Return the share of samples ``[n, ...]`` whose most likely class is their label, int64 ``[n]``.

        Samples without a label, whose target is ``IGNORE``, do not count.
        """
        known = targets != IGNORE
        return float((self.classes(samples) == targets)[known].double().mean())


def _trained(images: Tensor, targets: Tensor, num_classes: int) -> tuple[nn.Module, dict[str, Any]]:
    """Return a classifier trained on images with labels, and its sizes."""
    sizes: dict[str, Any] = {"in_shape": list(images.shape[1:]), "num_classes": num_classes}
    images, targets = images[targets != IGNORE], targets[targets != IGNORE]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # one seed for all runs, so that their scores can be compared
        network = ConvNet(**sizes, **OPTIONS)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(0)
    # A plain loop; a trainer would take longer to set up than the training takes.
    for _ in range(STEPS):
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[rows]), targets[rows]).backward()
        optimizer.step()
    return network, sizes
