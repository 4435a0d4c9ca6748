"""Two views of a sample: the teacher sees the image as it is, the student an augmented one (Xie et al. 2020)."""

from kdzoo import MethodInfo
from kdzoo.core.validation import integer
from kdzoo.data.derived.two_views import TwoViews
from kdzoo.distillers import LogitKD


class NoisyStudent(LogitKD):
    """Match the teacher's probabilities for the image as it is on an augmented view of it.

    Args:
        student: Returns logits [batch, classes].
        teacher: Returns logits of the same shape.
        shift: Largest translation of the student's view, in pixels, >= 0.
        seed: Seed of the views, >= 0.
        temperature: T > 0.
    """

    info = MethodInfo(
        terms={"soft": 0.9, "hard": 0.1},
        paper="Xie, Luong, Hovy & Le 2020, Self-training with Noisy Student improves ImageNet classification, "
        "section 2",
    )

    def __init__(self, student, teacher, *, shift: int = 1, seed: int = 0, temperature: float = 4.0, **options):
        super().__init__(student, teacher, temperature=temperature, **options)
        self.shift = integer("shift", shift, 0)
        self.seed = integer("seed", seed, 0)

    def transfer_set(self, data):
        """Return the data in two views; the first one is the sample itself."""
        return TwoViews(data, augment={"shift": self.shift}, seed=self.seed)

    def losses(self, batch):
        """Return the softened divergence per sample, and the cross entropy per labelled sample."""
        # The dry run is made with plain samples, before the transfer set exists.
        view = batch.get("view", batch["input"])
        return self.logit_terms(batch, self.student(view), self.frozen_teacher.output(batch))
