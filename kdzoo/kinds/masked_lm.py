"""Masked language models: modules that give the distribution of every token of a text with gaps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.core.abilities import HasVocabularySize, LoadsPretrained
from kdzoo.core.batch import Batch, as_batch, labelled_positions, labels
from kdzoo.errors import ConfigError
from kdzoo.functional import soft_target_kl
from kdzoo.kinds.logits import check_logits
from kdzoo.kinds.text_kind import TextKind
from kdzoo.text.language_model import device_of

COMPARED = 4096
"""Masked tokens whose whole distributions are kept, to compare them with the teacher's."""
DRAWN = 2000


@dataclass(frozen=True)
class Predictions:
    """What a model says of all n masked tokens, in the order of the data.

    Attributes:
        log_prob: of the token that was there, in nats, float64 [n].
        predicted: the most likely token [n].
        target: the token that was there [n].
        first: log-probabilities of all tokens at the first masked tokens [m, V].
    """

    log_prob: Tensor
    predicted: Tensor
    target: Tensor
    first: Tensor


class MaskedLMKind(TextKind):
    """Measured in nats per masked token, always the same tokens."""

    name: ClassVar[str] = "masked_lm"
    task: ClassVar[str] = "mlm"
    needs: ClassVar[str] = "a module that returns logits [b, T, vocab_size] of every token"
    score: ClassVar[str] = "masked_loss"
    lower_is_better: ClassVar[bool] = True
    teacher_free: ClassVar[str | None] = "kdzoo.distillers.Supervised"

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Call the model on a few texts and compare the shape of its logits with the data."""
        self.check_text(role, model, sizes)
        if role == "teacher" and isinstance(model, LoadsPretrained) and model.new_parameters:
            raise ConfigError(
                f"teacher {type(model).__name__} has no masked-language head: its folder lacks {model.new_parameters[0]}; "
                "choose distiller.task=embedding, or a teacher with a head"
            )
        if "vocab_size" not in sizes or batch["input"].shape != batch.get("target", batch["index"]).shape:
            raise ConfigError(f"{role} {type(model).__name__} needs data of masked texts, such as data=text")
        if not labelled_positions(batch).any():
            raise ConfigError("data has no masked token to measure on; set data.mask_rate above 0")
        # A table of tokens may have more rows than there are tokens, for speed.
        own = model.vocab_size if isinstance(model, HasVocabularySize) else 0
        rows = max(own, sizes["vocab_size"])
        check_logits(role, model, batch, noun="masked language model", size=("vocab_size", rows))

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return what the model says at all masked tokens."""
        model.eval()
        log_prob, predicted, target, first = [], [], [], []
        kept = 0
        for raw in batches:
            batch = as_batch(raw)
            with torch.no_grad():
                logits = model(batch["input"].to(device_of(model))).cpu()[labelled_positions(batch)]
            log_probs = logits.float().log_softmax(1)
            target.append(labels(batch))
            log_prob.append(log_probs.gather(1, target[-1][:, None])[:, 0].double())
            predicted.append(log_probs.argmax(1))
            first.append(log_probs[: COMPARED - kept].clone())
            kept += len(first[-1])
        return Predictions(torch.cat(log_prob), torch.cat(predicted), torch.cat(target), torch.cat(first))

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Return the mean masked-token loss in nats, its exponential, and the share of tokens that were most likely."""
        loss = -predictions.log_prob.mean()
        return {
            "masked_loss": float(loss),
            "perplexity": float(loss.exp()),
            "masked_accuracy": float((predictions.predicted == predictions.target).double().mean()),
        }

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return the share of equal most likely tokens, and the KL(teacher || student) of the first ones in nats."""
        return {
            "agreement": float((student.predicted == teacher.predicted).double().mean()),
            "kl": float(soft_target_kl(student.first, teacher.first, temperature=1.0).mean()),
        }

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Draw the log-probability of masked tokens, student and control against the teacher."""
        if "teacher" not in predictions:
            return []
        values: dict[str, Any] = {role: one.log_prob[:DRAWN].numpy() for role, one in predictions.items()}
        taught: dict[str, Any] = {role: values[role] for role in ("student", "control") if role in values}
        path = folder / "log_probabilities.png"
        return [plotting.log_prob_scatter(values["teacher"], taught, path, reference="teacher")]
