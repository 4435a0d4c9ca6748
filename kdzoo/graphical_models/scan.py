"""A block of nodes that is repeated, with a state that is carried from step to step.

What does not depend on the state is computed for all steps at once before the loop, and what the state does not depend
on, such as the distribution of targets whose values are given, for all steps at once after it. Where nothing is left
for the loop but the carried state, a recurrence that can read whole sequences does so.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.nodes import STATE, Hidden, Node
from kdzoo.graphical_models.tasks import Rules, Task, tasks_of

Store = dict[str, Tensor]


class Recurrence(nn.Module, ABC):
    """What is carried from one step to the next.

    Args:
        parents: names of the nodes of a step that the next state depends on.
    """

    def __init__(self, parents: str | Sequence[str]) -> None:
        super().__init__()
        self.parents = (parents,) if isinstance(parents, str) else tuple(parents)

    @abstractmethod
    def initial(self, rows: int, like: Tensor) -> Any:
        """Return the state before the first step, with the dtype and device of ``like``."""

    @abstractmethod
    def forward(self, state: Any, *values: Tensor) -> Any:
        """Return the next state."""

    def read(self, state: Any) -> Tensor:
        """Return what nodes see of the state, [n, ...]."""
        return state

    def read_all(self, state: Any, *values: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return what nodes see of the states before each step [n, T, ...], or None for one that must go step by step.

        Args:
            state: before the first step.
            *values: of the parents, [n, T, ...].
        """
        return None


class Drive(nn.Linear):
    """The part of the gates of an :class:`LSTM` that one value has; it has no bias, which the LSTM has.

    Args:
        size: of the value.
        hidden: units of the LSTM.
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__(size, 4 * hidden, bias=False)
        nn.init.uniform_(self.weight, -(hidden**-0.5), hidden**-0.5)


class LSTM(Recurrence):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gates.

    The first parents are driven into the gates by a node of their own (:class:`Drive`), so that what is known of all
    steps is multiplied once; the others by this cell.

    Args:
        hidden: units.
        parents: names of the values that the gates depend on; the first is a drive, [n, 4 hidden], if ``driven``.
        size: of the parents that are no drive together; 0 if there are none.
        driven: whether the first parent is a drive.
    """

    def __init__(self, hidden: int, parents: str | Sequence[str], size: int = 0, *, driven: bool = False) -> None:
        super().__init__(parents)
        self.hidden, self.driven = validation.integer("hidden", hidden), driven
        self.size = validation.integer("size", size, 0 if driven else 1)
        self.inputs = nn.Linear(size, 4 * hidden, bias=False) if size else None
        self.recurrent = nn.Linear(hidden, 4 * hidden)
        bound = hidden**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def initial(self, rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return output and cell, zeros [n, hidden]."""
        zeros = like.new_zeros(rows, self.hidden)
        return zeros, zeros

    def forward(self, state: tuple[Tensor, Tensor], *values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next output and cell."""
        return self._next(state, self._driven(values))

    def read(self, state: tuple[Tensor, Tensor]) -> Tensor:
        """Return the output."""
        return state[0]

    def read_all(self, state: tuple[Tensor, Tensor], *values: Tensor) -> Tensor:
        """Return the outputs before each step; what does not depend on them is computed at once."""
        seen = [state[0]]
        for driven in self._driven(values)[:, :-1].unbind(1):
            state = self._next(state, driven)
            seen.append(state[0])
        return torch.stack(seen, 1)

    def _next(self, state: tuple[Tensor, Tensor], driven: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next output and cell for the part of the gates that is known, [n, 4 hidden]."""
        output, cell = state
        i, f, o, g = (self.recurrent(output) + driven).split([self.hidden] * 4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell

    def _driven(self, values: tuple[Tensor, ...]) -> Tensor:
        drives, rest = values[: self.driven], values[self.driven :]
        if self.inputs is None:
            return drives[0]
        own = self.inputs(torch.cat(rest, -1) if len(rest) > 1 else rest[0])
        return own + drives[0] if self.driven else own


class Scan(nn.Module):
    """A sequence: a block of nodes, repeated ``steps`` times.

    The values of its nodes have a time axis, [n, T, ...]. Parents may be earlier nodes of the same step, nodes before
    the sequence, which are the same at every step, and ``state``: what is carried, before the step.

    Args:
        nodes: of one step, in order.
        carry: how the state goes on.
        steps: T of roll-outs that say nothing else, >= 1.
        recognition: deterministic nodes for the posteriors, computed from the targets of a step.
    """

    def __init__(
        self, nodes: Iterable[Node], carry: Recurrence, steps: int, recognition: Iterable[Hidden] = ()
    ) -> None:
        super().__init__()
        self.nodes, self.recognition = nn.ModuleList(nodes), nn.ModuleList(recognition)
        self.carry = carry
        self.steps = validation.integer("steps", steps)

    def own_nodes(self, infer: bool) -> list[Any]:
        """Return the nodes of a step in the order in which they are computed."""
        return [*(self.recognition if infer else ()), *self.nodes]

    def run(self, store: Store, rules: Rules, rows: int, like: Tensor) -> None:
        """Compute all steps; values with a time axis are added to the store."""
        nodes = self.own_nodes(rules.infer)
        tasks = [task for node in nodes for task in tasks_of(node, rules)]
        timed = {key for key in store if key.split("|")[0] in {node.name for node in nodes}}
        timed -= {key for key in timed if key.endswith("|is_other")}
        steps = _steps(store, timed)
        ahead, inside, after = plan(tasks, timed, set(store) - timed, self.carry.parents)
        timed |= _at_once(ahead, store, timed, rows, steps, like)
        timed |= self._loop(inside, store, timed, rows, steps, like, wants_state=any(STATE in t.needs for t in after))
        _at_once(after, store, timed, rows, steps, like)
        store.pop(STATE, None)

    def _loop(
        self,
        tasks: Sequence[Task],
        store: Store,
        timed: set[str],
        rows: int,
        steps: int,
        like: Tensor,
        *,
        wants_state: bool,
    ) -> set[str]:
        """Go through the steps; return the names of what was added to the store."""
        state = self.carry.initial(rows, like)
        if not tasks and timed.issuperset(self.carry.parents):
            states = self.carry.read_all(state, *(store[name] for name in self.carry.parents))
            if states is not None:
                store[STATE] = states
                return {STATE}
        wanted = {name for task in tasks for name in task.needs} | set(self.carry.parents)
        columns = {name: store[name].unbind(1) for name in timed & wanted}
        outputs: dict[str, list[Tensor]] = {task.provides: [] for task in tasks}
        states_seen = []
        here = {name: store[name] for name in wanted & (store.keys() - timed)}
        for t in range(steps):
            here.update({name: column[t] for name, column in columns.items()})
            here[STATE] = self.carry.read(state)
            if wants_state:
                states_seen.append(here[STATE])
            for task in tasks:
                here[task.provides] = task.run([here[name] for name in task.needs], rows, like)
                outputs[task.provides].append(here[task.provides])
            if t + 1 < steps:
                state = self.carry(state, *(here[name] for name in self.carry.parents))
        store.update({name: torch.stack(values, 1) for name, values in outputs.items()})
        if wants_state:
            store[STATE] = torch.stack(states_seen, 1)
        return {*outputs, STATE}


def plan(
    tasks: Sequence[Task], timed: set[str], fixed: set[str], carried: Iterable[str]
) -> tuple[list[Task], list[Task], list[Task]]:
    """Divide tasks into those before the loop, in it and after it.

    Before: what depends on nothing but what is known of all steps. In the loop: what the carried state depends on.
    After: the rest.

    Raises:
        ConfigError: something that is needed is provided by nobody.
    """
    known, ahead, rest = timed | fixed, [], []
    for task in tasks:
        if known.issuperset(task.needs) and (set(task.needs) & timed or not task.needs):
            ahead.append(task)
            known.add(task.provides)
            timed = timed | {task.provides}
        else:
            rest.append(task)
    provided = known | {task.provides for task in rest} | {STATE}
    for task in rest:
        missing = [name for name in task.needs if name not in provided]
        if missing:
            raise ConfigError(f"{task.provides!r} needs {missing[0]!r}, which has no value")
    wanted, inside = set(carried), []
    for task in reversed(rest):
        if task.provides in wanted:
            wanted |= set(task.needs)
            inside.append(task)
    lacking = [name for name in carried if name not in provided]
    if lacking:
        raise ConfigError(f"the carried state needs {lacking[0]!r}, which has no value")
    inside.reverse()
    chosen = {task.provides for task in inside}
    return ahead, inside, [task for task in rest if task.provides not in chosen]


def _at_once(tasks: Sequence[Task], store: Store, timed: set[str], rows: int, steps: int, like: Tensor) -> set[str]:
    """Compute tasks for all steps as if these were samples; return the names of what was added."""
    flat: dict[str, Tensor] = {}

    def flattened(name: str) -> Tensor:
        if name not in flat:
            value = store[name]
            flat[name] = value.flatten(0, 1) if name in timed else value.repeat_interleave(steps, 0)
        return flat[name]

    for task in tasks:
        flat[task.provides] = task.run([flattened(name) for name in task.needs], rows * steps, like)
        store[task.provides] = flat[task.provides].unflatten(0, (rows, steps))
    return {task.provides for task in tasks}


def _steps(store: Mapping[str, Tensor], timed: Iterable[str]) -> int:
    """Return the number of steps that all tensors with a time axis have."""
    lengths = {name: store[name].shape[1] for name in sorted(timed)}
    if len(set(lengths.values())) != 1:
        raise ConfigError(f"the nodes of a sequence must have the same number of steps, at least one, got {lengths}")
    return next(iter(lengths.values()))
