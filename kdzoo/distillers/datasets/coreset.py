"""Coresets: a few real examples in place of a data set. No images are learned.

It is the teacher-free control of the methods whose student is a data set, with the same numbers of examples and of
training steps.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.batch import Batch, labelled_positions, labels
from kdzoo.core.closed_form import CLOSED_FORM_EXEMPT, ClosedFormDistiller
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.parallel import gather_rows
from kdzoo.dataset_distillation import SyntheticSet
from kdzoo.dataset_distillation.coreset import coreset
from kdzoo.dataset_distillation.pool import train_pools
from kdzoo.dataset_distillation.selection import SELECTIONS
from kdzoo.functional import hard_target_ce


class Coreset(ClosedFormDistiller):
    """Select a few real examples, and the constant step size with which networks trained on them are most accurate.

    Args:
        student: The synthetic set that becomes the coreset.
        teacher: Has no effect; pass None.
        selection: One of ``random``, ``mean``, ``kmeans``, ``herding``, ``k_center``.
        seed: Seed of the selection, >= 0.
        **options: See :class:`kdzoo.core.closed_form.ClosedFormDistiller`; the only term is ``real``.

    Raises:
        ConfigError: An argument is out of its range.
        DataError: A class has fewer samples than the set has examples of it.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"real": 1.0},
        label_terms=frozenset({"real"}),
        paper="Welling 2009, Herding dynamical weights to learn (herding); Sener & Savarese 2018, Active learning for "
        "convolutional neural networks: a core-set approach (k_center)",
        teacher="none",
        student_kinds=("synthetic_set",),
        # More samples than the checks usually have: every class needs labelled ones to select from.
        contract_settings={
            "data.labels_per_class": None,
            "data.train_size": 240,
            "data.batch_size": 80,
        },
        # Data parallelism works: the student has gradients, and the samples of all ranks are gathered.
        exempt={name: reason for name, reason in CLOSED_FORM_EXEMPT.items() if name != "data_parallel"},
    )
    student: SyntheticSet

    def __init__(
        self,
        student: SyntheticSet,
        teacher: nn.Module | None = None,  # noqa: ARG002 - every distiller takes one
        *,
        selection: str = "random",
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(student, None, **options)
        self.selection = validation.choice("selection", selection, tuple(SELECTIONS))
        self.seed = validation.integer("seed", seed, 0)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross entropy on real data of one network that is trained on the set."""
        # One network of the first architecture: the term only monitors; the report measures all of them.
        name, inner_network = next(iter(self.student.inner_networks.items()))
        # Before ``solve`` has trained the pools, random initial weights stand in for their networks.
        initial = inner_network.held_out(1) if inner_network.is_ready else inner_network.initial.sample(1)
        weights = self.student.train_networks(name, initial.to(self.student.images))
        logits = inner_network.logits(weights, batch["input"])[0]
        return {"real": hard_target_ce(logits[labelled_positions(batch)], labels(batch))}

    def observe(self, batch: Batch) -> None:
        """Collect the labelled samples of a batch, of all ranks."""
        inputs = batch["input"][labelled_positions(batch)]
        for key, values in (("input", inputs), ("target", labels(batch).to(inputs.device))):
            self.observed.setdefault(key, []).append(gather_rows(values))

    def solve(self) -> bool:
        """Select from all labelled samples of the epoch; one epoch is enough."""
        inputs, targets = torch.cat(self.observed["input"]), torch.cat(self.observed["target"])
        # The pools first: the step size is chosen by networks that start from them.
        train_pools(self.student.inner_networks, inputs, targets, seed=self.seed)
        selected = coreset(self.student, self.selection, inputs, targets, seed=self.seed)
        self.student.load_state_dict(selected.state_dict())
        self.observed = {}
        return True
