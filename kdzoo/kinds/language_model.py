"""Language models: modules that predict the next symbol after each prefix of a string."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.automata.compare import pautomac_score
from kdzoo.core.abilities import HasOracle
from kdzoo.core.batch import Batch, as_batch, labelled_positions, labels
from kdzoo.errors import ConfigError
from kdzoo.functional import soft_target_kl
from kdzoo.kinds.kind import Kind
from kdzoo.kinds.logits import check_logits
from kdzoo.text.language_model import LanguageModel, device_of

# The members of the protocol LanguageModel, for a message that names the missing ones.
PROTOCOL = ("vocab_size", "initial_state", "step", "next_log_probs", "hidden")


@dataclass(frozen=True)
class Predictions:
    """Predictions of a model at all n labelled positions, in the order of the data.

    Attributes:
        log_probs: Log-probabilities of the next symbol in nats ``[n, V]``.
        target: The symbol that follows, int64 ``[n]``.
        string: Index of the string of each position, from 0 in the order of the data, int64 ``[n]``.
        truth: Log-probabilities under the true source in nats ``[n, V]``; None if it is not known.
        oracle_nll: Mean negative log-probability of a token that the model generates, under the language model that the
            data were drawn from; None if it is not known.
    """

    log_probs: Tensor
    target: Tensor
    string: Tensor
    truth: Tensor | None = None
    oracle_nll: float | None = None

    @property
    def predicted(self) -> Tensor:
        """The most likely symbol at each position ``[n]``."""
        return self.log_probs.argmax(1)


class LanguageModelKind(Kind):
    """Language models are measured in nats per symbol, ends included, and by the divergence from a known source.

    Batches have inputs and targets ``[b, T]``. Those of the test split may have one more key, ``truth`` ``[b, T, V]``:
    the log-probabilities of the next symbol under the source that the strings were drawn from.

    Attributes:
        source: Data that were drawn from a known language model, under which generated strings are scored; None: they
            are not scored.
    """

    name: ClassVar[str] = "language_model"
    needs: ClassVar[str] = (
        "a language model (kdzoo.text.language_model.LanguageModel) that is called with strings [b, T]"
    )
    score: ClassVar[str] = "log_prob"
    teacher_free: ClassVar[str] = "kdzoo.distillers.Supervised"

    source: HasOracle | None = None

    def bind(self, data: Any, cache: Path, feature_extractor: str | None = None) -> "LanguageModelKind":  # noqa: ARG002
        """Return this kind with the oracle of some data, if they have one."""
        bound = copy.copy(self)  # a user's subclass may have arguments
        bound.source = data if isinstance(data, HasOracle) else None
        return bound

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether a model has the methods of a language model."""
        return isinstance(model, LanguageModel)

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Reject a model without the methods of a language model, or whose logits do not fit the data."""
        if not isinstance(model, LanguageModel):
            missing = sorted(set(PROTOCOL) - set(dir(model)), key=PROTOCOL.index)
            # Not self.needs: a subclass may need more of its students, while the teacher is any language model.
            needs = LanguageModelKind.needs
            raise ConfigError(f"{role} {type(model).__name__} is not {needs}: it lacks {', '.join(missing)}")
        if "vocab_size" not in sizes:
            raise ConfigError(f"{role} {type(model).__name__} needs data of strings, which have a vocab_size")
        size = ("vocab_size", sizes["vocab_size"])
        check_logits(role, model, batch, noun="language model", size=size)

    def predict(self, model: nn.Module, batches: Iterable[Any]) -> Predictions:
        """Return the next-symbol log-probabilities at all labelled positions."""
        model.eval()
        parts: dict[str, list[Tensor]] = {"log_probs": [], "target": [], "string": [], "truth": []}
        n_strings = 0
        for item in batches:
            batch = as_batch(item)
            labelled = labelled_positions(batch)
            with torch.no_grad():
                output = model(batch["input"].to(device_of(model))).cpu()[labelled]
            parts["log_probs"].append(_log_probs(output))
            parts["target"].append(labels(batch))
            parts["string"].append(labelled.nonzero()[:, 0] + n_strings)
            if "truth" in batch:
                parts["truth"].append(batch["truth"][labelled])
            n_strings += len(labelled)
        oracle_nll = None if self.source is None else self.source.oracle_nll(model)
        # Without a truth in the data its list is empty, and the field stays None.
        return Predictions(**{name: torch.cat(part) for name, part in parts.items() if part}, oracle_nll=oracle_nll)

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        """Return the quality of predictions.

        Returns:
            ``log_prob``, the mean log-probability of a symbol in nats; ``perplexity``, exp(-log_prob); ``accuracy``,
            the share of positions where the most likely symbol follows. If the truth is known also ``kl_from_truth``,
            the mean over positions of KL(truth || model) of the next symbol in nats, and ``pautomac_score``, the
            perplexity of distinct whole strings, see :func:`kdzoo.automata.compare.pautomac_score`. If an oracle is
            known also ``oracle_nll`` of generated and ``test_nll`` of test strings, in nats per symbol.
        """
        log_prob = _target_log_probs(predictions.log_probs, predictions.target).mean()
        scores = {
            "log_prob": float(log_prob),
            "perplexity": float((-log_prob).exp()),
            "accuracy": float((predictions.predicted == predictions.target).double().mean()),
        }
        if predictions.oracle_nll is not None:
            # Only together do they show a model that generates likely strings, but few different ones.
            scores |= {"oracle_nll": predictions.oracle_nll, "test_nll": -float(log_prob)}
        if predictions.truth is None:
            return scores
        # The competition's score is defined on a set of strings; repeated ones would count twice.
        distinct = distinct_strings(predictions)
        truth = sequence_log_probs(predictions, predictions.truth)[distinct]
        model = sequence_log_probs(predictions, predictions.log_probs)[distinct]
        return {
            **scores,
            "kl_from_truth": mean_kl(predictions.log_probs, predictions.truth),
            # The score normalises over the strings, which is not possible if all of them have probability 0.
            "pautomac_score": inf if model.isneginf().all() else pautomac_score(truth, model),
        }

    def fidelity(self, student: Predictions, teacher: Predictions) -> dict[str, float]:
        """Return the share of equal most likely symbols and the mean KL(teacher || student) in nats per symbol."""
        return {
            "agreement": float((student.predicted == teacher.predicted).double().mean()),
            "kl": mean_kl(student.log_probs, teacher.log_probs),
        }

    def reference_models(self, models: Mapping[str, nn.Module], data: Any) -> dict[str, nn.Module]:  # noqa: ARG002
        """Return the oracle of the data, if there is one."""
        return {"oracle": data.oracle} if isinstance(data, HasOracle) else {}

    def plot_predictions(self, predictions: Mapping[str, Predictions], folder: Path) -> list[Path]:
        """Plot the log-probability of each string, for student and control against the teacher, or else the truth."""
        log_probs: dict[str, Any] = {
            role: sequence_log_probs(prediction, prediction.log_probs).numpy()
            for role, prediction in predictions.items()
        }
        # Other controls and baselines would make the scatter plot unreadable.
        plotted: dict[str, Any] = {role: log_probs[role] for role in ("student", "control") if role in log_probs}
        if "teacher" in log_probs:
            reference, x = "teacher", log_probs["teacher"]
        else:
            student = predictions["student"]
            if student.truth is None:
                return []
            reference, x = "truth", sequence_log_probs(student, student.truth).numpy()
        path = folder / "log_probabilities.png"
        return [plotting.log_prob_scatter(x, plotted, path, reference=reference)]


def mean_kl(student: Tensor, teacher: Tensor) -> float:
    """Return the mean KL(teacher || student) of log-probabilities ``[n, V]`` in nats.

    It is infinite if the student gives probability 0 to a symbol that is possible under the teacher. Positions after
    an impossible prefix, where all log-probabilities of the teacher are -inf, are left out.
    """
    possible = ~teacher.isneginf().all(1)
    return float(soft_target_kl(student, teacher, temperature=1.0)[possible].mean())


def sequence_log_probs(predictions: Predictions, log_probs: Tensor) -> Tensor:
    """Return the log-probability of each string in nats ``[strings]``, from those of the next symbols ``[n, V]``."""
    total = torch.zeros(int(predictions.string.max()) + 1, dtype=torch.float64)
    return total.index_add_(0, predictions.string, _target_log_probs(log_probs, predictions.target))


def distinct_strings(predictions: Predictions) -> Tensor:
    """Return the index of the first of all equal strings, for every distinct string ``[m]``, in ascending order."""
    lengths = predictions.string.bincount().tolist()
    strings = [tuple(string.tolist()) for string in predictions.target.split(lengths)]
    first: dict[tuple[int, ...], int] = {}
    for index, string in enumerate(strings):
        first.setdefault(string, index)
    return torch.tensor(list(first.values()))


def _target_log_probs(log_probs: Tensor, target: Tensor) -> Tensor:
    """Return the log-probability of each target, float64 ``[n]``."""
    return log_probs.gather(1, target[:, None]).squeeze(1).double()


def _log_probs(logits: Tensor) -> Tensor:
    """Return the log-probabilities of logits ``[n, V]``, in float32 or wider.

    A row that is all -inf, after an impossible prefix, stays -inf: softmax would make it NaN.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.where(logits.isneginf().all(1, keepdim=True), logits, logits.log_softmax(1))
