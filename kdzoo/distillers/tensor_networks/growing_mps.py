"""Logit distillation into a matrix product state whose bonds change between epochs.

A chain with small bonds quickly learns what is simple. Then its bonds grow without a change of its function
(:mod:`kdzoo.tensor_networks.growth`), so that the optimizer keeps its moments. Bonds that turn out to be larger than
needed are cut by singular value decompositions, in features that are white under the training data
(:mod:`kdzoo.tensor_networks.truncation`): each bond becomes as small as the allowed error permits. All tensors are
different after a cut, so that the optimizer starts with new moments.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.batch import as_batch, n_samples
from kdzoo.core.loss_terms import counts_over_ranks, over_ranks
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.parallel import wrap_again
from kdzoo.distillers.logits.logit_kd import LogitKD
from kdzoo.errors import ConfigError
from kdzoo.tensor_networks.chain_module import ChainModule, check_open_chain
from kdzoo.tensor_networks.growth import (
    describe_bonds,
    embed,
    embed_cores,
    grow,
    grown_bonds,
    replace_parameter,
)
from kdzoo.tensor_networks.truncation import truncate


class FeatureProducts(NamedTuple):
    """Products of the features of each site, summed over the samples of an epoch.

    Attributes:
        total: Sum of the products ``[sites, d, d]``, float64.
        samples: Number of samples.
    """

    total: Tensor
    samples: int


class GrowingMPS(LogitKD):
    """Distil into a matrix product state, and change its bonds between epochs.

    Args:
        student: A matrix product state with open boundaries; its ``bond_dim`` is that of the first epoch.
        teacher: Returns logits ``[batch, classes]``.
        grow: Pairs [epochs, bond dimension]: after so many epochs every bond that can use it grows to this dimension.
        cut: Pairs [epochs, error in [0, 1)]: after so many epochs bonds are cut as far as the relative error of the
            function allows, for inputs that are independent with the marginal distributions of the training data. If a
            cut and a growth are due after the same epoch, the cut comes first.
        noise: Standard deviation of the noise in what new entries pass on, >= 0, in units of that of a new chain; see
            :func:`kdzoo.tensor_networks.growth.grow`.
        temperature: Temperature T of both distributions in the term ``soft``, finite and > 0.
        **options: See :class:`kdzoo.Distiller`; the terms are ``soft`` and ``hard``, see
            :class:`kdzoo.distillers.LogitKD`.

    Raises:
        ConfigError: An argument is out of its range, or the student is not a matrix product state with open boundaries.

    Example:
        >>> from kdzoo.models import MPS
        >>> GrowingMPS(MPS(8, 3, 2), nn.Linear(8, 3), grow=[[2, 4], [4, 8]]).loss_weights
        {'soft': 0.9, 'hard': 0.1}
    """

    student: ChainModule
    info: ClassVar[MethodInfo] = replace(
        LogitKD.info,
        paper="Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network, section 2; Oseledets 2011, "
        "Tensor-Train Decomposition, algorithm 2, for the cuts",
        bibtex=LogitKD.info.bibtex
        + """
@article{oseledets2011tensor,
  title   = {Tensor-Train Decomposition},
  author  = {Oseledets, Ivan V.},
  journal = {SIAM Journal on Scientific Computing},
  volume  = {33},
  number  = {5},
  pages   = {2295--2317},
  year    = {2011},
}""",
        # Both changes happen within the two epochs of a contract check.
        contract_settings={"distiller.grow": [[1, 6]], "distiller.cut": [[1, 0.1], [2, 0.1]]},
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        grow: Sequence[Sequence[int]] = (),
        cut: Sequence[Sequence[int | float]] = (),
        noise: float = 0.5,
        temperature: float = 4.0,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, temperature=temperature, **options)
        check_open_chain(student)
        self.grow = _schedule("grow", grow, validation.integer)
        self.cut = _schedule("cut", cut, validation.probability)
        self.noise = validation.number("noise", noise, least=0.0)
        # Drawn here, where every rank and every resumed training has the same random state: the noise of a growth must
        # be the same on all ranks, and must not depend on how often random numbers were drawn during the training.
        self.noise_seed = int(torch.randint(2**31, ()))
        self.feature_products: FeatureProducts | None = None

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Add the products of the batch's features in an epoch that ends with a cut."""
        if self.current_epoch + 1 not in self.cut:
            return
        batch = as_batch(batch)
        with torch.no_grad():
            # ``grams`` returns means; ranks and batches may have different numbers of samples.
            products = self.student.grams(batch["input"]) * n_samples(batch)
        total = over_ranks(products)
        samples = int(*counts_over_ranks([n_samples(batch)], products.device))
        before = self.feature_products or FeatureProducts(torch.zeros_like(total), 0)
        self.feature_products = FeatureProducts(before.total + total, before.samples + samples)

    def on_train_epoch_end(self) -> None:
        """Cut and grow the bonds if it is due."""
        epochs = self.current_epoch + 1
        cores = self.student.cores
        # The cut first: it would remove the new entries of a growth, which do not contribute to the function yet.
        if epochs in self.cut and self.feature_products is not None:
            self._cut(self.feature_products.total / self.feature_products.samples, self.cut[epochs])
        self.feature_products = None
        if epochs in self.grow:
            self._grow(self.grow[epochs], torch.Generator().manual_seed(self.noise_seed + epochs))
        if self.student.cores is not cores:
            wrap_again(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the products of features, for a checkpoint in the middle of an epoch."""
        # A plain tuple, which torch loads with ``weights_only``.
        checkpoint["feature_products"] = None if self.feature_products is None else tuple(self.feature_products)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the products of features."""
        products = checkpoint["feature_products"]
        self.feature_products = None if products is None else FeatureProducts(*products)

    def _cut(self, grams: Tensor, max_error: float) -> None:
        """Cut the bonds, and let the optimizers continue with the new parameters without moments."""
        student = self.student
        old_parameters = student.cores, student.centre
        # In float64: singular values below 1e-7 of the largest would be lost in float32.
        sites, centre, error = truncate(
            student.sites(), student.centre.detach().double(), student.out_site, grams=grams, max_error=max_error
        )
        student.load_tensors(sites, centre)
        self.notes["bonds"] = (
            f"cut after {self.current_epoch + 1} epochs with a relative error of {error:.3g} to {describe_bonds(sites)}"
        )
        for optimizer in self.trainer.optimizers:
            for old, new in zip(old_parameters, (student.cores, student.centre), strict=True):
                replace_parameter(optimizer, old, new)

    def _grow(self, bond_dim: int, generator: torch.Generator) -> None:
        """Enlarge the bonds, and let the optimizers continue with their moments, which are 0 for the new entries."""
        student = self.student
        old_cores, old_centre, old_layout = student.cores, student.centre, student.layout
        tensors = student.sites(), old_centre.detach().double(), student.out_site
        bonds, unit = grown_bonds(*tensors, bond_dim), student.feature_map.unit
        student.load_tensors(*grow(*tensors, bonds, noise=self.noise, unit=unit, generator=generator))
        if student.cores is old_cores:  # no bond could use a larger dimension
            return
        new_centre, new_layout = student.centre, student.layout
        for optimizer in self.trainer.optimizers:
            replace_parameter(optimizer, old_cores, student.cores, lambda m: embed_cores(m, old_layout, new_layout))
            replace_parameter(optimizer, old_centre, new_centre, lambda m: embed(m, torch.zeros_like(new_centre)))


def _schedule(name: str, pairs: Sequence[Any], check: Callable[[str, Any], Any]) -> dict[int, Any]:
    """Return the checked value by the number of epochs after which it is due."""
    schedule = {}
    for i, pair in enumerate(pairs):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ConfigError(f"{name}[{i}] must be a pair [epochs, value], got {pair!r}")
        schedule[validation.integer(f"{name}[{i}][0]", pair[0])] = check(f"{name}[{i}][1]", pair[1])
    return schedule
