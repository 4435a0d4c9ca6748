"""Poisoning by distilled examples: after a few steps on them, trained networks confuse one class with another.

Wang, Zhu, Torralba & Efros 2018, "Dataset distillation", section 4.3. The labels of the real data are changed from the
source class, which is under attack, to the target class. The set is then learned as in dataset distillation, but for
networks that are already trained and whose weights the attacker does not know.
"""

from dataclasses import replace
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdzoo.core.batch import Batch, labels
from kdzoo.core.method_info import MethodInfo
from kdzoo.dataset_distillation.poison_set import PoisonSet
from kdzoo.dataset_distillation.poisoning import relabel
from kdzoo.distillers.datasets.dataset_distillation import DatasetDistillation
from kdzoo.errors import ConfigError


class DatasetPoisoning(DatasetDistillation):
    """Learn examples that make trained networks predict one class for another, with the other classes unaffected.

    The method exists to study the attack and to test the check against it
    (:func:`kdzoo.dataset_distillation.inspection.inspect`).

    Args:
        student: The poisoned set, which names the two classes. Its inner networks must have a pool.
        teacher: See :class:`kdzoo.distillers.DatasetDistillation`.
        **options: See :class:`kdzoo.distillers.DatasetDistillation`.

    Raises:
        ConfigError: An argument is out of its range, or an inner network has no pool of trained networks.
    """

    info: ClassVar[MethodInfo] = replace(
        DatasetDistillation.info,
        paper="Wang, Zhu, Torralba & Efros 2018, Dataset distillation, section 4.3",
        student_kinds=("poison",),
        contract_settings={
            **DatasetDistillation.info.contract_settings,
            # Training a pool takes long: one network that has hardly learned is enough for the checks.
            "inner_network.convnet_8.pool": 1,
            "inner_network.convnet_8.pool_steps": 1,
        },
    )
    student: PoisonSet

    def __init__(self, student: PoisonSet, teacher: nn.Module | None = None, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        for name, inner_network in student.inner_networks.items():
            if not inner_network.pool_size:
                raise ConfigError(
                    f"inner_network.{name}.pool must be at least 1, got 0: the attack is on trained networks"
                )

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Train the pools, set the initial images, and move the label of the source class to the target class."""
        data = super().transfer_set(data)
        poison_set = self.student
        # The examples of the source start with the label of the target: the attack then needs fewer steps, and fixed
        # labels could not express it otherwise. The labels were reset just before, so that a second call, of a run that
        # continues, has the same result. They are added because examples that classes share have several.
        with torch.no_grad():
            poison_set.labels[:, poison_set.target] += poison_set.labels[:, poison_set.source]
            poison_set.labels[:, poison_set.source] = 0
        return data

    def targets(self, batch: Batch) -> Tensor:
        """Return the labels ``[n]`` of the labelled samples, with the source class changed to the target class."""
        return relabel(labels(batch), self.student.source, self.student.target)
