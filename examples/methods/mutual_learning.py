"""Several students: deep mutual learning (Zhang et al. 2018).

Every student learns from the labels and from the mean probabilities of the others. There is no teacher. The first
student is evaluated and exported; its peers have the same architecture and other initial weights.
"""

import copy

import torch
from torch import nn

from kdzoo import Distiller, MethodInfo
from kdzoo.core.batch import labelled_selection, labels
from kdzoo.core.validation import integer
from kdzoo.functional import hard_target_ce, soft_target_kl


class MutualLearning(Distiller):
    """Train a student together with peers that teach each other.

    Args:
        student: Returns logits [batch, classes]; every layer with parameters has ``reset_parameters``.
        peers: Number of further students, at least 1.
    """

    info = MethodInfo(
        terms={"mutual": 1.0, "hard": 1.0},
        teacher="none",
        paper="Zhang, Xiang, Hospedales & Lu 2018, Deep mutual learning, equations 5 and 8",
    )

    def __init__(self, student, teacher=None, *, peers: int = 1, **options):
        super().__init__(student, teacher, **options)
        self.peers = nn.ModuleList(reinitialised(student) for _ in range(integer("peers", peers)))

    def losses(self, batch):
        """Return the divergence from the others and the cross entropy, each summed over all students."""
        logits = [student(batch["input"]) for student in (self.student, *self.peers)]
        labelled, target = labelled_selection(batch), labels(batch)
        mutual = [
            soft_target_kl(student_logits, mean_logits(logits[:i] + logits[i + 1 :]), temperature=1.0)
            for i, student_logits in enumerate(logits)
        ]
        return {
            "mutual": torch.stack(mutual).sum(0),
            "hard": torch.stack([hard_target_ce(student_logits[labelled], target) for student_logits in logits]).sum(0),
        }


def mean_logits(logits):
    """Return log-probabilities of the mean of several distributions, without gradient."""
    log_probs = torch.stack([student_logits.detach().log_softmax(1) for student_logits in logits])
    return log_probs.logsumexp(0)


def reinitialised(model):
    """Return a copy of a model with other random weights."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    return model
