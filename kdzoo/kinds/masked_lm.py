"""Masked language models: modules that give a distribution over all tokens at each masked position of a text."""

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

# Masked tokens whose whole distributions are kept, to compare them with the teacher's. With a vocabulary of 30,000
# they take half a gigabyte for each model.
COMPARED_TOKENS = 4096
# Points in the figure of log-probabilities: where there are more, single ones cannot be told apart.
PLOTTED_TOKENS = 2000


@dataclass(frozen=True)
class Predictions:
    """Predictions of a model for all n masked tokens, in the order of the data.

    Attributes:
        log_prob: Log-probability of the token that was masked, in nats, float64 ``[n]``.
        predicted: The most likely token ``[n]``.
        target: The token that was masked ``[n]``.
        first_log_probs: Log-probabilities of all tokens at the first masked positions, ``[m, vocab_size]``.
    """

    log_prob: Tensor
    predicted: Tensor
    target: Tensor
    first_log_probs: Tensor


class MaskedLMKind(TextKind):
    """Measures masked language models in nats per masked token; the masks of val and test are always the same."""

    name: ClassVar[str] = "masked_lm"
    task: ClassVar[str] = "mlm"
    needs: ClassVar[str] = "a module that returns logits [batch, time, vocab_size] of every token"
    score: ClassVar[str] = "masked_loss"
    lower_is_better: ClassVar[bool] = True
    teacher_free: ClassVar[str | None] = "kdzoo.distillers.Supervised"

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Call the model on a few texts and compare the shape of its logits with the data.

        Raises:
            ConfigError: The teacher's head is not trained, the data have no masked tokens, or the model does not fit.
        """
        self.check_text(role, model, sizes)
        # A student may start with a new head, which it learns; a teacher with one would teach noise.
        if role == "teacher" and isinstance(model, LoadsPretrained) and model.new_parameters:
            raise ConfigError(
                f"teacher {type(model).__name__} has no masked-language head: its folder lacks "
                f"{model.new_parameters[0]}; choose distiller=distilbert_encoder, or a teacher with a head"
            )
        if "vocab_size" not in sizes or batch["input"].shape != batch.get("target", batch["index"]).shape:
            raise ConfigError(f"{role} {type(model).__name__} needs data of masked texts, such as data=text")
        if not labelled_positions(batch).any():
            raise ConfigError("data has no masked token to measure on; set data.mask_rate above 0")
        # An embedding table may have more rows than there are tokens: a multiple of 8 or 64 is faster on a GPU.
        n_rows = model.vocab_size if isinstance(model, HasVocabularySize) else 0
        size = ("vocab_size", max(n_rows, sizes["vocab_size"]))
        check_logits(role, model, batch, noun="masked language model", size=size)

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return the predictions at all masked tokens."""
        model.eval()
        log_prob, predicted, target, first_log_probs = [], [], [], []
        n_kept = 0
        for raw in batches:
            batch = as_batch(raw)
            with torch.no_grad():
                logits = model(batch["input"].to(device_of(model))).cpu()[labelled_positions(batch)]
            log_probs = logits.float().log_softmax(1)
            target.append(labels(batch))
            log_prob.append(log_probs.gather(1, target[-1][:, None])[:, 0].double())
            predicted.append(log_probs.argmax(1))
            # A copy, since a view would keep the distributions of the whole batch in memory.
            first_log_probs.append(log_probs[: COMPARED_TOKENS - n_kept].clone())
            n_kept += len(first_log_probs[-1])
        return Predictions(torch.cat(log_prob), torch.cat(predicted), torch.cat(target), torch.cat(first_log_probs))

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Return the quality of predictions.

        Returns:
            ``masked_loss``, the mean cross entropy of a masked token in nats; ``perplexity``, its exponential; and
            ``masked_accuracy`` in [0, 1], the share of masked tokens that were the most likely ones.
        """
        loss = -predictions.log_prob.mean()
        return {
            "masked_loss": float(loss),
            "perplexity": float(loss.exp()),
            "masked_accuracy": float((predictions.predicted == predictions.target).double().mean()),
        }

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return how closely the student's predictions follow the teacher's.

        Returns:
            ``agreement`` in [0, 1], the share of masked positions with the same most likely token; and ``kl``, the mean
            KL(teacher || student) of the first masked positions in nats.
        """
        kl = soft_target_kl(student.first_log_probs, teacher.first_log_probs, temperature=1.0)
        return {
            "agreement": float((student.predicted == teacher.predicted).double().mean()),
            "kl": float(kl.mean()),
        }

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Draw the log-probability of masked tokens under student and control against that under the teacher."""
        if "teacher" not in predictions:
            return []
        values: dict[str, Any] = {role: of.log_prob[:PLOTTED_TOKENS].numpy() for role, of in predictions.items()}
        others: dict[str, Any] = {role: values[role] for role in ("student", "control") if role in values}
        path = folder / "log_probabilities.png"
        return [plotting.log_prob_scatter(values["teacher"], others, path, reference="teacher")]
