"""Pictures of graphical models side by side: what they make of observations, of their latents and of equal noise.

Every function draws those models that it fits, a row or a panel for each, writes one PNG and returns its path; where it
fits none it writes nothing and returns None. Noise is a function of the nodes' order and shapes alone, so that models
with the same nodes have the same.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.core.inference import inference
from kdzoo.graphical_models.families import Bernoulli, Normal
from kdzoo.graphical_models.graph import Graph

Models = Mapping[str, Graph]
Values = Mapping[str, Tensor]
View = Callable[[Tensor], Tensor]
"""Turns samples into pictures [n, c, h, w] in [0, 1]."""

COLUMNS, PIECES = 12, 3
"""Pictures in a row, and pieces of music."""
STROKE_STEPS, ROLL_STEPS = 400, 160
"""Steps of a sequence that are drawn."""
MAP_SIDE, GRID_SIDE = 12, 120
"""Pictures along a side of a map of latents, points along a side of a density."""
MOST_POINTS = 2048
"""Observed points that are drawn."""
INK_HEIGHT = 84
"""Pixels of the height of a drawing of strokes."""


def plot_model(models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:
    """Draw what fits the models and the data; return the files.

    Args:
        models: by role; what is no graph is passed over.
        folder: for the figures.
        data: the data module; it may say how pixels became numbers (``pixels``), or how sequences are
            drawn (``pictures`` of sequences, lengths and a height). None: only what needs no observations is drawn.
    """
    graphs = {name: model for name, model in models.items() if isinstance(model, Graph)}
    batch = next(iter(data.test_dataloader() or ()), None) if data is not None else None
    view = pixel_view(data, batch["input"] if isinstance(batch, Mapping) else None)
    found = [
        interpolations(graphs, folder / "interpolations.png", view),
        latent_maps(graphs, folder / "latent_maps.png", view),
    ]
    if isinstance(batch, Mapping):
        found += [
            reconstructions(graphs, batch, folder / "reconstructions.png", view),
            densities(graphs, _points(data, batch), folder / "densities.png"),
        ]
        if hasattr(data, "pictures"):
            found.append(strokes(graphs, batch, data.pictures, folder / "strokes.png"))
        else:
            found.append(rolls(graphs, batch, folder / "rolls.png"))
    return [path for path in found if path is not None]


# ---------------------------------------------------------------- images


def reconstructions(models: Models, batch: Values, path: Path, view: View) -> Path | None:
    """Draw observed images, and below them each model's mean image given latents from its posteriors.

    It fits models that infer.

    Args:
        models: by name.
        batch: of which the first images are drawn.
        path: of the file.
        view: turns images into pictures.
    """
    few = {key: value[:COLUMNS] for key, value in batch.items()}
    rows = {}
    for name, model in _of_images(models):
        if not model.infers:
            continue
        with inference(model):
            inputs, targets = model.observed(few, model.inputs()), model.observed(few, model.targets())
            noise = model.noise(len(few["input"]), generator=_generator())
            own = {node: value for node, value in noise.items() if node not in targets}
            trace = model.rollout(own, inputs, forced=targets, infer=True)
            means = model.as_data({node: trace.distributions[node].mean for node in targets})
        rows[name] = _shown(means, view)
    return _rows({"data": _shown(few["input"], view), **rows} if rows else {}, path)


def interpolations(models: Models, path: Path, view: View) -> Path | None:
    """Draw what lies between two images, as the first latent's noise goes from one to the other; all else stays.

    It fits models of images whose first latent is normal. The noise is interpolated by :func:`between`.
    """
    rows = {}
    for name, model in _of_images(models):
        top = _top(model)
        if top is not None:
            generator = _generator()
            ends = model.noise(2, generator=generator)
            first, second = ends[top]
            noise = {**_repeated(ends, COLUMNS), top: between(first, second, torch.linspace(0, 1, COLUMNS))}
            rows[name] = _images(model, noise, _repeated(_inputs(model, 1, generator), COLUMNS), view)
    return _rows(rows, path)


def latent_maps(models: Models, path: Path, view: View) -> Path | None:
    """Draw a map of images, a panel for each model, by the two values of its first latent; all other noise is one draw.

    The values' noise is the normal quantiles of the middles of equal shares, the first from left to right, the second
    from below upwards. It fits models of images whose first latent is normal and has two values.
    """
    panels = {}
    for name, model in _of_images(models):
        top = _top(model)
        if top is not None and model.latents()[top].family.shape == (2,):
            generator = _generator()
            noise = _repeated(model.noise(1, generator=generator), MAP_SIDE**2)
            noise[top] = normal_grid(MAP_SIDE)
            found = _images(model, noise, _repeated(_inputs(model, 1, generator), MAP_SIDE**2), view)
            panels[name] = torch.cat([torch.cat([*line], 2) for line in found.unflatten(0, (MAP_SIDE, MAP_SIDE))], 1)
    if not panels:
        return None
    arrays = {name: panel.numpy() for name, panel in panels.items()}
    return plotting.picture_panels(arrays, path, xlabel="first value, by quantiles", ylabel="second value")


def between(first: Tensor, second: Tensor, shares: Tensor) -> Tensor:
    """Return points on the way from one noise to another, [len(shares), ...]; share 0 is the first, 1 the second.

    The way is the arc of White 2016, "Sampling generative networks", section 2.1, which stays as far from the origin as
    normal noise lies. It is straight where the ends lie (nearly) on one line through the origin.

    Args:
        first: [...].
        second: [...].
        shares: of the way, in [0, 1].
    """
    cosine = torch.cosine_similarity(first.flatten(), second.flatten(), dim=0)
    angle = cosine.clamp(-1, 1).acos()
    if angle.sin() < 1e-3:
        weights = torch.stack([1 - shares, shares])
    else:
        weights = torch.stack([((1 - shares) * angle).sin(), (shares * angle).sin()]) / angle.sin()
    near, far = weights.reshape(2, -1, *[1] * first.ndim)
    return near * first + far * second


def normal_grid(side: int) -> Tensor:
    """Return pairs of normal quantiles at the middles of ``side`` equal shares, [side^2, 2].

    Row by row: the first number rises within a row, the second falls from row to row.
    """
    quantiles = torch.special.ndtri((torch.arange(side) + 0.5) / side)
    second, first = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    return torch.stack([first, second], -1).flatten(0, 1)


# ---------------------------------------------------------------- sequences and points


def strokes(models: Models, batch: Values, ink: Callable[..., Tensor], path: Path) -> Path | None:
    """Draw observed pen strokes, and below them as long ones that models make of equal noise.

    It fits models with a sequence. At most 400 steps are drawn.

    Args:
        models: by name.
        batch: with ``input`` [b, T, 3] and, where steps are padded, ``mask`` [b, T].
        ink: turns strokes [n, T, 3], their lengths [n] and a height in pixels into pictures, ink 1 and paper 0.
        path: of the file.
    """
    found, lengths = _sequences(models, batch, COLUMNS, STROKE_STEPS)
    found = {name: ink(steps, lengths, INK_HEIGHT) for name, steps in found.items()}
    wide = next((one.shape[3] // one.shape[2] for one in found.values()), 1)
    return _rows({name: 1 - one[: max(1, COLUMNS // wide)] for name, one in found.items()}, path)


def rolls(models: Models, batch: Values, path: Path) -> Path | None:
    """Draw observed sequences of bits, and below them those that models make of equal noise, each as long.

    It fits models with a sequence whose targets are bits. At most 160 steps are drawn.

    Args:
        models: by name.
        batch: with ``input`` [b, T, d] and, where steps are padded, ``mask`` [b, T].
        path: of the file.
    """
    of_bits = {
        name: model
        for name, model in models.items()
        if all(isinstance(node.family, Bernoulli) for node in model.targets().values())
    }
    found, lengths = _sequences(of_bits, batch, PIECES, ROLL_STEPS)
    if not found:
        return None
    time = torch.arange(next(iter(found.values())).shape[1])
    arrays = {name: (steps * (time < lengths[:, None])[..., None]).numpy() for name, steps in found.items()}
    return plotting.roll_rows(arrays, path, ylabel="key" if batch["input"].shape[2] == 88 else "element")


def densities(models: Models, points: Tensor, path: Path) -> Path | None:
    """Draw the density of each model over observed points [n, 2].

    It fits models that know their density in the plane (``log_density`` of points [n, 2]).
    """
    if points.ndim != 2 or points.shape[1] != 2:
        return None
    shown = points[:MOST_POINTS].float().cpu()
    low, high = shown.amin(0), shown.amax(0)
    edge = (0.3 * (high - low)).clamp_min(1e-3)
    x, y = (torch.linspace(float(low[i] - edge[i]), float(high[i] + edge[i]), GRID_SIDE) for i in (0, 1))
    grid = torch.cartesian_prod(y, x).flip(1)
    found = {}
    for name, model in models.items():
        log_density: Any = getattr(model, "log_density", None)
        if log_density is not None:
            with inference(model):
                density = log_density(grid.to(model.like)).exp()
            found[name] = density.reshape(GRID_SIDE, GRID_SIDE).float().cpu().numpy()
    return plotting.density_panels(found, x.numpy(), y.numpy(), shown.numpy(), path) if found else None


def _sequences(models: Models, batch: Values, count: int, most: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return observed and generated sequences [n, T, d] by name, and their lengths [n]; no sequences if no model fits.

    Args:
        models: of which those with a sequence fit.
        batch: of observations.
        count: n at most.
        most: T at most.
    """
    fitting = {name: model for name, model in models.items() if model.scan is not None}
    observed = batch["input"][:count].float().cpu()
    if observed.ndim != 3 or not fitting:
        return {}, torch.empty(0)
    mask = batch["mask"][:count].cpu() if "mask" in batch else torch.ones(observed.shape[:2], dtype=torch.bool)
    lengths = mask.sum(1).clamp(max=most)
    steps = int(lengths.max())
    found = {"data": observed[:, :steps]}
    for name, model in fitting.items():
        generator = _generator()
        with inference(model):
            given = _inputs(model, len(observed), generator, steps)
            noise = model.noise(len(observed), generator=generator, steps=steps)
            found[name] = model.samples(noise, given).float().cpu()
    return found, lengths


# ---------------------------------------------------------------- parts


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _inputs(model: Graph, n: int, generator: torch.Generator, steps: int | None = None) -> dict[str, Tensor]:
    drawn = model.draw_inputs(n, generator=generator, steps=steps)
    return {name: value.to(model.like) for name, value in drawn.items()}


def _points(data: Any, batch: Values) -> Tensor:
    """Return the inputs of the test part, at least the first ``MOST_POINTS`` of them if they are points [n, d]."""
    if batch["input"].ndim != 2:
        return batch["input"]
    found: list[Tensor] = []
    for other in data.test_dataloader():
        found.append(other["input"])
        if sum(map(len, found)) >= MOST_POINTS:
            break
    return torch.cat(found)


def _repeated(values: Values, n: int) -> dict[str, Tensor]:
    """Return the first row of each value n times."""
    return {name: value[:1].expand(n, *value.shape[1:]) for name, value in values.items()}


def _of_images(models: Models) -> Iterator[tuple[str, Graph]]:
    """Yield the models whose samples are images [n, c, h, w]."""
    for name, model in models.items():
        families = [node.family for node in model.targets().values()]
        if model.scan is None and len(families) == 1 and len(families[0].shape) == 3:
            yield name, model


def _top(model: Graph) -> str | None:
    """Return the name of the first latent, if it is normal."""
    name, node = next(iter(model.latents().items()), (None, None))
    return name if node is not None and isinstance(node.family, Normal) else None


def _images(model: Graph, noise: Values, inputs: Values, view: View) -> Tensor:
    with inference(model):
        return _shown(model.samples(noise, inputs), view)


def _shown(images: Tensor, view: View) -> Tensor:
    return view(images.float().cpu())


def _rows(rows: Values, path: Path) -> Path | None:
    return plotting.picture_rows({name: one.numpy() for name, one in rows.items()}, path) if rows else None


def pixel_view(data: Any, seen: Tensor | None = None) -> View:
    """Return what turns the numbers of a data set into pixels in [0, 1].

    Args:
        data: may say how pixels became numbers (``pixels``); otherwise the numbers are pixels.
        seen: observed images, whose brightest pixel becomes 1: that of some data sets is 16 of 255.
    """
    scaling = getattr(data, "pixels", None)
    if scaling is None:
        return lambda images: images.clamp(0, 1)
    mean, std = (torch.tensor(scaling[key]).reshape(-1, 1, 1) for key in ("mean", "std"))
    brightest = 1.0 if seen is None else float((seen * std + mean).max())
    return lambda images: ((images * std + mean) / brightest).clamp(0, 1)
