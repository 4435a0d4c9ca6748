"""Logit distillation into a matrix product state whose bonds change during the training.

A chain with small bonds learns quickly what is simple; then its bonds grow where it stands, and what they turn out not
to need is cut. Growing leaves the function as it is (``kdzoo.tensor_networks.growth``), and the optimizer keeps its
moments. Cutting is a singular value decomposition after the features were whitened by the training data
(``kdzoo.tensor_networks.truncation``): each bond becomes as small as the error allows, by itself. The tensors are then
others, so that the optimizer begins its moments anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.batch import as_batch, n_samples
from kdzoo.core.loss_terms import over_ranks
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


class GrowingMPS(LogitKD):
    """Distil into a matrix product state, and change its bonds between epochs.

    Args:
        student: a matrix product state with open boundaries; its ``bond_dim`` is that of the start.
        teacher: returns logits.
        grow: pairs [epochs, bond dimension]: after so many epochs every bond grows to it, if it could use it.
        cut: pairs [epochs, error in [0, 1)]: after so many epochs bonds are cut as far as the relative error of the
            function allows, under the product of the marginals of the training data. Where both are due, bonds are
            cut first.
        noise: size of what new entries pass on, >= 0, as of a new chain.
        temperature: T of the soft term, finite and greater than 0.
        **options: see :class:`kdzoo.Distiller`; the terms are ``soft`` and ``hard``.

    Raises:
        ConfigError: an argument is out of its range, or the student is no matrix product state.

    Example:
        >>> from kdzoo.models import MPS
        >>> GrowingMPS(MPS(8, 3, 2), nn.Linear(8, 3), grow=[[2, 4], [4, 8]]).loss_weights
        {'soft': 0.9, 'hard': 0.1}
    """

    student: Any  # a ChainModule
    info: ClassVar[MethodInfo] = replace(
        LogitKD.info,
        paper="Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network, section 2; Oseledets 2011, "
        "Tensor-Train Decomposition, algorithm 2, for what is cut",
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
        self.noise_seed = int(torch.randint(2**31, ()))  # the same on every rank, and after a resume
        self.products: tuple[Tensor, int] | None = None
        """Sum over the samples of this epoch of the products of their features, and their number."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Add the products of the batch's features, where they are needed at the end of the epoch."""
        if self.current_epoch + 1 not in self.cut:
            return
        batch = as_batch(batch)
        with torch.no_grad():
            mine = self.student.grams(batch["input"]) * n_samples(batch)
        found, samples = over_ranks(mine), int(over_ranks(torch.tensor(n_samples(batch), device=mine.device)))
        before, number = self.products or (torch.zeros_like(found), 0)
        self.products = before + found, number + samples

    def on_train_epoch_end(self) -> None:
        """Cut and grow what is due."""
        epochs = self.current_epoch + 1
        before = self.student.cores
        if epochs in self.cut and self.products is not None:
            self._cut(self.products[0] / self.products[1], self.cut[epochs])
        self.products = None
        if epochs in self.grow:
            self._grow(self.grow[epochs], torch.Generator().manual_seed(self.noise_seed + epochs))
        if self.student.cores is not before:
            wrap_again(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the epoch has shown of the features."""
        checkpoint["products"] = self.products

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with what the epoch had shown."""
        self.products = checkpoint["products"]

    def _cut(self, grams: Tensor, max_error: float) -> None:
        student: ChainModule = self.student
        old = student.cores, student.centre
        centre = student.centre.detach().double()
        sites, centre, error = truncate(student.sites(), centre, student.out_site, grams=grams, max_error=max_error)
        student.load_tensors(sites, centre)
        self.notes["bonds"] = (
            f"cut after {self.current_epoch + 1} epochs with a relative error of {error:.3g} to {describe_bonds(sites)}"
        )
        for optimizer in self.trainer.optimizers:
            for before, after in zip(old, (student.cores, student.centre), strict=True):
                replace_parameter(optimizer, before, after)

    def _grow(self, bond_dim: int, generator: torch.Generator) -> None:
        student: ChainModule = self.student
        old, plan = (student.cores, student.centre), student.layout
        tensors = student.sites(), student.centre.detach().double(), student.out_site
        bonds, unit = grown_bonds(*tensors, bond_dim), student.feature_map.unit
        student.load_tensors(*grow(*tensors, bonds, noise=self.noise, unit=unit, generator=generator))
        if student.cores is old[0]:
            return
        for optimizer in self.trainer.optimizers:
            replace_parameter(optimizer, old[0], student.cores, lambda one: embed_cores(one, plan, student.layout))
            replace_parameter(
                optimizer, old[1], student.centre, lambda one: embed(one, torch.zeros_like(student.centre))
            )


def _schedule(name: str, pairs: Sequence[Any], check: Callable[[str, Any], Any]) -> dict[int, Any]:
    """Return what is due after which number of epochs."""
    found = {}
    for i, pair in enumerate(pairs):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ConfigError(f"{name}[{i}] must be a pair [epochs, value], got {pair!r}")
        found[validation.integer(f"{name}[{i}][0]", pair[0])] = check(f"{name}[{i}][1]", pair[1])
    return found
