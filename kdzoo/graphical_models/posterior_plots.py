"""Figures of what models of images infer: codes of test images, images between two codes, the same code in all classes.

They apply to models with trained posteriors whose latents are all normal; an image is encoded by the means of its
posteriors. Every function writes one PNG and returns its path, or returns None if it applies to none of the models.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.core.inference import inference
from kdzoo.graphical_models.families import Categorical, Normal
from kdzoo.graphical_models.graph import Graph, Trace
from kdzoo.graphical_models.inference_scores import can_be_weighted, infer_means, posterior_means
from kdzoo.graphical_models.sample_plots import Models, Values, View, draw_rows, of_images, pixel_view, shown_images

STEPS = 10
"""Images from one test image to another, as in the figures of autoencoders that this one follows."""
SOURCES = 6
"""Test images whose codes are decoded in every class, one line of the figure each."""
MAX_CODES = 2000
"""Largest number of codes that is drawn; more hide each other."""


def plot_model(models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:
    """Draw everything that applies to the models and the data; return the files.

    Args:
        models: Models by role; those that are not graphs with trained posteriors are skipped.
        folder: Folder for the figures.
        data: Data module with a test split; without it nothing is drawn.
    """
    inferring = {name: model for name, model in models.items() if isinstance(model, Graph) and _infers(model)}
    batches = list(_first_batches(data)) if inferring and data is not None else []
    if not batches or len(batches[0]["input"]) < 2:
        return []
    view = pixel_view(data, batches[0]["input"])
    paths = [
        image_interpolations(inferring, batches[0], folder / "image_interpolations.png", view),
        style_transfer(inferring, batches[0], folder / "styles.png", view),
        codes(inferring, batches, folder / "codes.png"),
    ]
    return [path for path in paths if path is not None]


def image_interpolations(models: Models, batch: Values, path: Path, view: View) -> Path | None:
    """Draw ten steps from a test image to another: in pixels, and by each model between the codes of both.

    Args:
        models: Models by name.
        batch: Batch whose first two images are the ends; those of a condition are interpolated as well.
        path: Path of the file.
        view: Turns samples into images.
    """
    ends = {key: value[:2] for key, value in batch.items()}
    rows = {}
    for name, model in of_images(models):
        with inference(model):
            encoded = infer_means(model, ends)
            mixed = {node: between(encoded.values[node]) for node in (*model.inputs(), *model.latents())}
            rows[name] = shown_images(_decoded(model, mixed), view)
    if not rows:
        return None
    pixels = shown_images(between(ends["input"]), view)
    caption = "Ten steps from one test image to another: mixed pixels, and images between the codes of both."
    return draw_rows({"pixels": pixels, **rows}, path, title="From image to image", caption=caption)


def style_transfer(models: Models, batch: Values, path: Path, view: View) -> Path | None:
    """Draw test images, and beside each the images that its code gives with every class as condition.

    It applies to models whose only input is a class. A panel per model has a line per test image.
    """
    sources = {key: value[:SOURCES] for key, value in batch.items()}
    panels = {}
    for name, model in of_images(models):
        label = next(iter(model.inputs().values()), None)
        if label is None or len(model.inputs()) > 1 or not isinstance(label.family, Categorical):
            continue
        (n_classes,), n = label.family.shape, len(sources["input"])
        with inference(model):
            encoded = infer_means(model, sources)
            values = {node: encoded.values[node].repeat_interleave(n_classes, 0) for node in model.latents()}
            classes = torch.eye(n_classes).to(model.like).repeat(n, 1)
            images = shown_images(_decoded(model, {**values, label.name: classes}), view)
        with_source = [shown_images(sources["input"], view)[:, None], images.unflatten(0, (n, n_classes))]
        lines = torch.cat(with_source, 1)  # [n, 1 + classes, channels, height, width]
        panels[name] = torch.cat([torch.cat([*line], 2) for line in lines], 1).numpy()
    if not panels:
        return None
    return plotting.image_panels(
        panels,
        path,
        xlabel="test image, then its code with each class",
        ylabel="test images",
        title="One style, every class",
        caption="The code of the test image on the left is decoded with every class as condition; a panel per model.",
    )


def codes(models: Models, batches: Sequence[Values], path: Path) -> Path | None:
    """Draw the codes of test images in the colours of their classes, for models whose first latent has two values."""
    labels = torch.cat([batch["target"] for batch in batches]) if "target" in batches[0] else torch.empty(0)
    if labels.ndim != 1 or not (labels >= 0).any():
        return None
    panels = {}
    for name, model in models.items():
        first, node = next(iter(model.latents().items()))
        if node.family.shape == (2,):
            panels[name] = posterior_means(model, batches)[first].float().numpy()
    if not panels:
        return None
    caption = "Means of the posteriors of test images, in the colours of their classes; a panel per model."
    return plotting.class_scatter(panels, labels.numpy(), path, title="Codes of test images", caption=caption)


def _infers(model: Graph) -> bool:
    """Return whether a model has trained posteriors of normal latents alone."""
    latents = model.latents().values()
    is_normal = bool(latents) and all(isinstance(node.family, Normal) for node in latents)
    return is_normal and bool(model.posteriors_trained) and can_be_weighted(model)


def _first_batches(data: Any) -> Iterator[dict[str, Tensor]]:
    """Yield test batches until there are enough codes for a figure."""
    count = 0
    for batch in data.test_dataloader() or ():
        if not isinstance(batch, Mapping) or count >= MAX_CODES:
            return
        yield {key: value[: MAX_CODES - count] for key, value in batch.items()}
        count += len(batch["input"])


def between(ends: Tensor) -> Tensor:
    """Return ten points on the line between two values, ``[10, ...]`` of ``[2, ...]``."""
    # A straight line, not the arc of noise: means of posteriors do not have the length of noise.
    shares = torch.linspace(0, 1, STEPS, device=ends.device).reshape(-1, *[1] * (ends.ndim - 1))
    return (1 - shares) * ends[0] + shares * ends[1]


def _decoded(model: Graph, values: Values) -> Tensor:
    """Return the mean images given all inputs and latents."""
    inputs = {name: values[name] for name in model.inputs()}
    trace: Trace = model.rollout({}, inputs, forced={name: values[name] for name in model.latents()})
    return model.as_data({name: trace.distributions[name].mean for name in model.targets()})
