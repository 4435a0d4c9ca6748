"""Figures of a report about the chains among its models: which are drawn, under which measure, and with which examples.

The figures themselves are in :mod:`kdzoo.tensor_networks.mps_plots` and :mod:`kdzoo.plotting`. Expectations are under
the product of the marginal distributions of the training inputs.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.errors import ConfigError
from kdzoo.tensor_networks import mps_plots
from kdzoo.tensor_networks.chain_module import ChainModule
from kdzoo.tensor_networks.mps_plots import ChainView, Examples
from kdzoo.tensor_networks.relevance import saliency as saliency_of
from kdzoo.tensor_networks.sobol import feature_moments, pairwise_indices, sobol_indices

PAIRED_INPUTS = 200
"""Inputs among which pairs are searched, those with the largest total Sobol indices. The indices of all pairs of 784
pixels would take 15 times as long, and an input without a total index is part of no pair."""
SHOWN_PAIRS = 12  # lines on an image; more of them hide it
PAIRS_TITLE = "Interaction of pairs of inputs"
PAIRS_CAPTION = "Share of the variance of a class's logit that two inputs explain together beyond what each does alone."


def open_chains(models: Mapping[str, nn.Module]) -> dict[str, ChainModule]:
    """Return the models that can be drawn: chains whose ends do not share a bond."""
    return {
        name: model for name, model in models.items() if isinstance(model, ChainModule) and model.boundary == "open"
    }


def plot_chains(
    models: Mapping[str, nn.Module],
    train_inputs: Tensor,
    example_inputs: Tensor,
    example_classes: Sequence[int],
    folder: Path,
    *,
    saliency: Sequence[str] = (),
) -> list[Path]:
    """Draw the chains among some models, side by side.

    Spectra and entropies of the bonds, pairs of inputs and the graphs of short chains are drawn for any input; maps of
    the inputs need images and examples.

    Args:
        models: Models by name; those that are not open chains are not drawn.
        train_inputs: Inputs whose marginal distributions are the measure ``[samples, ...]``.
        example_inputs: Inputs that are explained ``[examples, ...]``.
        example_classes: The output that is explained for each example.
        folder: Where the figures are written.
        saliency: Names of models whose saliency is drawn next to the relevance; a model without gradients is left out.

    Returns:
        Paths of the figures.
    """
    views = {name: chain_view(model, train_inputs, example_inputs) for name, model in open_chains(models).items()}
    if not views:
        return []
    pairs_file = folder / "sobol_pairs.png"
    if example_inputs.ndim != 4 or not example_classes:
        return [*mps_plots.plot_views(views, folder), pair_matrices(views, pairs_file)]
    slopes = {}
    own_class = torch.arange(len(example_classes)), torch.tensor(example_classes)
    for name in saliency:
        with suppress(ConfigError):  # a model behind an API has no gradients
            slopes[name] = saliency_of(models[name], example_inputs)[own_class]
    examples = Examples(example_inputs, example_classes, slopes)
    return [*mps_plots.plot_views(views, folder, examples), pairs_on_images(views, examples, pairs_file)]


def chain_view(model: ChainModule, train_inputs: Tensor, example_inputs: Tensor) -> ChainView:
    """Return the data of a chain that the figures show: its tensors, and the features of inputs ``[n, ...]``."""

    def features(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return model.features(inputs.to(model.cores)).double().cpu()

    return ChainView(
        sites=[core.cpu() for core in model.sites()],
        centre=model.centre.detach().double().cpu(),
        out_site=model.out_site,
        order=model.order.cpu(),
        grid=model.site_grid(example_inputs.shape[1:]),
        phi=features(train_inputs),
        example_phi=features(example_inputs),
    )


def strongest_pairs(view: ChainView) -> tuple[Tensor, Tensor]:
    """Return the inputs that matter most, and how strongly pairs of them act together.

    Returns:
        Positions of k inputs, increasing ``[k]``, and second-order Sobol indices of their pairs ``[outputs, k, k]``.
    """
    measure = feature_moments(view.phi)
    total = sobol_indices(*view.tensors, measure).total.amax(0)
    sites = total.topk(min(PAIRED_INPUTS, len(total))).indices
    sites = sites[view.order[sites].argsort()]
    return view.order[sites], pairwise_indices(*view.tensors, measure, sites.tolist())


def pairs_on_images(views: Mapping[str, ChainView], examples: Examples, path: Path) -> Path:
    """Draw the strongest pairs of pixels, or patches, of every class on an image of it."""
    rows: dict[str, list[plotting.Pairs]] = {}
    for name, view in views.items():
        positions, indices = strongest_pairs(view)
        spots = _centres(positions, view.grid, examples.images.shape[2:])
        upper = torch.triu_indices(len(positions), len(positions), 1)
        rows[name] = []
        for label in examples.classes:
            strengths, best = indices[label][upper[0], upper[1]].topk(min(SHOWN_PAIRS, upper.shape[1]))
            rows[name].append((spots[upper[:, best].T].numpy(), strengths.numpy()))
    names = [f"class {label}" for label in examples.classes]
    images = examples.images.mean(1).double().numpy()
    caption = f"{PAIRS_CAPTION} The larger it is, the wider is the line; the number below an image is the largest."
    return plotting.pairs_on_images(images, rows, names, path, title=PAIRS_TITLE, caption=caption)


def pair_matrices(views: Mapping[str, ChainView], path: Path) -> Path:
    """Draw the largest Sobol index of all classes for every pair of the inputs that matter most."""
    tables = {}
    for name, view in views.items():
        positions, indices = strongest_pairs(view)
        tables[name] = ([str(position) for position in positions.tolist()], indices.amax(0).numpy())
    caption = f"{PAIRS_CAPTION} The largest of all classes is drawn, for the inputs that matter most."
    return plotting.pair_matrices(tables, path, title=PAIRS_TITLE, caption=caption)


def _centres(positions: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return where the middle of each site is in an image, in pixels (row, column) ``[k, 2]``.

    Args:
        positions: Positions in the flat grid ``[k]``.
        grid: (channels, sites down, sites across).
        size: Height and width of the image.
    """
    _, down, across = grid
    height, width = size[0] / down, size[1] / across
    cells = positions % (down * across)  # the same place for every channel
    corners = torch.stack([cells // across * height, cells % across * width], 1).double()
    # pixel i covers [i - 0.5, i + 0.5] on the axes of a figure
    return corners + torch.tensor([height, width]) / 2 - 0.5
