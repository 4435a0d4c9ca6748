"""Training of autoencoders on data: how teachers and teacher-free baselines are made.

The one term, ``reconstruction``, is the mean squared difference of an image x and its reconstruction D(E(x)) over its
pixels, for each image.
"""

from typing import ClassVar

from torch import Tensor

from kdzoo.core.base import Distiller
from kdzoo.core.batch import Batch
from kdzoo.core.method_info import MethodInfo
from kdzoo.functional import hint_mse


class Reconstruction(Distiller):
    """Minimise the squared reconstruction error of an autoencoder, without a teacher.

    Args:
        student: The autoencoder.
        teacher: Has no effect; pass None.
        **options: See :class:`kdzoo.Distiller`; the only term is ``reconstruction``.

    Raises:
        ConfigError: If an argument is out of its range.

    Example:
        >>> from kdzoo.models import Autoencoder
        >>> Reconstruction(Autoencoder(in_shape=(4,))).loss_weights
        {'reconstruction': 1.0}
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"reconstruction": 1.0},
        paper="Hinton & Salakhutdinov 2006, Reducing the dimensionality of data with neural networks",
        bibtex="""@article{hinton2006reducing,
  title   = {Reducing the Dimensionality of Data with Neural Networks},
  author  = {Hinton, Geoffrey E. and Salakhutdinov, Ruslan R.},
  journal = {Science},
  volume  = {313},
  pages   = {504--507},
  year    = {2006},
}""",
        teacher="none",
        student_kinds=("autoencoder",),
    )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the squared reconstruction error of each image."""
        return {"reconstruction": hint_mse(self.student(batch["input"]), batch["input"])}
