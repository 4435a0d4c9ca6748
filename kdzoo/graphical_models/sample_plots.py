"""Figures of graphical models side by side: reconstructions, interpolations, sequences and densities.

Every function draws the models that it applies to, one row or panel each, writes one PNG and returns its path. If it
applies to none of them it writes nothing and returns None. The noise depends only on the order and the shapes of the
nodes, so models with the same nodes are drawn from the same noise.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.core.abilities import DrawsPictures, HasLogDensity, HasPixelScaling
from kdzoo.core.inference import inference
from kdzoo.graphical_models.families import Bernoulli, Normal
from kdzoo.graphical_models.graph import Graph

Models = Mapping[str, Graph]
Values = Mapping[str, Tensor]
View = Callable[[Tensor], Tensor]
"""Turns samples into images ``[n, c, h, w]`` in [0, 1]."""

# Sizes of the figures: enough to assess a model by eye, few enough to read on a page.
COLUMNS, PIECES = 12, 3
"""Images in a row, and sequences of bits in a column."""
STROKE_STEPS, ROLL_STEPS = 400, 160
"""Largest number of steps of pen strokes and of sequences of bits that is drawn."""
MAP_SIDE, GRID_SIDE = 12, 120
"""Images along a side of a map of latents, and grid points along a side of a density."""
MAX_POINTS = 2048
"""Largest number of observed points that is drawn; more hide the density behind them."""
STROKE_HEIGHT = 84
"""Height of a drawing of strokes in pixels, three times that of the images that networks compare."""
DENSITY_MARGIN = 0.3
"""Margin around the observed points of a density, as a share of their range, which shows misplaced mass."""
PIANO_KEYS = 88
"""Size of the vectors of piano rolls, whose axis is labelled by keys."""


def plot_model(models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:
    """Draw everything that applies to the models and the data; return the files.

    Args:
        models: Models by role; those that are not graphs are skipped.
        folder: Folder for the figures.
        data: Data module, which may implement :class:`kdzoo.core.abilities.HasPixelScaling` or
            :class:`kdzoo.core.abilities.DrawsPictures`. None: only figures that need no observations are drawn.
    """
    graphs = {name: model for name, model in models.items() if isinstance(model, Graph)}
    batch = _first_batch(data)
    view = _view(data, batch)
    paths = [
        interpolations(graphs, folder / "interpolations.png", view),
        latent_maps(graphs, folder / "latent_maps.png", view),
    ]
    if isinstance(batch, Mapping):
        paths += [
            reconstructions(graphs, batch, folder / "reconstructions.png", view),
            densities(graphs, _points(data, batch), folder / "densities.png"),
        ]
        if isinstance(data, DrawsPictures):
            paths.append(strokes(graphs, batch, data.pictures, folder / "strokes.png"))
        else:
            paths.append(piano_rolls(graphs, batch, folder / "rolls.png"))
    return [path for path in paths if path is not None]


# ---------------------------------------------------------------- images


def reconstructions(models: Models, batch: Values, path: Path, view: View) -> Path | None:
    """Draw observed images, and below them each model's mean image given latents from its posteriors.

    Only models with trained posteriors are drawn.

    Args:
        models: Models by name.
        batch: Batch whose first images are drawn.
        path: Path of the file.
        view: Turns samples into images.
    """
    first_rows = {key: value[:COLUMNS] for key, value in batch.items()}
    rows = {}
    for name, model in of_images(models):
        if not model.posteriors_trained:
            continue
        with inference(model):
            inputs, targets = model.observed(first_rows, model.inputs()), model.observed(first_rows, model.targets())
            noise = model.noise(len(first_rows["input"]), generator=_generator())
            own_noise = {node: value for node, value in noise.items() if node not in targets}
            trace = model.rollout(own_noise, inputs, forced=targets, infer=True)
            means = model.as_data({node: trace.distributions[node].mean for node in targets})
        rows[name] = shown_images(means, view)
    caption = "Test images, and each model's mean image given latents from its posteriors."
    with_data = {"data": shown_images(first_rows["input"], view), **rows} if rows else {}
    return draw_rows(with_data, path, title="Reconstructions", caption=caption)


def snapshot(model: nn.Module, *, view: View) -> Tensor | None:
    """Return ``COLUMNS`` images of a model from noise that is the same in every call; None for models without images.

    Args:
        model: A graph, or another model, which has none.
        view: Turns samples into images.

    Returns:
        Images ``[COLUMNS, c, h, w]`` in [0, 1].
    """
    if not isinstance(model, Graph) or not dict(of_images({"": model})):
        return None
    generator = _generator()
    noise = model.noise(COLUMNS, generator=generator)
    return _images(model, noise, _inputs(model, COLUMNS, generator), view)


def interpolations(models: Models, path: Path, view: View) -> Path | None:
    """Draw images while the noise of the first latent is interpolated between two draws; all other noise is fixed.

    It applies to models of images whose first latent is normal. :func:`interpolate_noise` interpolates the noise.
    """
    rows = {}
    for name, model in of_images(models):
        top = _top(model)
        if top is not None:
            generator = _generator()
            ends = model.noise(2, generator=generator)
            first, second = ends[top]
            noise = {**_repeated(ends, COLUMNS), top: interpolate_noise(first, second, torch.linspace(0, 1, COLUMNS))}
            rows[name] = _images(model, noise, _repeated(_inputs(model, 1, generator), COLUMNS), view)
    caption = "Images while the noise of the first latent moves between two draws, a row for each model."
    return draw_rows(rows, path, title="Interpolations", caption=caption)


def latent_maps(models: Models, path: Path, view: View) -> Path | None:
    """Draw a map of images over the two values of the first latent, one panel per model; all other noise is fixed.

    The noise takes the values of :func:`normal_grid`, so that equal areas of the map have equal probability. It applies
    to models of images whose first latent is normal and has two values.
    """
    panels = {}
    for name, model in of_images(models):
        top = _top(model)
        if top is not None and model.latents()[top].family.shape == (2,):
            generator = _generator()
            noise = _repeated(model.noise(1, generator=generator), MAP_SIDE**2)
            noise[top] = normal_grid(MAP_SIDE)
            tiles = _images(model, noise, _repeated(_inputs(model, 1, generator), MAP_SIDE**2), view)
            panels[name] = torch.cat([torch.cat([*line], 2) for line in tiles.unflatten(0, (MAP_SIDE, MAP_SIDE))], 1)
    if not panels:
        return None
    arrays = {name: panel.numpy() for name, panel in panels.items()}
    return plotting.image_panels(
        arrays,
        path,
        xlabel="first value of the latent, by quantiles",
        ylabel="second value, by quantiles",
        title="Maps of the first latent",
        caption="Images over the two values of the first latent, by their quantiles; a panel per model.",
    )


def interpolate_noise(first: Tensor, second: Tensor, shares: Tensor) -> Tensor:
    """Return points on the arc from one noise to another (spherical linear interpolation), ``[len(shares), ...]``.

    Normal noise of many dimensions has almost constant length. Points on the straight line are shorter, and a model has
    not learned to decode them; the arc keeps the length. Ends that lie (nearly) on one line through the origin have no
    unique arc and are interpolated linearly.

    Args:
        first: Noise at share 0, ``[...]``.
        second: Noise at share 1, ``[...]``.
        shares: Shares of the way, in [0, 1].

    References:
        White 2016, Sampling generative networks, section 2.1.
    """
    cosine = torch.cosine_similarity(first.flatten(), second.flatten(), dim=0)
    angle = cosine.clamp(-1, 1).acos()  # rounding can leave the cosine slightly outside [-1, 1]
    if angle.sin() < 1e-3:  # the weights below would divide by it
        weights = torch.stack([1 - shares, shares])
    else:
        weights = torch.stack([((1 - shares) * angle).sin(), (shares * angle).sin()]) / angle.sin()
    of_first, of_second = weights.reshape(2, -1, *[1] * first.ndim)
    return of_first * first + of_second * second


def normal_grid(side: int) -> Tensor:
    """Return a grid of normal quantiles at the middles of ``side`` equal shares, ``[side^2, 2]``.

    Points are listed row by row: the first number rises within a row, the second falls from row to row, so that it
    rises upwards in a figure.
    """
    quantiles = torch.special.ndtri((torch.arange(side) + 0.5) / side)
    second, first = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    return torch.stack([first, second], -1).flatten(0, 1)


# ---------------------------------------------------------------- sequences and points


def strokes(models: Models, batch: Values, ink: Callable[..., Tensor], path: Path) -> Path | None:
    """Draw observed pen strokes, and below them strokes of the same length that the models generate.

    It applies to models with a sequence. At most ``STROKE_STEPS`` steps are drawn.

    Args:
        models: Models by name.
        batch: Batch with ``input`` ``[b, T, 3]`` and, if steps are padded, ``mask`` ``[b, T]``.
        ink: Turns strokes ``[n, T, 3]``, their lengths ``[n]`` and a height in pixels into images, ink 1 and paper 0.
        path: Path of the file.
    """
    sequences, lengths = _sequences(models, batch, COLUMNS, STROKE_STEPS)
    images = {name: ink(steps, lengths, STROKE_HEIGHT) for name, steps in sequences.items()}
    # Lines of text are several times as wide as high: fewer of them fill a row.
    aspect = next((image.shape[3] // image.shape[2] for image in images.values()), 1)
    rows = {name: 1 - image[: max(1, COLUMNS // aspect)] for name, image in images.items()}
    caption = "Observed pen strokes, and strokes of the same length that each model generates."
    return draw_rows(rows, path, title="Pen strokes", caption=caption)


def piano_rolls(models: Models, batch: Values, path: Path) -> Path | None:
    """Draw observed sequences of binary vectors, and below them sequences of the same length that the models generate.

    It applies to models with a sequence whose targets are bits. At most ``ROLL_STEPS`` steps are drawn.

    Args:
        models: Models by name.
        batch: Batch with ``input`` ``[b, T, d]`` and, if steps are padded, ``mask`` ``[b, T]``.
        path: Path of the file.
    """
    of_bits = {
        name: model
        for name, model in models.items()
        if all(isinstance(node.family, Bernoulli) for node in model.targets().values())
    }
    sequences, lengths = _sequences(of_bits, batch, PIECES, ROLL_STEPS)
    if not sequences:
        return None
    time = torch.arange(next(iter(sequences.values())).shape[1])
    arrays = {name: (steps * (time < lengths[:, None])[..., None]).numpy() for name, steps in sequences.items()}
    ylabel = "key" if batch["input"].shape[2] == PIANO_KEYS else "element"
    return plotting.sequence_heatmaps(arrays, path, ylabel=ylabel, title="Observed and generated sequences")


def densities(models: Models, points: Tensor, path: Path) -> Path | None:
    """Draw the density of each model over observed points ``[n, 2]``.

    It applies to models of points in the plane that implement :class:`kdzoo.core.abilities.HasLogDensity`.
    """
    if points.ndim != 2 or points.shape[1] != 2:
        return None
    shown = points[:MAX_POINTS].float().cpu()
    low, high = shown.amin(0), shown.amax(0)
    margin = (DENSITY_MARGIN * (high - low)).clamp_min(1e-3)  # equal points have no range
    x, y = (torch.linspace(float(low[i] - margin[i]), float(high[i] + margin[i]), GRID_SIDE) for i in (0, 1))
    grid = torch.cartesian_prod(y, x).flip(1)
    panels = {}
    for name, model in models.items():
        if isinstance(model, HasLogDensity):
            with inference(model):
                density = model.log_density(grid.to(model.like)).exp()
            panels[name] = density.reshape(GRID_SIDE, GRID_SIDE).float().cpu().numpy()
    return plotting.density_panels(panels, x.numpy(), y.numpy(), shown.numpy(), path) if panels else None


def _sequences(models: Models, batch: Values, count: int, max_steps: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return observed and generated sequences ``[n, T, d]`` by name, and their lengths ``[n]``.

    There are no sequences if no model has a sequence.

    Args:
        models: Models by name; those with a sequence are used.
        batch: Batch of observations.
        count: Upper limit of n.
        max_steps: Upper limit of T.
    """
    with_sequence = {name: model for name, model in models.items() if model.scan is not None}
    observed = batch["input"][:count].float().cpu()
    if observed.ndim != 3 or not with_sequence:
        return {}, torch.empty(0)
    mask = batch["mask"][:count].cpu() if "mask" in batch else torch.ones(observed.shape[:2], dtype=torch.bool)
    lengths = mask.sum(1).clamp(max=max_steps)
    steps = int(lengths.max())
    sequences = {"data": observed[:, :steps]}
    for name, model in with_sequence.items():
        generator = _generator()
        with inference(model):
            given = _inputs(model, len(observed), generator, steps)
            noise = model.noise(len(observed), generator=generator, steps=steps)
            sequences[name] = model.samples(noise, given).float().cpu()
    return sequences, lengths


# ---------------------------------------------------------------- helpers


def _generator() -> torch.Generator:
    """Return a new generator, so that all models and all calls see the same random numbers."""
    return torch.Generator().manual_seed(0)


def _inputs(model: Graph, n: int, generator: torch.Generator, steps: int | None = None) -> dict[str, Tensor]:
    """Return drawn values of the model's inputs, on its device."""
    drawn = model.draw_inputs(n, generator=generator, steps=steps)
    return {name: value.to(model.like) for name, value in drawn.items()}


def _points(data: Any, batch: Values) -> Tensor:
    """Return the inputs of the first test batch, or at least ``MAX_POINTS`` points ``[n, d]`` of the test split."""
    if batch["input"].ndim != 2:
        return batch["input"]
    points: list[Tensor] = []
    for next_batch in data.test_dataloader():
        points.append(next_batch["input"])
        if sum(map(len, points)) >= MAX_POINTS:
            break
    return torch.cat(points)


def _repeated(values: Values, n: int) -> dict[str, Tensor]:
    """Return the first row of each value, repeated n times."""
    return {name: value[:1].expand(n, *value.shape[1:]) for name, value in values.items()}


def of_images(models: Models) -> Iterator[tuple[str, Graph]]:
    """Yield the models whose samples are images ``[n, c, h, w]``."""
    for name, model in models.items():
        families = [node.family for node in model.targets().values()]
        if model.scan is None and len(families) == 1 and len(families[0].shape) == 3:
            yield name, model


def _top(model: Graph) -> str | None:
    """Return the name of the first latent, if it is normal."""
    name, node = next(iter(model.latents().items()), (None, None))
    return name if node is not None and isinstance(node.family, Normal) else None


def _images(model: Graph, noise: Values, inputs: Values, view: View) -> Tensor:
    """Return the images that a model generates from noise."""
    with inference(model):
        return shown_images(model.samples(noise, inputs), view)


def shown_images(images: Tensor, view: View) -> Tensor:
    """Return samples as images on the CPU."""
    return view(images.float().cpu())


def draw_rows(rows: Values, path: Path, *, title: str, caption: str) -> Path | None:
    """Draw rows of images; nothing without rows."""
    arrays = {name: row.numpy() for name, row in rows.items()}
    return plotting.image_rows(arrays, path, title=title, caption=caption) if rows else None


def view_of(data: Any) -> View:
    """Return the function that turns the values of a data set, whose test split fixes the scale, into pixels."""
    return _view(data, _first_batch(data))


def _view(data: Any, batch: Any) -> View:
    return pixel_view(data, batch["input"] if isinstance(batch, Mapping) else None)


def _first_batch(data: Any) -> Any:
    """Return the first batch of the test split; None without data."""
    return next(iter(data.test_dataloader() or ()), None) if data is not None else None


def pixel_view(data: Any, observed: Tensor | None = None) -> View:
    """Return the function that turns the values of a data set into pixels in [0, 1].

    Args:
        data: Data module that may implement :class:`kdzoo.core.abilities.HasPixelScaling`; otherwise its values are
            pixels already.
        observed: Observed images, whose brightest pixel becomes 1. Some data sets do not use the whole range: the
            brightest pixel of the digits of scikit-learn is 16 of 255.
    """
    if not isinstance(data, HasPixelScaling):
        return lambda images: images.clamp(0, 1)
    mean, std = (torch.tensor(data.pixels[key]).reshape(-1, 1, 1) for key in ("mean", "std"))
    brightest = 1.0 if observed is None else float((observed * std + mean).max())
    return lambda images: ((images * std + mean) / brightest).clamp(0, 1)
