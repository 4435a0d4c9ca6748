"""What all distillers from a language model into an automaton share: strings of the teacher, and its states on them."""

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

SHOWN_POINTS = 5000
"""Hidden states in a picture."""


class LanguageModelToPFA(ClosedFormDistiller):
    """Base of the methods that look at a teacher's hidden states along strings that it writes itself.

    A method writes ``distil``. The teacher is any language model (:class:`kdzoo.text.language_model.LanguageModel`); a
    :class:`kdzoo.models.LMEnsemble` is several teachers, each of which writes its share of the strings.

    Args:
        student: the automaton; its number of states is kept, or found if it was built without one.
        teacher: the language model.
        n_samples: strings that the teacher writes, >= 1; 0 takes the training strings of the data.
        max_length: tokens after which a written string is cut, >= 1.
        baselines: names of other ways to an automaton from the same strings, which the report holds beside.
        seed: of the strings and of all restarts, >= 0.
        **options: see :class:`kdzoo.Distiller`.

    Raises:
        ConfigError: an argument is out of its range.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        terms={"kl": 1.0},
        teacher_kinds=("language_model",),
        student_kinds=("automaton",),
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
        n_samples: int = 4000,
        max_length: int = 100,
        baselines: Sequence[str] = (),
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(student, teacher, **options)
        self.n_samples = integer("n_samples", n_samples, 0)
        self.max_length = integer("max_length", max_length, 1)
        self.compared = [choice("baselines", name, list(BASELINES)) for name in baselines]
        self.seed = integer("seed", seed, 0)
        self.shown: dict[str, Any] = {}
        self.report_extras = LanguageModelToPFAReport(self)

    @abstractmethod
    def distil(self, teachers: Sequence[TracedSequences]) -> tuple[PFA, Tensor]:
        """Return the automaton, and the state of every point, teacher after teacher, int64 [N].

        Every teacher has written its share of the strings, so their weights are the numbers of their points.
        """

    # ---------------------------------------------------------------- the transfer set

    @property
    def weighted_members(self) -> list[tuple[Any, float]]:
        """The teachers and their weights, which are >= 0 and sum to 1."""
        return self.teacher.weighted_members() if isinstance(self.teacher, CombinesMembers) else [(self.teacher, 1.0)]

    @property
    def members(self) -> list[Any]:
        """The teachers, one by one."""
        return [member for member, _ in self.weighted_members]

    def transfer_set(self, data: pl.LightningDataModule) -> pl.LightningDataModule:
        """Return strings that the teachers write, or ``data`` where ``n_samples`` is 0."""
        if self.n_samples == 0:
            return data
        return SampledTokenSequences(
            data,
            self.members,
            n=self.n_samples,
            shares=[weight for _, weight in self.weighted_members],
            max_length=self.max_length,
            seed=mix_seed(self.seed, 1),
        )

    # ---------------------------------------------------------------- what the base class calls

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return KL(teacher || student) of the next symbol after each prefix, nats."""
        valid = valid_positions(batch)
        said = trace(self.teacher, batch["input"]).log_probs
        return {"kl": soft_target_kl(self.student(batch["input"])[valid], said[valid].double(), temperature=1.0)}

    def observe(self, batch: Batch) -> None:
        """Keep the teachers' states and next-token distributions at all points of the strings."""
        self._collect(batch, self.observed)

    def solve(self) -> bool:
        """Distil all that was seen."""
        self._distil(self._trajectories(self.observed))
        self.observed = {}
        return True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the pictures need."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["shown"] = self.shown

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what the pictures need."""
        super().on_load_checkpoint(checkpoint)
        self.shown = checkpoint["shown"]

    # ---------------------------------------------------------------- trajectories

    def _distil(self, teachers: Sequence[TracedSequences]) -> None:
        """Set the student, and keep what the pictures show."""
        writers = sum(weight > 0 for _, weight in self.weighted_members)
        if len(teachers) < writers:
            raise ConfigError(
                f"n_samples={self.n_samples} gives only {len(teachers)} of {writers} teachers a string; "
                "allowed: at least one for each"
            )
        pfa, labels = self.distil(teachers)
        self._set(pfa)
        self.shown |= _projected(teachers[0], labels)

    def _set(self, pfa: PFA) -> None:
        self.student.set_parameters(pfa.initial, pfa.transitions, pfa.stop)

    def _collect(self, batch: Batch, observed: dict[str, Any]) -> None:
        """Add the trajectories of one batch, in pieces of tensors, to those of each teacher."""
        writer = batch.get("member", torch.zeros_like(batch["input"][:, 0]))
        for number in writer.unique().tolist():
            rows = {key: batch[key][writer == number] for key in ("input", "mask")}
            seen = trace(self.members[number], rows["input"])
            strings = token_sequences_of(rows)
            pieces = {
                "tokens": strings.tokens,
                "lengths": strings.lengths,
                "hidden": seen.hidden[rows["mask"]].float(),
                "next_probs": seen.log_probs[rows["mask"]]
                .double()
                .softmax(-1)
                .float(),  # exact sums, whatever precision
            }
            for key, piece in pieces.items():
                observed.setdefault(f"{number}.{key}", []).append(piece.cpu())

    def _trajectories(self, observed: dict[str, Any]) -> list[TracedSequences]:
        """Return what was seen of each teacher that has written anything."""
        numbers = [number for number in range(len(self.members)) if f"{number}.tokens" in observed]
        whole = {key: torch.cat(pieces) for key, pieces in observed.items()}
        return [
            TracedSequences(
                TokenSequences(whole[f"{number}.tokens"], whole[f"{number}.lengths"]),
                self.student.vocab_size,
                whole[f"{number}.hidden"],
                whole[f"{number}.next_probs"],
            )
            for number in numbers
        ]


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
        if not method.compared:
            return {}
        observed: dict[str, Any] = {}
        for batch in data.train_eval_dataloader():  # type: ignore[attr-defined]
            method._collect(as_batch(batch), observed)
        traced = pooled(method._trajectories(observed))
        return {name: BASELINES[name](traced, method.student.states, method.seed) for name in method.compared}

    def figures(self, folder: Path) -> list[Path]:
        """Draw the hidden states in their first two principal components, coloured by state, and curves of the method."""
        shown = self.distiller.shown
        if not shown:
            return []
        drawn = [plotting.cluster_scatter(shown["points"], shown["labels"], folder / "hidden_states.png")]
        if "path" in shown:
            drawn.append(plotting.merge_curve(**shown["path"], path=folder / "merge_path.png"))
        if "objective" in shown:
            drawn.append(plotting.objective_curve(shown["objective"], folder / "objective.png"))
        return drawn


def pooled(teachers: Sequence[TracedSequences]) -> TracedSequences:
    """Return the strings of all teachers; of several, whose hidden states have nothing in common, without these."""
    first = teachers[0]
    if len(teachers) == 1:
        return first
    probs = [one.next_probs for one in teachers if one.next_probs is not None]
    return TracedSequences(
        TokenSequences.cat([one.strings for one in teachers]), first.vocab_size, None, torch.cat(probs)
    )


def _projected(seen: TracedSequences, labels: Tensor) -> dict[str, Tensor]:
    """Return some of the hidden states in their first two principal components [m, 2], and their states [m]."""
    chosen = torch.arange(0, seen.n_prefixes, max(1, seen.n_prefixes // SHOWN_POINTS))
    hidden = seen.features("hidden")[chosen]
    axes = torch.linalg.svd(hidden - hidden.mean(0), full_matrices=False).Vh[:2]
    return {"points": hidden @ axes.T, "labels": labels[chosen]}
