"""Mean teachers, with a moving average of the student as the teacher, and noisy inputs (Tarvainen & Valpola 2017).

The student and the moving average of its weights get the same inputs with independent noise; the loss compares their
probabilities. There is no trained teacher.
"""

import torch

from kdzoo import Distiller, MethodInfo
from kdzoo.core.batch import labelled_selection, labels
from kdzoo.core.validation import integer, number
from kdzoo.core.weight_average import WeightAverage
from kdzoo.data.derived.noise import NoisyData
from kdzoo.functional import hard_target_ce


class MeanTeacher(Distiller):
    """Match the probabilities of the moving average of the student on noisy inputs.

    Args:
        student: Returns logits [batch, classes].
        decay: Weight of the old average, in [0, 1).
        noise: Standard deviation of the noise on the inputs, >= 0.
        seed: Seed of the noise, >= 0.
    """

    info = MethodInfo(
        terms={"consistency": 1.0, "hard": 1.0},
        teacher="none",
        paper="Tarvainen & Valpola 2017, Mean teachers are better role models, equation 1",
    )

    def __init__(self, student, teacher=None, *, decay: float = 0.99, noise: float = 0.1, seed: int = 0, **options):
        super().__init__(student, teacher, **options)
        self.average = WeightAverage(student, decay)
        self.noise = number("noise", noise, least=0.0)
        self.seed = integer("seed", seed, 0)

    def transfer_set(self, data):
        """Return the data with two noise tensors per sample, which depend on seed, epoch and index only."""
        shape = data.sizes["in_shape"]

        def draw(n, generator):
            return {"noise": torch.randn(n, 2, *shape, generator=generator)}

        return NoisyData(data, draw, noise_only=False, seed=self.seed)

    def losses(self, batch):
        """Return the squared distance of the probabilities per sample, and the cross entropy per labelled sample."""
        inputs = batch["input"]
        # The dry run is made with plain samples, before the transfer set exists.
        noise = batch.get("noise", torch.zeros_like(inputs)[:, None].expand(-1, 2, *inputs.shape[1:]))
        first, second = (self.noise * noise.to(inputs)).unbind(1)
        student = self.student(inputs + first)
        with torch.no_grad():
            target = self.average(inputs + second)
        return {
            "consistency": (student.softmax(1) - target.softmax(1)).square().sum(1),
            "hard": hard_target_ce(student[labelled_selection(batch)], labels(batch)),
        }
