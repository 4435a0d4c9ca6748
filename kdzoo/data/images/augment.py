"""Random shifts, crops and mirrors of images; what each gets is a function of (seed, epoch, index)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from kdzoo.core.randomness import uniform_ints
from kdzoo.core.validation import flag, integer
from kdzoo.errors import ConfigError

# One stream of random numbers for each decision.
_CROP_Y, _CROP_X, _SHIFT_Y, _SHIFT_X, _FLIP = range(5)


@dataclass(frozen=True)
class Augment:
    """A random crop, then a random shift, then a random mirror; each is off by default.

    Because draws are keyed by sample and epoch, an image looks the same in whatever batch, worker process or
    resumed run it is met.

    Args:
        shift: translate by up to so many pixels each way, uniformly, filling with zeros; 0..size-1.
        crop: pad by so many pixels of reflection, cut out a uniform window of the old size; 0..size-1.
        flip: mirror left and right with probability 1/2.

    Raises:
        ConfigError: a value is out of range, or the inputs are not images that are large enough.

    Example:
        >>> Augment(shift=1)(torch.ones(2, 1, 8, 8), seed=0, epoch=0, index=torch.tensor([4, 5])).shape
        torch.Size([2, 1, 8, 8])
    """

    shift: int = 0
    crop: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        integer("augment.shift", self.shift, 0)
        integer("augment.crop", self.crop, 0)
        flag("augment.flip", self.flip)

    @classmethod
    def from_options(cls, options: Mapping[str, Any] | None) -> "Augment":
        """Return the augmentation of a mapping with keys shift, crop and flip; None is none at all.

        Raises:
            ConfigError: it is no mapping, or a key is unknown, or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(options, Mapping | None):
            raise ConfigError(f"augment={options!r} is not allowed; allowed: null or a mapping with keys {known}")
        unknown = [key for key in options or () if key not in known]
        if unknown:
            raise ConfigError(f"augment has the unknown key {unknown[0]!r}; allowed: {known}")
        return cls(**(options or {}))

    @property
    def is_random(self) -> bool:
        """Whether anything is changed at all."""
        return self != Augment()

    def check_shape(self, in_shape: tuple[int, ...]) -> None:
        """Check that inputs of this shape (without the batch) can be augmented.

        Raises:
            ConfigError: they are not [h, w] or [c, h, w], or are too small.
        """
        if self.is_random and len(in_shape) not in (2, 3):
            raise ConfigError(f"augment={asdict(self)} needs images [h, w] or [c, h, w], got {list(in_shape)}")
        for name in ("shift", "crop"):
            pixels = getattr(self, name)
            if pixels and pixels >= min(in_shape[-2:]):
                raise ConfigError(
                    f"augment.{name}={pixels} is too large for inputs {list(in_shape)}; "
                    f"allowed: 0..{min(in_shape[-2:]) - 1}"
                )

    def __call__(self, inputs: Tensor, seed: int, epoch: int, index: Tensor) -> Tensor:
        """Return the augmented batch, of the same shape and dtype.

        Args:
            inputs: [b, c, h, w] or [b, h, w], floating point.
            seed: the run's seed.
            epoch: the epoch.
            index: int64 [b], the position of each image in the training split.
        """
        self.check_shape(tuple(inputs.shape[1:]))
        if not self.is_random:
            return inputs
        images = inputs.unsqueeze(1) if inputs.ndim == 3 else inputs

        def draw(stream: int, high: int) -> Tensor:
            return torch.from_numpy(uniform_ints(seed, epoch, index.numpy(), stream, high))

        if self.crop:
            corner = [draw(stream, 2 * self.crop + 1) for stream in (_CROP_Y, _CROP_X)]
            images = _windows(images, self.crop, "reflect", *corner)
        if self.shift:
            corner = [draw(stream, 2 * self.shift + 1) for stream in (_SHIFT_Y, _SHIFT_X)]
            images = _windows(images, self.shift, "constant", *corner)
        if self.flip:
            images = torch.where(draw(_FLIP, 2).bool()[:, None, None, None], images.flip(-1), images)
        return images.reshape(inputs.shape)


def _windows(images: Tensor, pad: int, mode: str, top: Tensor, left: Tensor) -> Tensor:
    """Pad [b, c, h, w] on all sides and cut from each image the window with the corner (top, left), [b]."""
    height, width = images.shape[-2:]
    padded = nnf.pad(images, (pad, pad, pad, pad), mode=mode)
    every_window = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view, [b, c, 2p+1, 2p+1, h, w]
    return every_window[torch.arange(len(images)), :, top, left]
