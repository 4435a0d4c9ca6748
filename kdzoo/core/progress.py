"""Progress of long computations, from where the work is done to whatever shows it.

A training, a method that computes its student and a pass over the data each open a stage and report how far they are.
Without a display, as in a library call, the reports have no effect.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")
Advance = Callable[[int, str], None]
"""Reports the number of units that are done, and a note such as the present loss, which may be empty."""


@runtime_checkable
class Display(Protocol):
    """Shows the stages of a computation. A stage may be opened inside another; the innermost one is running."""

    def begin(self, name: str, total: int | None, unit: str) -> Advance:
        """Open a stage of ``total`` units, None if their number is not known, and return how it reports."""

    def end(self) -> None:
        """Close the innermost stage."""


def _ignore(completed: int, note: str) -> None:
    """Report to nobody."""


_display: ContextVar[Display | None] = ContextVar("display", default=None)


@contextmanager
def shown_by(display: Display) -> Iterator[None]:
    """Send the reports of everything inside the ``with`` block to a display."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)


def is_shown() -> bool:
    """Return whether a display shows the stages."""
    return _display.get() is not None


@contextmanager
def stage(name: str, total: int | None = None, unit: str = "steps") -> Iterator[Advance]:
    """Open a stage for the ``with`` block.

    Args:
        name: What is done, such as ``distilling the student``.
        total: Number of units until the end; None if it is not known.
        unit: What is counted, in the plural.

    Yields:
        The function that reports how many units are done.

    Example:
        >>> with stage("merging states", total=3) as advance:
        ...     advance(1, "loss 0.5")
    """
    display = _display.get()
    if display is None:
        yield _ignore
        return
    advance = display.begin(name, total, unit)
    try:
        yield advance
    finally:
        display.end()


def track(items: Iterable[Item], name: str, unit: str = "batches") -> Iterator[Item]:
    """Yield the items of a loop that is a stage of its own.

    Args:
        items: What the loop runs over; a length, if there is one, is the total.
        name: What the loop does, such as ``reading hidden states``.
        unit: What the items are, in the plural.

    Example:
        >>> list(track([3, 1], "sorting", unit="numbers"))
        [3, 1]
    """
    with stage(name, len(items) if isinstance(items, Sized) else None, unit) as advance:
        for completed, item in enumerate(items, 1):
            yield item
            advance(completed, "")
