"""What a distillation method declares about itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class MethodInfo:
    """The declaration of a method: its loss terms, its source, and the models that it works with.

    A method assigns one to the class attribute ``info``. The command line reads it from the source text without
    importing torch, so the values of ``terms`` and ``teacher`` should be written as literals.

    Args:
        terms: Names of the loss terms and their default weights. Left empty, every term that ``losses`` returns has
            the weight 1.
        label_terms: Terms with one value per labelled position; all others have one per valid position.
        paper: Authors, year, title and equation or section.
        bibtex: The entry that ``kdzoo cite`` prints.
        teacher: Whether the method needs a teacher: ``required``, ``optional`` (a run builds one all the same, to
            compare with) or ``none``.
        teacher_kinds: Names of the kinds that the teacher may be of; empty for any.
        student_kinds: Names of the kinds that the student may be of; empty for any.
        exempt: Contract checks (``kdzoo.contracts.CHECKS``) that cannot apply to this method, each with its reason.
        contract_settings: Settings that the contract checks need for this method, by dotted key, as in
            ``{"distiller.layers": {"0": "0"}}``.

    Example:
        >>> MethodInfo(terms={"soft": 0.9, "hard": 0.1}, paper="Hinton et al. 2015, section 2").teacher
        'required'
    """

    terms: Mapping[str, float] = field(default_factory=dict)
    label_terms: frozenset[str] = frozenset({"hard"})
    paper: str = ""
    bibtex: str = ""
    teacher: Literal["required", "optional", "none"] = "required"
    teacher_kinds: tuple[str, ...] = ()
    student_kinds: tuple[str, ...] = ()
    exempt: Mapping[str, str] = field(default_factory=dict)
    contract_settings: Mapping[str, Any] = field(default_factory=dict)
