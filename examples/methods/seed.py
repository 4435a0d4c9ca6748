"""A queue of teacher features: SEED (Fang et al. 2021), section 3.2.

With the normalised embeddings s of the student and t of the teacher, and a queue D of teacher embeddings of the last
batches, to which t itself is added, the loss of a sample is the cross entropy of softmax(t D / T_t) and
softmax(s D / T_s).

The example shows state that changes once per step (the queue), and modules whose sizes depend on a batch (the head).
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from kdzoo import Distiller, MethodInfo
from kdzoo.core.step_state import FeatureQueue
from kdzoo.core.validation import integer, positive


class SEED(Distiller):
    """Match the similarities of a sample to the samples in a queue.

    Args:
        student: Returns vectors [batch, d], as the logits of a classifier.
        teacher: Returns vectors [batch, e].
        queue_size: Number of teacher vectors to compare with, at least 1.
        student_temperature: T_s > 0.
        teacher_temperature: T_t > 0; smaller than T_s in the paper.
    """

    info = MethodInfo(
        terms={"similarity": 1.0},
        paper="Fang, Wang, Wang, Zhang, Yang & Liu 2021, SEED: self-supervised distillation for visual representation, "
        "equation 4",
    )

    def __init__(
        self,
        student,
        teacher,
        *,
        queue_size: int = 256,
        student_temperature: float = 0.2,
        teacher_temperature: float = 0.1,
        **options,
    ):
        super().__init__(student, teacher, **options)
        self.queue_size = integer("queue_size", queue_size)
        self.student_temperature = positive("student_temperature", student_temperature)
        self.teacher_temperature = positive("teacher_temperature", teacher_temperature)
        self.head: Any = None
        self.queue: Any = None

    def prepare(self, batch):
        """Build the head and the queue, whose widths are those of the models' outputs."""
        if self.head is None:
            width = self.frozen_teacher.output(batch).shape[1]
            self.head = nn.Linear(self.student(batch["input"]).shape[1], width)
            self.queue = FeatureQueue(self.queue_size, width)

    def losses(self, batch):
        """Return the cross entropy of the similarities, one value per sample."""
        student = normalize(self.head(self.student(batch["input"])), dim=1)
        teacher = normalize(self.frozen_teacher.output(batch), dim=1)
        self.queue.enqueue(teacher)
        target = similarities(teacher, teacher, self.queue.queue) / self.teacher_temperature
        predicted = similarities(student, teacher, self.queue.queue) / self.student_temperature
        return {"similarity": -(target.softmax(1) * predicted.log_softmax(1)).sum(1)}


def similarities(vectors, positives, queue):
    """Return the inner products [batch, size + 1] of vectors [batch, d] with a queue [size, d] and their positives."""
    return torch.cat([vectors @ queue.T, (vectors * positives).sum(1, keepdim=True)], dim=1)
