"""Decoupled knowledge distillation (Zhao et al. 2022, equation 7), written as a user would."""

import torch
from torch.nn.functional import kl_div, nll_loss

from kdzoo import Distiller, MethodInfo
from kdzoo.core.batch import labelled_selection, labels
from kdzoo.core.validation import positive


class MyDKD(Distiller):
    """Weigh the target class and the other classes separately."""

    info = MethodInfo(
        terms={"target": 1.0, "others": 8.0, "hard": 1.0},
        label_terms=frozenset({"target", "others", "hard"}),
    )

    def __init__(self, student, teacher, *, temperature: float = 4.0, **options):
        super().__init__(student, teacher, **options)
        self.temperature = positive("temperature", temperature)

    def losses(self, batch):
        """Return the three terms, each with one value for every labelled sample."""
        labelled, target = labelled_selection(batch), labels(batch)
        student = self.student(batch["input"])[labelled]
        s_target, s_others = log_parts(student / self.temperature, target)
        t_target, t_others = log_parts(self.frozen_teacher.output(batch)[labelled] / self.temperature, target)
        return {
            "target": self.temperature**2 * kl_div(s_target, t_target, reduction="none", log_target=True).sum(1),
            "others": self.temperature**2 * kl_div(s_others, t_others, reduction="none", log_target=True).sum(1),
            "hard": nll_loss(student.log_softmax(1), target, reduction="none"),
        }


def log_parts(logits, target):
    """Return log-probabilities of the target against the rest [n, 2], and of the other classes [n, c - 1]."""
    rest = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = logits.gather(1, rest + (rest >= target[:, None]))
    either = torch.cat([logits.gather(1, target[:, None]), others.logsumexp(1, keepdim=True)], 1)
    return either.log_softmax(1), others.log_softmax(1)
