"""Coresets: a data set in a few of its own examples, without any learning of images.

The control trained without a teacher of methods whose student is a data set: the same number of examples and of training steps.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.core.batch import Batch, labelled_positions, labels
from kdzoo.core.closed_form import CLOSED_FORM_EXEMPT, ClosedFormDistiller
from kdzoo.core.method_info import MethodInfo
from kdzoo.dataset_distillation import SyntheticSet
from kdzoo.dataset_distillation.coreset import coreset
from kdzoo.dataset_distillation.pool import train_pools
from kdzoo.dataset_distillation.selection import SELECTIONS
from kdzoo.functional import hard_target_ce


class Coreset(ClosedFormDistiller):
    """Choose a few real examples, and the constant step size with which networks learn from them best.

    Args:
        student: the synthetic set (:class:`kdzoo.dataset_distillation.SyntheticSet`) that becomes the coreset.
        teacher: is not used.
        selection: one of ``random``, ``mean``, ``kmeans``, ``herding``, ``k_center``.
        seed: of the selection, >= 0.
        **options: see :class:`kdzoo.core.closed_form.ClosedFormDistiller`.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: a class has too few samples.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"real": 1.0},
        label_terms=frozenset({"real"}),
        paper="Welling 2009, Herding dynamical weights to learn (herding); Sener & Savarese 2018, Active learning for "
        "convolutional neural networks: a core-set approach (k_center)",
        teacher="none",
        student_kinds=("synthetic_set",),
        contract_settings={
            "data.labels_per_class": None,
            "data.train_size": 240,
            "data.batch_size": 80,
        },
        exempt=CLOSED_FORM_EXEMPT,
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
        """Return the cross entropy of a network that is trained on the set; from a pool once this is trained."""
        name, inner_network = next(iter(self.student.inner_networks.items()))
        begin = inner_network.held_out(1) if inner_network.is_ready else inner_network.initial.sample(1)
        trained = self.student.train_networks(name, begin.to(self.student.images))
        logits = inner_network.logits(trained, batch["input"])[0]
        return {"real": hard_target_ce(logits[labelled_positions(batch)], labels(batch))}

    def observe(self, batch: Batch) -> None:
        """Keep the labelled samples."""
        for key, values in (("input", batch["input"][labelled_positions(batch)]), ("target", labels(batch))):
            self.observed.setdefault(key, []).append(values)

    def solve(self) -> bool:
        """Select from all that was seen."""
        inputs, targets = torch.cat(self.observed["input"]), torch.cat(self.observed["target"])
        train_pools(self.student.inner_networks, inputs, targets, seed=self.seed)
        chosen = coreset(self.student, self.selection, inputs, targets, seed=self.seed)
        self.student.load_state_dict(chosen.state_dict())
        self.observed = {}
        return True
