"""Figures of chains: what their bonds hold, which inputs matter, and their graph.

Every function writes one PNG and returns its path. Models are named, and stand side by side in one figure.
"""

import textwrap
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
from kdzoo.tensor_networks import network
from kdzoo.tensor_networks.entanglement import entropies, orthonormal_legs, squared_shares
from kdzoo.tensor_networks.features import gram_matrices
from kdzoo.tensor_networks.relevance import main_effect
from kdzoo.tensor_networks.sobol import feature_moments, sobol_indices

DPI = 120
MOST_NODES = 24
"""Sites of the largest chain whose graph is drawn."""
LEAST_SHARE = 1e-12
"""Share of the mean square that has the darkest colour, or less."""


@dataclass(frozen=True)
class Chain:
    """A chain, and inputs as it sees them.

    Attributes:
        sites: cores (n_left, d, n_right) from the left end; open boundaries.
        centre: output core (left, outputs, right).
        out_site: site before which it is.
        order: position in the flat input of each site.
        grid: shape of that input as images, (channels, height, width) or those of its patches; unused if it is none.
        phi: features (sites, d, samples) of the inputs whose marginal distributions are the measure.
        shown: features (sites, d, examples) of the inputs that are explained.
    """

    sites: Sequence[Tensor]
    centre: Tensor
    out_site: int
    order: Tensor
    grid: Sequence[int]
    phi: Tensor
    shown: Tensor


@dataclass(frozen=True)
class Examples:
    """Images that are explained, one for each of some classes.

    Attributes:
        images: (examples, channels, height, width).
        classes: the output that is explained for each.
        saliency: name of a model -> absolute derivative of that output (examples, channels, height, width).
    """

    images: Tensor
    classes: Sequence[int]
    saliency: Mapping[str, Tensor]


@dataclass(frozen=True)
class Row:
    """A row of maps that share one scale.

    Attributes:
        maps: (columns, height, width).
        colours: name of matplotlib's colour map.
        signed: whether 0 is in the middle of the scale.
        label: of the scale; none: it is not drawn.
    """

    maps: Tensor
    colours: str = "viridis"
    signed: bool = False
    label: str = ""


def plot_model(chains: Mapping[str, Chain], folder: Path, examples: Examples | None = None) -> list[Path]:
    """Draw what fits: spectra, entropies and small graphs always, maps of the inputs where these are images.

    Args:
        chains: by name.
        folder: for the figures.
        examples: images that are explained; None: the inputs are none.
    """
    found = {}
    for name, one in chains.items():
        legs = orthonormal_legs(one.sites, gram_matrices(one.phi))
        found[name] = network.spectra(legs, one.centre, one.out_site)
    outputs = {name: one.out_site for name, one in chains.items()}
    files = [
        bond_spectra(found, outputs, folder / "bond_spectra.png"),
        bond_entropies(found, outputs, folder / "bond_entropies.png"),
    ]
    for name, one in chains.items():
        if len(one.sites) <= MOST_NODES:
            files.append(graph(one.sites, one.centre, one.out_site, folder / f"chain_{name}.png"))
    if examples is not None:
        files += [
            sobol_maps(chains, examples, folder / "sobol_maps.png"),
            relevance_maps(chains, examples, folder / "relevance_maps.png"),
        ]
    return files


# ---------------------------------------------------------------- bonds


def bond_spectra(spectra: Mapping[str, Sequence[Tensor]], out_sites: Mapping[str, int], path: Path) -> Path:
    """Draw the shares of all singular values of every bond, falling upwards, a panel for each name.

    Args:
        spectra: name -> singular values of every bond, of legs that are orthonormal.
        out_sites: name -> site before which the output core is.
        path: of the file.
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
        axes.set(title=_words(name), ylabel="singular value, by size")
        axes.yaxis.get_major_locator().set_params(integer=True)
    panels[-1].set_xlabel("bond, from the left end of the chain (dotted line: where the output is)")
    figure.colorbar(drawn, ax=list(panels), label="share of the mean square, log10")
    return _save(figure, path)


def bond_entropies(spectra: Mapping[str, Sequence[Tensor]], out_sites: Mapping[str, int], path: Path) -> Path:
    """Draw the entropy of every bond along the chain, and the most that a bond of its dimension could have.

    Args:
        spectra: name -> singular values of every bond, of legs that are orthonormal.
        out_sites: name -> site before which the output core is.
        path: of the file.
    """
    figure = Figure(figsize=(7.5, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, bonds in spectra.items():
        colour = ROLE_COLOURS.get(name)
        (line,) = axes.plot(entropies(bonds).numpy(), linewidth=1.2, label=_words(name), color=colour)
        most = np.log([len(values) for values in bonds])
        axes.plot(most, linewidth=0.8, linestyle="--", color=line.get_color(), alpha=0.5)
    for out_site in set(out_sites.values()):
        _mark_output(axes, out_site, "#777777")
    axes.plot([], [], linewidth=0.8, linestyle="--", color="#777777", label="log of the bond dimension")
    axes.plot([], [], linewidth=0.8, linestyle=":", color="#777777", label="output")
    axes.set(xlabel="bond, from the left end of the chain", ylabel="entropy (nats)", ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=len(spectra) + 2)
    return _save(figure, path)


# ---------------------------------------------------------------- inputs


def sobol_maps(chains: Mapping[str, Chain], examples: Examples, path: Path) -> Path:
    """Draw first-order and total Sobol indices of every pixel, a column for each class of the examples.

    The channels of a pixel are summed.
    """
    rows = {}
    for name, one in chains.items():
        found = sobol_indices(one.sites, one.centre, one.out_site, feature_moments(one.phi))
        for label, indices in (("alone", found.first), ("total", found.total)):
            shares = to_image(indices[list(examples.classes)], one)
            rows[f"{_words(name)}\n{label}"] = Row(shares, label="share")
    title = "Share of the variance of a class's logit that a pixel explains alone, and in which it has a part (total)"
    return maps(rows, [f"class {i}" for i in examples.classes], title, path)


def relevance_maps(chains: Mapping[str, Chain], examples: Examples, path: Path) -> Path:
    """Draw E[f_c | x_i] - E[f_c] of every pixel of an example of each class c, beside the saliency of other models.

    Channels are summed.
    """
    rows = {"input": Row(examples.images.mean(1), "gray")}
    at = torch.arange(len(examples.classes))
    for name, one in chains.items():
        found = main_effect(one.sites, one.centre, one.out_site, feature_moments(one.phi), one.shown)
        own = to_image(found[at, list(examples.classes)], one)
        rows[f"{_words(name)}\nrelevance"] = Row(own, "RdBu_r", signed=True, label="logit")
    for name, gradient in examples.saliency.items():
        rows[f"{_words(name)}\nsaliency"] = Row(gradient.sum(1), label="|slope|")
    title = "Relevance: mean logit of the image's class given the pixel, less the mean; saliency: slope of that logit"
    return maps(rows, [f"class {i}" for i in examples.classes], title, path)


def to_image(values: Tensor, chain: Chain) -> Tensor:
    """Return values of a chain's sites (n, sites) where these are in the image, summed over channels (n, h, w)."""
    found = torch.empty_like(values)
    found[:, chain.order] = values
    return found.unflatten(1, tuple(chain.grid)).sum(1)


def maps(rows: Mapping[str, Row], columns: Sequence[str], title: str, path: Path) -> Path:
    """Draw rows of maps, each row on one scale, below a title and the names of the columns."""
    count = len(columns)
    figure = Figure(figsize=(2.0 + 0.85 * count, 0.7 + 0.95 * len(rows)), layout="constrained")
    figure.suptitle(textwrap.fill(title, 12 + 12 * count), fontsize=10)
    grid = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, row) in zip(grid, rows.items(), strict=True):
        values = row.maps.double().numpy()
        high = float(np.abs(values).max() if row.signed else values.max()) or 1.0
        low = -high if row.signed else min(0.0, float(values.min()))
        for axes, one in zip(line, values, strict=True):
            drawn = axes.imshow(one, cmap=row.colours, vmin=low, vmax=high, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation="horizontal", ha="right", va="center")
        if row.label:
            figure.colorbar(drawn, ax=list(line), label=row.label, pad=0.01, aspect=8)
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=9)
    return _save(figure, path)


# ---------------------------------------------------------------- the graph


def graph(sites: Sequence[Tensor], centre: Tensor, out_site: int, path: Path) -> Path:
    """Draw a small chain as a tensor network: its tensors, and the dimension of every leg.

    Args:
        sites: cores (n_left, d, n_right) from the left end; open boundaries.
        centre: output core (left, outputs, right).
        out_site: site before which it is.
        path: of the file.

    Raises:
        ConfigError: the chain has more than 24 sites.
    """
    if len(sites) > MOST_NODES:
        raise ConfigError(f"a graph is drawn of at most {MOST_NODES} sites, got {len(sites)}")
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
            if other > x:
                axes.plot([x, other], [0, 0], color="#333333", linewidth=1.2, zorder=1)
                axes.text((x + other) / 2, 0.1, str(edge.dimension), fontsize=8, color="#555555", ha="center")
        colour = ROLE_COLOURS["control" if is_output else "student"]
        axes.scatter([x], [0], s=260, color=colour, zorder=2)
        label = "outputs" if is_output else node.name.removeprefix("site ")
        height, ink = (1.1, "#333333") if is_output else (0, "white")
        axes.text(x, height, label, ha="center", va="center", fontsize=8, color=ink)
    axes.text(len(nodes) / 2 - 0.5, -1.15, "features of each site's input", ha="center", fontsize=8, color="#333333")
    axes.set(xlim=(-0.6, len(nodes) - 0.4), ylim=(-1.3, 1.3))
    axes.set_axis_off()
    return _save(figure, path)


# ---------------------------------------------------------------- parts


def _mark_output(axes: Any, out_site: int, colour: str) -> None:
    """Draw a line between the two bonds of the output core."""
    axes.axvline(out_site - 0.5, color=colour, linewidth=0.8, linestyle=":")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path
