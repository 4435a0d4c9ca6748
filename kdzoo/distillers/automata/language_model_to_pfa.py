"""What all distillers from a language model into an automaton share: strings of the teacher, and traces along them."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kdzoo import plotting
from kdzoo.automata import BASELINES, PFA, TracedSequences
from kdzoo.core.abilities import CombinesMembers
from kdzoo.core.batch import Batch, as_batch, valid_positions
from kdzoo.core.closed_form import CLOSED_FORM_EXEMPT, ClosedFormDistiller
from kdzoo.core.method_info import MethodInfo
from kdzoo.core.randomness import mix_seed
from kdzoo.core.report_extras import ReportExtras
from kdzoo.core.validation import choice, integer
from kdzoo.data.derived.sampled import SampledTokenSequences
from kdzoo.errors import ConfigError
from kdzoo.functional import soft_target_kl
from kdzoo.text.language_model import trace
from kdzoo.text.token_sequences import TokenSequences, token_sequences_of

# Hidden states in a figure. More of them would only cover each other.
PLOTTED_POINTS = 5000

# Stream of random numbers of the sampled strings, apart from that of the restarts, which use the seed itself.
SAMPLING_STREAM = 1

Traces = dict[str, Any]
"""Tensors of the traces by ``"<member>.<name>"``, in a list of pieces, one for each batch; a checkpoint can hold it."""


class LanguageModelToPFA(ClosedFormDistiller):
    """Base of the methods that use a teacher's hidden states along strings that it generates itself.

    A method writes :meth:`distil`. The teacher is any language model
    (:class:`kdzoo.text.language_model.LanguageModel`). A :class:`kdzoo.models.LMEnsemble` is several teachers, each of
    which generates its share of the strings.

    Args:
        student: The automaton; its number of states is kept, or found if it was built without one.
        teacher: The language model.
        n_samples: Number of strings that the teacher generates, >= 1; 0 for the training strings of the data.
        max_length: Number of tokens after which a generated string is cut, >= 1.
        baselines: Names of other methods (:data:`kdzoo.automata.BASELINES`) whose automata, learned from the same
            strings, the report shows next to the student.
        seed: Seed of the strings and of all restarts, >= 0.
        **options: See :class:`kdzoo.Distiller`. The term ``kl`` is measured; no optimizer is used.

    Attributes:
        figure_data: Tensors and numbers that the figures of the report show; saved with checkpoints.

    Raises:
        ConfigError: An argument is out of its range.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"kl": 1.0},
        teacher_kinds=("language_model",),
        student_kinds=("automaton",),
        # The contract checks compare few training strings; sampling and baselines would take most of the time.
        contract_settings={"distiller.n_samples": 0, "distiller.baselines": []},
        exempt=CLOSED_FORM_EXEMPT,
    )
    student: PFA
    teacher: Any

    def __init__(
        self,
        student: PFA,
        teacher: nn.Module | None = None,
        *,
        # With soft labels a hundred strings were enough for 20 states; without them the automaton still improved at
        # 4,000 (docs/experiments/automata.md), which take seconds to distil.
        n_samples: int = 4000,
        # Bounds the time that is spent on a teacher that hardly ever ends a string.
        max_length: int = 100,
        baselines: Sequence[str] = (),
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        self.n_samples = integer("n_samples", n_samples, 0)
        self.max_length = integer("max_length", max_length, 1)
        self.baseline_names = [choice("baselines", name, list(BASELINES)) for name in baselines]
        self.seed = integer("seed", seed, 0)
        self.figure_data: dict[str, Any] = {}
        self.report_extras = LanguageModelToPFAReport(self)

    @abstractmethod
    def distil(self, teachers: Sequence[TracedSequences]) -> tuple[PFA, Tensor]:
        """Return the automaton, and the state of every prefix, teacher after teacher, int64 ``[N]``.

        Every teacher has generated its share of the strings, so that its weight is the number of its prefixes.
        """

    # ---------------------------------------------------------------- the teachers and their strings

    @property
    def weighted_teachers(self) -> list[tuple[Any, float]]:
        """The teachers with their weights, which are >= 0 and sum to 1."""
        return self.teacher.weighted_members() if isinstance(self.teacher, CombinesMembers) else [(self.teacher, 1.0)]

    @property
    def members(self) -> list[Any]:
        """The teachers."""
        return [member for member, _ in self.weighted_teachers]

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return strings that the teachers generate, or ``data`` if ``n_samples`` is 0."""
        if self.n_samples == 0:
            return data
        return SampledTokenSequences(
            data,
            self.members,
            n=self.n_samples,
            shares=[weight for _, weight in self.weighted_teachers],
            max_length=self.max_length,
            seed=mix_seed(self.seed, SAMPLING_STREAM),
        )

    # ---------------------------------------------------------------- what the base class calls

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return KL(teacher || student) of the next symbol after each prefix, in nats."""
        valid = valid_positions(batch)
        teacher_log_probs = trace(self.teacher, batch["input"]).log_probs[valid]
        student_log_probs = self.student(batch["input"])[valid]
        return {"kl": soft_target_kl(student_log_probs, teacher_log_probs.double(), temperature=1.0)}

    def observe(self, batch: Batch) -> None:
        """Collect the teachers' hidden states and next-token distributions along the strings of a batch."""
        self.add_traces(batch, self.observed)

    def solve(self) -> bool:
        """Distil all collected strings; the training is over."""
        self.set_student(self.traced_sequences(self.observed))
        self.observed = {}
        return True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the figures need."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["figure_data"] = self.figure_data

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what the figures need."""
        super().on_load_checkpoint(checkpoint)
        self.figure_data = checkpoint["figure_data"]

    # ---------------------------------------------------------------- traces

    def add_traces(self, batch: Batch, traces: Traces) -> None:
        """Add the strings of one batch, with each teacher's trace along its own, in place.

        Args:
            batch: Strings; ``member`` ``[b]`` is the number of the teacher that generated each, 0 if it is missing.
            traces: What was collected before; empty at first.
        """
        generated_by = batch.get("member", torch.zeros_like(batch["input"][:, 0]))
        for member in generated_by.unique().tolist():
            rows = {key: batch[key][generated_by == member] for key in ("input", "mask")}
            result = trace(self.members[member], rows["input"])
            strings = token_sequences_of(rows)
            # The probabilities of a teacher in half precision sum to 1 within about 1 % only. Softmax in float64 makes
            # the sums exact in any precision.
            next_probs = result.log_probs[rows["mask"]].double().softmax(-1)
            pieces = {
                "tokens": strings.tokens,
                "lengths": strings.lengths,
                "hidden": result.hidden[rows["mask"]].float(),
                "next_probs": next_probs.float(),
            }
            for name, piece in pieces.items():
                traces.setdefault(f"{member}.{name}", []).append(piece.cpu())

    def traced_sequences(self, traces: Traces) -> list[TracedSequences]:
        """Return the traced sequences of each teacher that has generated any."""
        tensors = {key: torch.cat(pieces) for key, pieces in traces.items()}
        return [
            TracedSequences(
                TokenSequences(tensors[f"{member}.tokens"], tensors[f"{member}.lengths"]),
                self.student.vocab_size,
                tensors[f"{member}.hidden"],
                tensors[f"{member}.next_probs"],
            )
            for member in range(len(self.members))
            if f"{member}.tokens" in traces
        ]

    def set_student(self, teachers: Sequence[TracedSequences]) -> None:
        """Distil traced sequences, set the student to the automaton, and keep what the figures show.

        Args:
            teachers: One set of traced sequences for each teacher.

        Raises:
            ConfigError: A teacher with a positive weight has no string, since there are too few of them.
        """
        n_weighted = sum(weight > 0 for _, weight in self.weighted_teachers)
        if len(teachers) < n_weighted:
            raise ConfigError(
                f"n_samples={self.n_samples} gives only {len(teachers)} of {n_weighted} teachers a string; "
                "allowed: at least one for each"
            )
        pfa, labels = self.distil(teachers)
        self.student.set_parameters(pfa.initial, pfa.transitions, pfa.stop)
        self.figure_data |= _principal_components(teachers[0], labels)


class LanguageModelToPFAReport(ReportExtras):
    """Automata that other methods learn from the same sequences, and a figure of the teacher's hidden states.

    Args:
        distiller: The method.
    """

    def __init__(self, distiller: LanguageModelToPFA) -> None:
        self.distiller = distiller

    def baselines(self, data: pl.LightningDataModule) -> dict[str, nn.Module]:
        """Return the automata that the methods named by ``baselines`` learn from the same sequences."""
        method = self.distiller
        if not method.baseline_names:
            return {}
        traces: Traces = {}
        for batch in data.train_eval_dataloader():  # type: ignore[attr-defined]
            method.add_traces(as_batch(batch), traces)
        traced = pool_teachers(method.traced_sequences(traces))
        return {name: BASELINES[name](traced, method.student.states, method.seed) for name in method.baseline_names}

    def figures(self, folder: Path) -> list[Path]:
        """Plot the hidden states in two principal components, marked by state, and the curves of the method."""
        data = self.distiller.figure_data
        if not data:
            return []
        points, labels = data["points"].numpy(), data["labels"].numpy()
        paths = [plotting.cluster_scatter(points, labels, folder / "hidden_states.png")]
        if "path" in data:
            paths.append(plotting.merge_curve(**data["path"], path=folder / "merge_path.png"))
        if "objective" in data:
            paths.append(plotting.objective_curve(data["objective"], folder / "objective.png"))
        return paths


def pool_teachers(teachers: Sequence[TracedSequences]) -> TracedSequences:
    """Return the traced sequences of all teachers as one set.

    The hidden states of several teachers lie in different spaces, so that only those of a single one are kept.
    """
    first = teachers[0]
    if len(teachers) == 1:
        return first
    next_probs = [traced.next_probs for traced in teachers if traced.next_probs is not None]
    strings = TokenSequences.cat([traced.strings for traced in teachers])
    return TracedSequences(strings, first.vocab_size, None, torch.cat(next_probs))


def _principal_components(traced: TracedSequences, labels: Tensor) -> dict[str, Tensor]:
    """Return some hidden states in their first two principal components ``[m, 2]``, and their states ``[m]``."""
    chosen = torch.arange(0, traced.n_prefixes, max(1, traced.n_prefixes // PLOTTED_POINTS))
    hidden = traced.features("hidden")[chosen]
    axes = torch.linalg.svd(hidden - hidden.mean(0), full_matrices=False).Vh[:2]
    return {"points": hidden @ axes.T, "labels": labels[chosen]}
