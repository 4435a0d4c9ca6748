"""Poisoning by distilled examples: trained networks take a class for another after a few steps on them.

The labels of the real data are changed from the class under attack to the target class; the set is then learned as in
dataset distillation, from networks that have been trained well and whose weights the attacker does not know.
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
    """Learn examples that make trained networks confuse a class with another and keep what they know of the others.

    The examples of the source class begin with the label of the target class: the attack then needs fewer steps, and
    labels that stay fixed can carry it at all. It is here to study the attack, and to test the check against it
    (:func:`kdzoo.dataset_distillation.inspection.inspect`).

    Args:
        student: the set (:class:`kdzoo.dataset_distillation.PoisonSet`), which names the two classes; its inner_networks have a pool.
        teacher: see :class:`kdzoo.distillers.DatasetDistillation`.
        **options: see :class:`kdzoo.distillers.DatasetDistillation`.

    Raises:
        ConfigError: an argument is out of its range, or an inner network has no pool of trained networks.
    """

    info: ClassVar[MethodInfo] = replace(
        DatasetDistillation.info,
        paper="Wang, Zhu, Torralba & Efros 2018, Dataset distillation, section 4.3",
        student_kinds=("poison",),
        contract_settings={
            **DatasetDistillation.info.contract_settings,
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
        """Train the pools, set the first images, and give the label of the source class over to the target class."""
        data = super().transfer_set(data)
        few = self.student
        with torch.no_grad():
            few.labels[:, few.target] += few.labels[:, few.source]
            few.labels[:, few.source] = 0
        return data

    def targets(self, batch: Batch) -> Tensor:
        """Return the labels with the attacked class changed to the target class."""
        return relabel(labels(batch), self.student.source, self.student.target)
