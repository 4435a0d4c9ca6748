"""Random shifts, crops and horizontal flips of images, a function of (seed, epoch, index)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from kdzoo.core.randomness import uniform_ints
from kdzoo.core.validation import flag, integer
from kdzoo.errors import ConfigError

# One stream of random numbers for each decision, so that the decisions are independent of each other. The numbers are
# part of the key of every draw: changing one changes every augmented experiment.
_CROP_Y, _CROP_X, _SHIFT_Y, _SHIFT_X, _FLIP = range(5)


@dataclass(frozen=True)
class Augment:
    """A random crop, then a random shift, then a random horizontal flip; each is off by default.

    Draws are keyed by sample and epoch, so that an image is the same in any batch, in any worker process and in a
    resumed run.

    Args:
        shift: Largest translation in pixels in each direction, drawn uniformly, filled with zeros; 0..size-1.
        crop: Padding by reflection in pixels, from which a uniform window of the original size is cut; 0..size-1.
        flip: Whether to flip left and right with probability 1/2.

    Raises:
        ConfigError: If a value is out of range, or the inputs are not images that are large enough.

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
        """Return the augmentation of a mapping with keys shift, crop and flip; None switches all off.

        Raises:
            ConfigError: If it is not a mapping, a key is unknown, or a value is out of range.
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
        """Whether any of the three is on."""
        return self != Augment()

    def check_shape(self, in_shape: tuple[int, ...]) -> None:
        """Check that inputs of this shape (without the batch) can be augmented.

        Raises:
            ConfigError: If they are not ``[h, w]`` or ``[c, h, w]``, or are too small.
        """
        if self.is_random and len(in_shape) not in (2, 3):
            raise ConfigError(f"augment={asdict(self)} needs images [h, w] or [c, h, w], got {list(in_shape)}")
        for name, pixels in (("shift", self.shift), ("crop", self.crop)):
            # Reflection needs a pixel that is not at the edge; a shift by the full size would leave nothing.
            if pixels and pixels >= min(in_shape[-2:]):
                raise ConfigError(
                    f"augment.{name}={pixels} is too large for inputs {list(in_shape)}; "
                    f"allowed: 0..{min(in_shape[-2:]) - 1}"
                )

    def __call__(self, inputs: Tensor, seed: int, epoch: int, index: Tensor) -> Tensor:
        """Return the augmented batch, of the same shape and dtype.

        Args:
            inputs: Images ``[b, c, h, w]`` or ``[b, h, w]``, floating point.
            seed: Seed of the run.
            epoch: The epoch.
            index: Position of each image in the training split, int64 ``[b]``.
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
    """Pad ``[b, c, h, w]`` on all sides and cut out of each image the window at (top, left), each ``[b]``."""
    height, width = images.shape[-2:]
    padded = nnf.pad(images, (pad, pad, pad, pad), mode=mode)
    # All windows as a view [b, c, 2p+1, 2p+1, h, w], from which one indexing operation copies one window per image. It
    # replaces a loop over images; a test requires less than a millisecond for a batch of MNIST.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images)), :, top, left]
