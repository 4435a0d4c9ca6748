"""Probabilistic automata: language models whose states can be counted, drawn and exchanged."""

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

DRAWN_STATES = 40
"""Automata of more states are not drawn: nobody could read them."""


class AutomatonKind(LanguageModelKind):
    """Measured like every language model, and by what only an automaton can tell of itself."""

    name: ClassVar[str] = "automaton"
    needs: ClassVar[str] = "a probabilistic automaton (kdzoo.automata.PFA)"
    teacher_free: ClassVar[str] = "kdzoo.distillers.BaumWelch"

    def is_exclusive_match(self, model: nn.Module) -> bool:
        """Return whether it is an automaton."""
        return isinstance(model, PFA)

    def check(self, role: str, model: nn.Module, batch: Batch, sizes: Mapping[str, Any]) -> None:
        """Refuse a student that is no automaton."""
        if role == "student" and not isinstance(model, PFA):
            raise ConfigError(f"{role} {type(model).__name__} is not {self.needs}; choose student=pfa")
        super().check(role, model, batch, sizes)

    def size(self, model: nn.Module) -> int:
        """Return the number of free parameters; an automaton's entries that are zero are not counted."""
        if isinstance(model, PFA):
            return int(model.n_parameters)
        return sum(parameter.numel() for parameter in model.parameters())

    def properties(self, model: nn.Module) -> dict[str, int | float]:
        """Return the number of states, the sum of the probabilities of all strings and the mean length."""
        if not isinstance(model, PFA):
            return {}
        return {
            "states": model.states,
            "total_mass": float(queries.total_mass(model)),
            "expected_length": float(queries.expected_length(model)),
        }

    def plot_model(self, models: Mapping[str, nn.Module], folder: Path, data: Any = None) -> list[Path]:
        """Draw the student, if it is small enough to be read."""
        student = models["student"]
        if not isinstance(student, PFA) or student.states > DRAWN_STATES:
            return []
        return [automaton_plots.draw(student, folder / "automaton.png", _names(data))]

    def export(self, model: nn.Module, folder: Path, data: Any = None) -> list[Path]:
        """Write the automaton for Graphviz, for OpenFst and in the format of the PAutomaC competition."""
        if not isinstance(model, PFA):
            return []
        write_dot(model, folder / "automaton.dot", _names(data))
        write_openfst(model, folder / "automaton.fst.txt")
        write_model(model, folder / "automaton.pautomac")
        return [folder / f"automaton.{kind}" for kind in ("dot", "fst.txt", "pautomac")]


def _names(data: Any) -> Sequence[str] | None:
    """Return the names of the tokens, where the data know them."""
    return data.symbols if isinstance(data, HasTokenNames) else None
