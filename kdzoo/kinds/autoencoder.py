"""Autoencoders: their reconstructions are compared with the images, with those of the teacher, and with PCA."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.core.abilities import EncodesAndDecodes
from kdzoo.core.batch import IGNORE, Batch, as_batch
from kdzoo.core.inference import inference, try_call
from kdzoo.errors import ConfigError
from kdzoo.functional import principal_angles
from kdzoo.graphical_models.posterior_plots import between
from kdzoo.graphical_models.sample_plots import pixel_view
from kdzoo.kinds.kind import Kind
from kdzoo.models.autoencoder import Autoencoder, principal_autoencoder

COLUMNS = 12
"""Images of each model in a figure, as many as fit across a page."""
MAX_VALUES = 4096
"""Values of an image up to which principal components are computed; their matrix grows with the square."""


@dataclass(frozen=True)
class Components:
    """The principal components of the training images, all of them, the largest variance first.

    Attributes:
        mean: ``[d]``.
        directions: Orthonormal columns ``[d, d]``.
    """

    mean: Tensor
    directions: Tensor

    @staticmethod
    def of(batches: Iterable[Any]) -> "Components | None":
        """Return the components of all images in batches; None if there are too many values in an image."""
        count, total, products = 0, torch.zeros(()), torch.zeros(())
        for raw in batches:
            flat = as_batch(raw)["input"].flatten(1).double()
            if flat.shape[1] > MAX_VALUES:
                return None
            count, total, products = count + len(flat), total + flat.sum(0), products + flat.T @ flat
        mean = total / count
        # Eigenvalues come in ascending order.
        _, directions = torch.linalg.eigh(products / count - torch.outer(mean, mean))
        return Components(mean, directions.flip(1))


@dataclass(frozen=True)
class Predictions:
    """What a model makes of a split.

    Attributes:
        inputs: Images ``[n, ...]``.
        codes: Codes as vectors ``[n, k]``.
        reconstructions: Images ``[n, ...]``.
        target: Classes ``[n]``, ``IGNORE`` where there is none.
        directions: Columns ``[d, k]`` that a linear decoder combines; None for other models.
    """

    inputs: Tensor
    codes: Tensor
    reconstructions: Tensor
    target: Tensor
    directions: Tensor | None = field(repr=False)


class AutoencoderKind(Kind):
    """Measured by the error of reconstructions.

    Args:
        components: Principal components of the training images, with which linear models are compared; None: they are
            not.
        view: Turns values of the data into pixels in [0, 1] for figures.
    """

    name: ClassVar[str] = "autoencoder"
    needs: ClassVar[str] = "an autoencoder, with encode and decode (such as kdzoo.models.Autoencoder)"
    score: ClassVar[str] = "reconstruction_error"
    lower_is_better: ClassVar[bool] = True
    teacher_free: ClassVar[str] = "kdzoo.distillers.Reconstruction"

    def __init__(self, components: Components | None = None, view: Any = None) -> None:
        self.components = components
        self.view = view or pixel_view(None)

    def bind(self, data: Any, cache: Path, feature_extractor: str | None = None) -> "AutoencoderKind":  # noqa: ARG002
        """Return this kind with the principal components of the training images."""
        observed = as_batch(next(iter(data.test_dataloader())))["input"]
        return AutoencoderKind(Components.of(data.train_eval_dataloader()), pixel_view(data, observed))

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether the model encodes and decodes."""
        return isinstance(model, EncodesAndDecodes)

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Reject what does not encode and decode, and reconstructions of another shape than the data.

        Raises:
            ConfigError: Names the role, and what the model lacks.
        """
        name = type(model).__name__
        if not isinstance(model, EncodesAndDecodes):
            raise ConfigError(f"{role} {name} is not {self.needs}; choose for example student=autoencoder")
        shape, expected = tuple(try_call(role, model, batch["input"]).shape), tuple(batch["input"].shape)
        if shape != expected:
            raise ConfigError(
                f"{role} {name} does not fit the data: its reconstructions have shape {shape[1:]}, "
                f"the data {expected[1:]}"
            )

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return images, codes and reconstructions."""
        assert isinstance(model, EncodesAndDecodes)
        inputs, codes, reconstructions, targets = [], [], [], []
        device = next(iter(model.parameters()), torch.empty(0)).device
        with inference(model):
            for raw in batches:
                batch = as_batch(raw)
                code = model.encode(batch["input"].to(device))
                inputs.append(batch["input"].cpu().float())
                codes.append(code.flatten(1).cpu().float())
                reconstructions.append(model.decode(code).cpu().float())
                targets.append(batch.get("target", torch.full((len(code),), IGNORE)).cpu())
        directions = model.directions if isinstance(model, Autoencoder) else None
        return Predictions(
            torch.cat(inputs), torch.cat(codes), torch.cat(reconstructions), torch.cat(targets), directions
        )

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Return ``reconstruction_error``, the mean squared error of a pixel, and what belongs to it.

        ``explained_variance`` is the share of the images' variance that the reconstructions explain, ``code_size`` the
        number of values of a code, and ``pca_angle`` the largest principal angle between the span of a linear decoder
        and that of as many principal components, in degrees.
        """
        inputs = predictions.inputs.double()
        error = float((predictions.reconstructions - inputs).square().mean())
        variance = float((inputs - inputs.mean(0)).square().mean())
        result = {
            "reconstruction_error": error,
            "explained_variance": 1 - error / variance if variance else float("nan"),
            "code_size": predictions.codes.shape[1],
        }
        directions = predictions.directions
        if directions is not None and self.components is not None and directions.shape[1] <= len(directions):
            principal = self.components.directions[:, : directions.shape[1]]
            result["pca_angle"] = float(principal_angles(directions.cpu().double(), principal)[-1].rad2deg())
        return result

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return how closely a student follows the teacher.

        ``reconstruction_distance`` is the mean squared difference of a pixel of their reconstructions, and
        ``code_explained`` the share of the variance of the teacher's codes that a linear map of the student's
        explains, fitted on one half of the images and measured on the other.
        """
        distance = (student.reconstructions.double() - teacher.reconstructions).square().mean()
        return {
            "reconstruction_distance": float(distance),
            "code_explained": explained_by_linear_map(student.codes, teacher.codes),
        }

    def reference_models(self, models: Mapping[str, nn.Module], data: Any) -> dict[str, nn.Module]:
        """Return PCA with as many components as the codes of teacher and student have values, by that number."""
        if self.components is None:
            return {}
        first = as_batch(next(iter(data.test_dataloader())))["input"][:1]
        references: dict[str, nn.Module] = {}
        for role in ("teacher", "student"):
            model = models.get(role)
            if isinstance(model, EncodesAndDecodes):
                size = self._code_size(model, first)
                if size <= first[0].numel():
                    directions = self.components.directions[:, :size].float()
                    mean = self.components.mean.float()
                    references[f"pca_{size}"] = principal_autoencoder(tuple(first.shape[1:]), mean, directions)
        return references

    def _code_size(self, model: Any, inputs: Tensor) -> int:
        with inference(model):
            like = next(model.parameters(), inputs)
            return int(model.encode(inputs.to(like)).numel())

    # ---------------------------------------------------------------- figures

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Draw test images, below them each model's reconstructions, and two-dimensional codes with their classes."""
        first = next(iter(predictions.values()))
        if first.inputs.ndim != 4:
            return []
        rows = {"data": first.inputs} | {role: of_role.reconstructions for role, of_role in predictions.items()}
        arrays = {name: self.view(images[:COLUMNS]).numpy() for name, images in rows.items()}
        caption = "Test images, and what each model makes of their codes."
        paths = [plotting.image_rows(arrays, folder / "reconstructions.png", title="Reconstructions", caption=caption)]
        planes = {role: of_role.codes.numpy() for role, of_role in predictions.items() if of_role.codes.shape[1] == 2}
        if planes and first.target.ndim == 1 and (first.target >= 0).any():
            caption = "Codes of test images, in the colours of their classes; a panel per model."
            path, target = folder / "codes.png", first.target.numpy()
            paths.append(plotting.class_scatter(planes, target, path, title="Codes of test images", caption=caption))
        return paths

    def plot_model(self, models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:
        """Draw ten steps from one test image to another, in pixels and between the codes of each model."""
        batch = next(iter(data.test_dataloader()), None) if data is not None else None
        inputs = None if batch is None else as_batch(batch)["input"][:2]
        if inputs is None or inputs.ndim != 4 or len(inputs) < 2:
            return []
        rows = {"pixels": self.view(between(inputs)).numpy()}
        for name, model in models.items():
            if isinstance(model, EncodesAndDecodes):
                with inference(model):
                    codes = between(model.encode(inputs.to(next(model.parameters(), inputs))))
                    rows[name] = self.view(model.decode(codes).float().cpu()).numpy()
        path = folder / "image_interpolations.png"
        caption = "Ten steps from one test image to another: mixed pixels, and images between the codes of both."
        return [plotting.image_rows(rows, path, title="From image to image", caption=caption)]


def explained_by_linear_map(codes: Tensor, teacher_codes: Tensor) -> float:
    """Return the share of the teacher codes' variance that a linear map with an offset explains on unseen images.

    The map is fitted by least squares on the first half of the images and measured on the second. It is 1 for a perfect
    map, and at most 0 for codes that say nothing.

    Args:
        codes: ``[n, k]``.
        teacher_codes: ``[n, m]``.
    """
    ones = torch.ones(len(codes), 1, dtype=torch.float64)
    features, wanted = torch.cat([codes.double(), ones], 1), teacher_codes.double()
    half = len(codes) // 2
    # This driver also solves problems in which values of a code are constant or there are few images.
    linear_map = torch.linalg.lstsq(features[:half], wanted[:half], driver="gelsd").solution
    residual = (wanted[half:] - features[half:] @ linear_map).square().mean()
    variance = (wanted[half:] - wanted[half:].mean(0)).square().mean()
    return float(1 - residual / variance) if variance > 0 else float("nan")
