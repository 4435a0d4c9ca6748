"""The training of ``bench_step.py`` in torchdistill; if it cannot be imported, ``IMPORT_ERROR`` holds the message."""

import logging
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler, TensorDataset

if TYPE_CHECKING:
    from kdzoo.data import ArrayData

KERNELS = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
OPERATORS = ["nms", "qnms", *KERNELS, *(f"_{kernel}_backward" for kernel in KERNELS)]
library = torch.library.Library("torchvision", "DEF")
# The training of torchdistill needs only the Python part of torchvision, whose import fails on a CPU build of torch
# because the compiled operators are missing. Declaring the operators without a body lets the import succeed.
for operator in OPERATORS:
    library.define(f"{operator}(Tensor x) -> Tensor")

try:
    from torchdistill.common.constant import def_logger
    from torchdistill.core.distillation import get_distillation_box
except (ImportError, RuntimeError) as error:
    IMPORT_ERROR = str(error)
else:
    IMPORT_ERROR = ""
    def_logger.setLevel(logging.WARNING)


def time_epoch_on_its_loader(student: nn.Module, teacher: nn.Module, data: "ArrayData") -> float:
    """Train for one epoch with the data loader that torchdistill builds; return the CPU milliseconds per step."""
    box = make_box(student, teacher, data)
    start = time.process_time()
    box.pre_epoch_process(epoch=0)
    for inputs, target, extra in box.train_data_loader:
        box.post_forward_process(loss=box.forward_process(inputs, target, extra))
    return 1e3 * (time.process_time() - start) / len(box.train_data_loader)


def time_epoch_on_given_batches(student: nn.Module, teacher: nn.Module, data: "ArrayData") -> float:
    """Train for one epoch on the batches of kdzoo; return the CPU milliseconds per step."""
    box = make_box(student, teacher, data)
    x, y = data.splits.train.tensors
    data.train_sampler.epoch = 0
    start = time.process_time()
    box.pre_epoch_process(epoch=0)
    for _, index in data.train_sampler:
        loss: Tensor = box.forward_process(x.index_select(0, index), y.index_select(0, index), {})
        box.post_forward_process(loss=loss)
    return 1e3 * (time.process_time() - start) / len(data.train_sampler)


def make_box(student: nn.Module, teacher: nn.Module, data: "ArrayData") -> Any:
    """Return torchdistill's object for a training by logit distillation."""
    from bench_common import BATCH, HARD, SOFT, TEMPERATURE

    criterion = {
        "key": "KDLoss",
        "kwargs": {
            "student_module_path": ".",
            "student_module_io": "output",
            "teacher_module_path": ".",
            "teacher_module_io": "output",
            "temperature": TEMPERATURE,
            "alpha": HARD,
            "beta": SOFT,
            "reduction": "batchmean",
        },
    }
    settings = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": {"batch_size": BATCH},
        },
        "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "Adam", "kwargs": {"lr": 1e-3}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": criterion, "weight": 1.0}}},
        },
    }
    datasets = {"train": TensorDataset(*data.splits.train.tensors)}
    return get_distillation_box(teacher, student, datasets, settings, torch.device("cpu"), None, False, 1)
