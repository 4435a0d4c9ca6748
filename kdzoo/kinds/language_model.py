"""Language models: modules that give the distribution of the next symbol after each prefix of a string."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.automata.compare import pautomac_score
from kdzoo.core.batch import Batch, as_batch, labelled_positions, labels
from kdzoo.errors import ConfigError
from kdzoo.functional import soft_target_kl
from kdzoo.kinds.kind import Kind
from kdzoo.kinds.logits import check_logits
from kdzoo.text.language_model import LanguageModel, device_of

PROTOCOL = ("initial_state", "step", "next_log_probs", "hidden")


@dataclass(frozen=True)
class Predictions:
    """What a model says at all n labelled positions, in the order of the data.

    Attributes:
        log_probs: log-probabilities of the next symbol in nats [n, V].
        target: the symbol that follows [n].
        string: number of the string of each position, from 0 in the order of the data [n].
        truth: log-probabilities under the true source [n, V], where it is known.
    """

    log_probs: Tensor
    target: Tensor
    string: Tensor
    truth: Tensor | None = None

    @property
    def predicted(self) -> Tensor:
        """The most likely symbol at each position [n]."""
        return self.log_probs.argmax(1)


class LanguageModelKind(Kind):
    """Measured in nats per symbol, ends included, and where the true source is known by what is lost to it.

    Batches have inputs and targets [b, T]. Those for measuring may have one more key, ``truth`` [b, T, V]: the
    log-probabilities of the next symbol under the source that the strings were drawn from.
    """

    name: ClassVar[str] = "language_model"
    needs: ClassVar[str] = (
        "a language model (kdzoo.text.language_model.LanguageModel) that is called with strings [b, T]"
    )
    score: ClassVar[str] = "log_prob"
    teacher_free: ClassVar[str] = "kdzoo.distillers.Supervised"

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether a model has the methods of a language model."""
        return isinstance(model, LanguageModel)

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Look for the functions of a language model, and compare the shape of its logits with the data."""
        if not isinstance(model, LanguageModel):
            raise ConfigError(f"{role} {type(model).__name__} is not {self.needs}")
        if "vocab_size" not in sizes:
            raise ConfigError(f"{role} {type(model).__name__} needs data of strings, which have a vocab_size")
        size = ("vocab_size", sizes["vocab_size"])
        check_logits(role, model, batch, noun="language model", size=size)

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return the next-symbol log-probabilities at all labelled positions."""
        model.eval()
        parts: dict[str, list[Tensor]] = {"log_probs": [], "target": [], "string": [], "truth": []}
        read = 0
        for raw in batches:
            batch = as_batch(raw)
            labelled = labelled_positions(batch)
            with torch.no_grad():
                output = model(batch["input"].to(device_of(model))).cpu()[labelled]
            parts["log_probs"].append(_normalised(output))
            parts["target"].append(labels(batch))
            parts["string"].append(labelled.nonzero()[:, 0] + read)
            if "truth" in batch:
                parts["truth"].append(batch["truth"][labelled])
            read += len(labelled)
        return Predictions(**{name: torch.cat(part) for name, part in parts.items() if part})

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Return the quality of predictions.

        Always ``log_prob``, the mean log-probability of a symbol in nats; ``perplexity``, exp of its negative;
        and ``accuracy``, the share of symbols that were the most likely. With the truth also
        ``kl_from_truth``, the mean over positions of KL(truth || model) of the next symbol in nats, and
        ``pautomac_score``, the perplexity of whole strings in the competition's sense, over distinct strings.
        """
        log_prob = _of_targets(predictions.log_probs, predictions.target).mean()
        found = {
            "log_prob": float(log_prob),
            "perplexity": float((-log_prob).exp()),
            "accuracy": float((predictions.predicted == predictions.target).double().mean()),
        }
        if predictions.truth is None:
            return found
        first = distinct_strings(predictions)
        truth = sequence_log_probs(predictions, predictions.truth)[first]
        model = sequence_log_probs(predictions, predictions.log_probs)[first]
        return {
            **found,
            "kl_from_truth": mean_kl(predictions.log_probs, predictions.truth),
            "pautomac_score": inf if model.isneginf().all() else pautomac_score(truth, model),
        }

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return the share of equal most likely symbols and the mean KL(teacher || student) in nats per symbol."""
        return {
            "agreement": float((student.predicted == teacher.predicted).double().mean()),
            "kl": mean_kl(student.log_probs, teacher.log_probs),
        }

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Draw the log-probability of each string, student and control against the teacher, or else the truth."""
        of_strings: dict[str, Any] = {
            name: sequence_log_probs(one, one.log_probs).numpy() for name, one in predictions.items()
        }
        taught: dict[str, Any] = {name: of_strings[name] for name in ("student", "control") if name in of_strings}
        if "teacher" in of_strings:
            reference, x = "teacher", of_strings["teacher"]
        else:
            student = predictions["student"]
            if student.truth is None:
                return []
            reference, x = "truth", sequence_log_probs(student, student.truth).numpy()
        path = folder / "log_probabilities.png"
        return [plotting.log_prob_scatter(x, taught, path, reference=reference)]


def mean_kl(student: Tensor, teacher: Tensor) -> float:
    """Return the mean KL(teacher || student) in nats of log-probabilities [n, V].

    It is infinite where the student rules out what the teacher does not. Positions after what the teacher
    itself rules out, where all its log-probabilities are -inf, are left out.
    """
    possible = ~teacher.isneginf().all(1)
    return float(soft_target_kl(student, teacher, temperature=1.0)[possible].mean())


def sequence_log_probs(predictions: Predictions, log_probs: Tensor) -> Tensor:
    """Return the log-probability of each string in nats [strings], from those of the next symbols [n, V]."""
    total = torch.zeros(int(predictions.string.max()) + 1, dtype=torch.float64)
    return total.index_add_(0, predictions.string, _of_targets(log_probs, predictions.target))


def distinct_strings(predictions: Predictions) -> Tensor:
    """Return the number of the first of all equal strings, for every distinct one [m]."""
    numbers = range(int(predictions.string.max()) + 1)
    lengths = predictions.string.bincount().tolist()
    strings = [tuple(one.tolist()) for one in predictions.target.split(lengths)]
    return torch.tensor(sorted(dict(zip(reversed(strings), reversed(numbers), strict=True)).values()))


def _of_targets(log_probs: Tensor, target: Tensor) -> Tensor:
    """Return the log-probability of each target, float64 [n]."""
    return log_probs.gather(1, target[:, None]).squeeze(1).double()


def _normalised(logits: Tensor) -> Tensor:
    """Return log-probabilities, at least float32; a row that is all -inf stays so."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.where(logits.isneginf().all(1, keepdim=True), logits, logits.log_softmax(1))
