"""Probabilistic automata: language models with finitely many states, which can be drawn and exchanged as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from kdzoo.automata import PFA, automaton_plots, queries
from kdzoo.automata.exchange.dot import write_dot
from kdzoo.automata.exchange.openfst import write_openfst
from kdzoo.automata.exchange.pautomac import write_model
from kdzoo.core.abilities import HasTokenNames
from kdzoo.core.batch import Batch
from kdzoo.errors import ConfigError
from kdzoo.kinds.language_model import LanguageModelKind


class AutomatonKind(LanguageModelKind):
    """Automata are measured like every language model, and described by their number of states and their total mass.

    The teacher of an automaton, which is measured by the same kind, may be any language model.
    """

    name: ClassVar[str] = "automaton"
    needs: ClassVar[str] = "a probabilistic automaton (kdzoo.automata.PFA)"
    teacher_free: ClassVar[str] = "kdzoo.distillers.BaumWelch"

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether the model is an automaton.

        This kind comes before that of language models in :data:`kdzoo.kinds.KINDS`, because an automaton is both.
        """
        return isinstance(model, PFA)

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Reject a student that is not an automaton, and any model that does not pass as a language model."""
        if role == "student" and not isinstance(model, PFA):
            raise ConfigError(f"{role} {type(model).__name__} is not {self.needs}; choose student=pfa")
        super().check(role, model, batch, sizes)

    def size(self, model: nn.Module) -> int:
        """Return the number of free parameters; entries of an automaton that are zero do not count."""
        if isinstance(model, PFA):
            return int(model.n_parameters)
        return sum(parameter.numel() for parameter in model.parameters())

    def properties(self, model: nn.Module) -> dict[str, int | float]:
        """Return the number of states, the total probability of all strings and the mean length of a string.

        The total is 1 unless some state never reaches the end of a string, which is why it is reported.
        """
        if not isinstance(model, PFA):
            return {}
        return {
            "states": model.states,
            "total_mass": float(queries.total_mass(model)),
            "expected_length": float(queries.expected_length(model)),
        }

    def plot_model(self, models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:
        """Draw the student: as a graph, or as a table of its transitions if it has too many for a graph."""
        student = models["student"]
        if not isinstance(student, PFA):
            return []
        return [automaton_plots.draw(student, folder / "automaton.png", _token_names(data))]

    def export(self, model: nn.Module, folder: Path, data: Any = None) -> list[Path]:
        """Write the automaton for Graphviz, for OpenFst and in the format of the PAutomaC competition."""
        if not isinstance(model, PFA):
            return []
        paths = [folder / f"automaton.{suffix}" for suffix in ("dot", "fst.txt", "pautomac")]
        dot, openfst, pautomac = paths
        # Only Graphviz shows names; the other two formats number their tokens.
        write_dot(model, dot, _token_names(data))
        write_openfst(model, openfst)
        write_model(model, pautomac)
        return paths


def _token_names(data: Any) -> Sequence[str] | None:
    """Return the names of the tokens; None if the data have none."""
    return data.symbols if isinstance(data, HasTokenNames) else None
