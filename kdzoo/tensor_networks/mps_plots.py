"""Figures of chains: what their bonds hold, which inputs matter, and their graph.

Every function writes one PNG file and returns its path. Models are named, and stand side by side in one figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kdzoo.errors import ConfigError
from kdzoo.plotting import ROLE_COLOURS
from kdzoo.plotting.style import display_name, save_figure, styles
from kdzoo.tensor_networks import network
from kdzoo.tensor_networks.entanglement import entropies, orthonormal_legs, squared_shares
from kdzoo.tensor_networks.features import gram_matrices
from kdzoo.tensor_networks.relevance import main_effect
from kdzoo.tensor_networks.sobol import feature_moments, sobol_indices

MAX_NODES = 24  # sites of the longest chain whose graph is drawn: a node takes 0.8 inches
LEAST_SHARE = 1e-12  # end of the colour scale; smaller shares of the mean square are rounding, about (1e-6)^2


@dataclass(frozen=True)
class ChainView:
    """A chain as the figures take it: its tensors, and the features of inputs.

    Attributes:
        sites: Core ``[left, d, right]`` of every site, from the left end; open boundaries.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        order: Position in the flat input of each site ``[sites]``.
        grid: Shape ``[channels, height, width]`` of the image that the sites form; not used if inputs are not images.
        phi: Features ``[sites, d, samples]`` of the inputs whose marginal distributions are the measure.
        example_phi: Features ``[sites, d, examples]`` of the inputs that are explained.
    """

    sites: Sequence[Tensor]
    centre: Tensor
    out_site: int
    order: Tensor
    grid: Sequence[int]
    phi: Tensor
    example_phi: Tensor

    @property
    def tensors(self) -> tuple[Sequence[Tensor], Tensor, int]:
        """The first arguments of most functions of this package."""
        return self.sites, self.centre, self.out_site


@dataclass(frozen=True)
class Examples:
    """Images that are explained, one for each of some classes.

    Attributes:
        images: Images ``[examples, channels, height, width]``.
        classes: The output that is explained for each image.
        saliency: Name of a model -> absolute derivative of that output ``[examples, channels, height, width]``.
    """

    images: Tensor
    classes: Sequence[int]
    saliency: Mapping[str, Tensor]


@dataclass(frozen=True)
class Row:
    """A row of maps that share one scale.

    Attributes:
        maps: Values ``[columns, height, width]``.
        colours: Name of a colour map of matplotlib.
        signed: Whether 0 is in the middle of the scale.
        label: Label of the scale; if it is empty, the scale is not drawn.
    """

    maps: Tensor
    colours: str = "viridis"
    signed: bool = False
    label: str = ""


def plot_views(views: Mapping[str, ChainView], folder: Path, examples: Examples | None = None) -> list[Path]:
    """Draw spectra, entropies and the graphs of short chains, and maps of the inputs if there are example images.

    Args:
        views: Chains by name.
        folder: Where the figures are written.
        examples: Images that are explained. None: inputs are not images.

    Returns:
        Paths of the figures.
    """
    spectra = {}
    for name, view in views.items():
        # Singular values describe the function only in features that are orthonormal under the measure.
        cores = orthonormal_legs(view.sites, gram_matrices(view.phi))
        spectra[name] = network.spectra(cores, view.centre, view.out_site)
    out_sites = {name: view.out_site for name, view in views.items()}
    files = [
        bond_spectra(spectra, out_sites, folder / "bond_spectra.png"),
        bond_entropies(spectra, out_sites, folder / "bond_entropies.png"),
    ]
    for name, view in views.items():
        if len(view.sites) <= MAX_NODES:
            path, title = folder / f"chain_{name}.png", f"Tensors of the {display_name(name)}"
            files.append(graph(*view.tensors, path, title=title))
    if examples is not None:
        files += [
            sobol_maps(views, examples, folder / "sobol_maps.png"),
            relevance_maps(views, examples, folder / "relevance_maps.png"),
        ]
    return files


# ---------------------------------------------------------------- bonds


def bond_spectra(spectra: Mapping[str, Sequence[Tensor]], out_sites: Mapping[str, int], path: Path) -> Path:
    """Draw the shares of all singular values of every bond, the largest at the bottom, a panel for each name.

    Args:
        spectra: Name -> singular values ``[bond]`` of every bond, for orthonormal features.
        out_sites: Name -> site before which the output core stands.
        path: File to write.
    """
    figure = Figure(figsize=(7.5, 0.8 + 2.2 * len(spectra)), layout="constrained")
    panels = figure.subplots(len(spectra), 1, squeeze=False)[:, 0]
    for axes, (name, bonds) in zip(panels, spectra.items(), strict=True):
        table = np.full((max(map(len, bonds)), len(bonds)), np.nan)
        for i, values in enumerate(bonds):
            table[: len(values), i] = np.log10(squared_shares(values).clamp_min(LEAST_SHARE).numpy())
        box = (-0.5, len(bonds) - 0.5, 0.5, len(table) + 0.5)
        scale: dict[str, Any] = {"vmin": np.log10(LEAST_SHARE), "vmax": 0, "cmap": "viridis"}
        drawn = axes.imshow(table, origin="lower", aspect="auto", interpolation="nearest", extent=box, **scale)
        _mark_output(axes, out_sites[name], "white")
        axes.set_title(display_name(name), fontsize=9)
        axes.set_ylabel("singular value, by size")
        axes.yaxis.get_major_locator().set_params(integer=True)
    panels[-1].set_xlabel("bond, from the left end of the chain")
    figure.colorbar(drawn, ax=list(panels), label="share of the mean square, log10")
    return save_figure(
        figure,
        path,
        title="Singular values of the bonds",
        caption=(
            "Shares of the singular values of every bond in the function's mean square, the largest at the bottom; "
            "the dotted line shows where the output is."
        ),
    )


def bond_entropies(spectra: Mapping[str, Sequence[Tensor]], out_sites: Mapping[str, int], path: Path) -> Path:
    """Draw the entropy of every bond along the chain, and the largest that a bond of its dimension can have.

    Args:
        spectra: Name -> singular values ``[bond]`` of every bond, for orthonormal features.
        out_sites: Name -> site before which the output core stands.
        path: File to write.
    """
    figure = Figure(figsize=(7.5, 3.5), layout="constrained")
    axes = figure.subplots()
    of_model = styles(spectra)
    for name, bonds in spectra.items():
        style = of_model[name]
        look = style.of_line(has_markers=len(bonds) <= MAX_NODES)
        axes.plot(entropies(bonds).numpy(), linewidth=1.2, markersize=4, label=display_name(name), **look)
        # Steps: the dashes of the line itself distinguish it from the curves, whose dashes tell the models apart.
        most = np.log([len(values) for values in bonds])
        axes.step(range(len(bonds)), most, where="mid", linewidth=0.8, color=style.colour, alpha=0.5)
    for out_site in set(out_sites.values()):
        _mark_output(axes, out_site, "#777777")
    axes.plot([], [], linewidth=0.8, color="#777777", label="log of the bond dimension")
    axes.plot([], [], linewidth=0.8, linestyle=":", color="#777777", label="output")
    axes.set(xlabel="bond, from the left end of the chain", ylabel="entropy (nats)", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=len(spectra) + 2)
    return save_figure(
        figure,
        path,
        title="Entropies of the bonds",
        caption="Entropy of every bond along the chain, and the largest that a bond of its dimension can have.",
    )


# ---------------------------------------------------------------- inputs


def sobol_maps(views: Mapping[str, ChainView], examples: Examples, path: Path) -> Path:
    """Draw first-order and total Sobol indices of every pixel, a column for each class of the examples.

    The indices of the channels of a pixel are summed.
    """
    rows = {}
    for name, view in views.items():
        sobol = sobol_indices(*view.tensors, feature_moments(view.phi))
        for label, indices in (("alone", sobol.first), ("total", sobol.total)):
            shares = to_image(indices[list(examples.classes)], view)
            rows[f"{display_name(name)}\n{label}"] = Row(shares, label="share")
    caption = (
        "Share of the variance of a class's logit that a pixel explains alone, and in which it has a part (total), a "
        "column for each class."
    )
    columns = [f"class {i}" for i in examples.classes]
    return maps(rows, columns, path, title="Sobol indices of the pixels", caption=caption)


def relevance_maps(views: Mapping[str, ChainView], examples: Examples, path: Path) -> Path:
    """Draw E[f_c | x_i] - E[f_c] of every pixel of an example of each class c, next to the saliency of other models.

    The values of the channels of a pixel are summed.
    """
    rows = {"input": Row(examples.images.mean(1), "gray")}
    index = torch.arange(len(examples.classes))
    for name, view in views.items():
        effects = main_effect(*view.tensors, feature_moments(view.phi), view.example_phi)
        own_class = to_image(effects[index, list(examples.classes)], view)
        rows[f"{display_name(name)}\nrelevance"] = Row(own_class, "RdBu_r", signed=True, label="logit")
    for name, gradient in examples.saliency.items():
        rows[f"{display_name(name)}\nsaliency"] = Row(gradient.sum(1), label="|slope|")
    caption = (
        "Relevance: mean logit of the image's class given the pixel, less the mean; saliency: slope of that logit. A "
        "column for each class."
    )
    columns = [f"class {i}" for i in examples.classes]
    return maps(rows, columns, path, title="Relevance of the pixels of an image", caption=caption)


def to_image(values: Tensor, view: ChainView) -> Tensor:
    """Return values of the sites ``[n, sites]`` as images, summed over channels ``[n, height, width]``."""
    by_position = torch.empty_like(values)
    by_position[:, view.order] = values
    return by_position.unflatten(1, tuple(view.grid)).sum(1)


def maps(rows: Mapping[str, Row], columns: Sequence[str], path: Path, *, title: str, caption: str) -> Path:
    """Draw rows of maps, each row on one scale, below a title and the names of the columns."""
    count = len(columns)
    figure = Figure(figsize=(2.0 + 0.85 * count, 0.7 + 0.95 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, row) in zip(grid, rows.items(), strict=True):
        values = row.maps.double().numpy()
        high = float(np.abs(values).max() if row.signed else values.max()) or 1.0  # a row of zeros needs some scale
        low = -high if row.signed else min(0.0, float(values.min()))
        for axes, image in zip(line, values, strict=True):
            drawn = axes.imshow(image, cmap=row.colours, vmin=low, vmax=high, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation="horizontal", ha="right", va="center")
        if row.label:
            figure.colorbar(drawn, ax=list(line), label=row.label, pad=0.01, aspect=8)
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=9)
    return save_figure(figure, path, title=title, caption=caption)


# ---------------------------------------------------------------- the graph


def graph(sites: Sequence[Tensor], centre: Tensor, out_site: int, path: Path, *, title: str) -> Path:
    """Draw a short chain as a tensor network: its tensors, and the dimension of every leg.

    Args:
        sites: Core ``[left, d, right]`` of every site, from the left end; open boundaries.
        centre: Output core ``[left, outputs, right]``.
        out_site: The output core stands before this site.
        path: File to write.
        title: Title of the figure.

    Raises:
        ConfigError: The chain has more than 24 sites.
    """
    if len(sites) > MAX_NODES:
        raise ConfigError(f"a graph is drawn of at most {MAX_NODES} sites, got {len(sites)}")
    nodes = network.as_nodes(sites, centre, out_site)
    places = {node: i for i, node in enumerate(nodes)}
    figure = Figure(figsize=(max(4.0, 0.8 * len(nodes) + 0.6), 2.4), layout="constrained")
    axes = figure.subplots()
    for node, x in places.items():
        is_output = node.name == "output"
        for edge in node.get_all_dangling():
            end = 0.9 if is_output else -0.9
            axes.plot([x, x], [0, end], color="#777777", linewidth=1.2, zorder=1)
            axes.text(x + 0.08, end * 0.72, str(edge.dimension), fontsize=8, color="#555555", va="center")
        for edge in node.get_all_nondangling():
            other = places[edge.node2 if edge.node1 is node else edge.node1]
            if other > x:  # an edge is met from both of its nodes
                axes.plot([x, other], [0, 0], color="#333333", linewidth=1.2, zorder=1)
                axes.text((x + other) / 2, 0.1, str(edge.dimension), fontsize=8, color="#555555", ha="center")
        colour = ROLE_COLOURS["control" if is_output else "student"]
        axes.scatter([x], [0], s=260, color=colour, marker="s" if is_output else "o", zorder=2)
        label = "outputs" if is_output else node.name.removeprefix("site ")
        height, ink = (1.1, "#333333") if is_output else (0, "white")
        axes.text(x, height, label, ha="center", va="center", fontsize=8, color=ink)
    axes.text(len(nodes) / 2 - 0.5, -1.15, "features of each site's input", ha="center", fontsize=8, color="#333333")
    axes.set(xlim=(-0.6, len(nodes) - 0.4), ylim=(-1.3, 1.3))
    axes.set_axis_off()
    return save_figure(
        figure,
        path,
        title=title,
        caption=(
            "The chain as a tensor network: its tensors, numbered by their sites, and the dimension of every leg. The "
            "square is the output core."
        ),
    )


# ---------------------------------------------------------------- parts


def _mark_output(axes: Any, out_site: int, colour: str) -> None:
    """Draw a line between the two bonds of the output core."""
    axes.axvline(out_site - 0.5, color=colour, linewidth=0.8, linestyle=":")
