"""Logit distillation into a matrix product state by sweeps over two sites at a time, whose bonds adapt.

Stoudenmire & Schwab 2016, "Supervised Learning with Tensor Networks", section 4, with the loss of logit distillation.
An epoch collects the training set with the teacher's outputs; at its end one sweep
(:mod:`kdzoo.tensor_networks.two_site`) goes from the output to the right end of the chain, to the left end, and back.

Each step merges two neighbouring cores and sees all samples at once: two merged cores have so many weights that steps
on small batches would overfit each of them. The loss is convex in the merged weights, so that a step is a damped Newton
step.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.batch import IGNORE, Batch
from kdzoo.core.closed_form import CLOSED_FORM_EXEMPT, ClosedFormDistiller
from kdzoo.core.loss_terms import total
from kdzoo.core.method_info import MethodInfo
from kdzoo.distillers.logits.logit_kd import LogitKD
from kdzoo.tensor_networks.chain_module import ChainModule, check_open_chain
from kdzoo.tensor_networks.growth import describe_bonds
from kdzoo.tensor_networks.two_site import newton_step, sweep

COLLECTED = ("input", "target", "teacher")


class SweepMPS(ClosedFormDistiller, LogitKD):
    """Distil into a matrix product state by sweeps, one in each epoch.

    Args:
        student: A matrix product state with open boundaries; its ``bond_dim`` is that of the first epoch.
        teacher: Returns logits ``[batch, classes]``.
        bond_dim: Largest bond dimension, >= 1.
        max_error: Norm of what each decomposition may cut, relative to that of its tensor, in [0, 1).
        damping: Added to the curvature of the mean loss with respect to changes of the outputs, > 0; a larger value
            makes steps shorter.
        iterations: Iterations of conjugate gradients in each step, >= 1.
        temperature: Temperature T of both distributions in the term ``soft``, finite and > 0.
        **options: See :class:`kdzoo.Distiller`; the terms are ``soft`` and ``hard``, see
            :class:`kdzoo.distillers.LogitKD`. No optimizer is used.

    Raises:
        ConfigError: An argument is out of its range, or the student is not a matrix product state with open boundaries.

    Example:
        >>> from kdzoo.models import MPS
        >>> SweepMPS(MPS(8, 3, 2), nn.Linear(8, 3), bond_dim=4).loss_weights
        {'soft': 0.9, 'hard': 0.1}
    """

    student: ChainModule
    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"soft": 0.9, "hard": 0.1},
        paper="Stoudenmire & Schwab 2016, Supervised Learning with Tensor Networks, section 4",
        bibtex="""@inproceedings{stoudenmire2016supervised,
  title     = {Supervised Learning with Tensor Networks},
  author    = {Stoudenmire, E. Miles and Schwab, David J.},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2016},
}""",
        # Small enough that a contract check takes seconds.
        contract_settings={"distiller.bond_dim": 6, "distiller.iterations": 2},
        exempt=CLOSED_FORM_EXEMPT,
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        bond_dim: int = 16,
        # A compromise: a larger share loses accuracy with every step, a smaller one lets all bonds reach ``bond_dim``.
        max_error: float = 0.01,
        # Chosen in trials on digits. Without damping, a step goes as far as the quadratic model says, right or wrong.
        damping: float = 0.01,
        # Few iterations regularise as well, and each costs one product with all features.
        iterations: int = 5,
        temperature: float = 4.0,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, temperature=temperature, **options)
        check_open_chain(student)
        self.bond_dim = validation.integer("bond_dim", bond_dim)
        self.max_error = validation.probability("max_error", max_error)
        self.damping = validation.positive("damping", damping)
        self.iterations = validation.integer("iterations", iterations)

    def observe(self, batch: Batch) -> None:
        """Collect inputs, labels and the teacher's logits."""
        no_labels = torch.full((len(batch["input"]),), IGNORE, device=batch["input"].device)
        new = (batch["input"], batch.get("target", no_labels), self.frozen_teacher.output(batch).float())
        for name, value in zip(COLLECTED, new, strict=True):
            # A new list: checkpoints that were taken before must not change.
            self.observed[name] = [*self.observed.get(name, []), value]

    def solve(self) -> bool:
        """Sweep once over the collected samples; the training continues with the next epoch."""
        collected: Batch = {name: torch.cat(self.observed[name]) for name in COLLECTED}
        self.observed = {}

        def update(features: Tensor, weights: Tensor) -> Tensor:
            return newton_step(
                features,
                weights,
                lambda outputs: self._mean_loss(collected, outputs),
                damping=self.damping,
                iterations=self.iterations,
            )

        student = self.student
        # In float64, as all functions on tensors of chains: decompositions and Hessians lose digits.
        sites, centre = sweep(
            student.sites(),
            student.centre.detach().double(),
            student.out_site,
            student.features(collected["input"]).double(),
            update,
            bond_dim=self.bond_dim,
            max_error=self.max_error,
        )
        student.load_tensors(sites, centre)
        self.notes["bonds"] = describe_bonds(sites)
        return False

    def _mean_loss(self, collected: Batch, outputs: Tensor) -> Tensor:
        """Return the weighted sum of the mean terms, a scalar, for outputs ``[samples, classes]`` of the student."""
        loss = outputs.new_zeros(())
        for name, values in self.logit_terms(collected, outputs, collected["teacher"]).items():
            summed, count = total(values, len(outputs))
            # Without labels there is no value of ``hard``, and its sum is 0.
            loss = loss + self.loss_weights[name] * summed / max(count, 1)
        return loss
