"""A block of nodes that is repeated over time, with a state that is carried from step to step.

A plain loop over the steps calls every network once per step. Most of that work does not depend on the carried state:
values that are known for all steps (observed targets, noise) can be processed in one call before the loop, and values
that the state does not depend on, such as the distributions of targets whose values are given, in one call after it.
:func:`plan` finds this division. If only the state itself is left for the loop, a recurrence that can process whole
sequences (:meth:`Recurrence.unroll`) does so.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core import validation
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.nodes import STATE, Hidden, Node
from kdzoo.graphical_models.tasks import RolloutOptions, Task, node_tasks

Store = dict[str, Tensor]


class Recurrence(nn.Module, ABC):
    """Computes the state that is carried from one step to the next.

    Args:
        parents: Names of the nodes of a step that the next state depends on.
    """

    def __init__(self, parents: str | Sequence[str]) -> None:
        super().__init__()
        self.parents = (parents,) if isinstance(parents, str) else tuple(parents)

    @abstractmethod
    def initial(self, rows: int, like: Tensor) -> Any:
        """Return the state before the first step for ``rows`` samples, with the dtype and device of ``like``."""

    @abstractmethod
    def forward(self, state: Any, *values: Tensor) -> Any:
        """Return the next state, given the present one and the parents' values ``[n, ...]``."""

    def output(self, state: Any) -> Tensor:
        """Return the part of the state that nodes can read, ``[n, ...]``."""
        return state

    def unroll(self, state: Any, *values: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return the outputs before each step at once, ``[n, T, ...]``, or None if only step by step is possible.

        Args:
            state: State before the first step.
            *values: Values of the parents at all steps, ``[n, T, ...]``.
        """
        return None


class GateInput(nn.Linear):
    """The input-to-hidden product of an :class:`LSTM` for one value, as a separate network.

    It has no bias, because the LSTM's recurrent product has one.

    Args:
        size: Size of the value.
        hidden: Units of the LSTM.
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__(size, 4 * hidden, bias=False)
        # The range of torch.nn.LSTM, which depends on the hidden size and not on the number of inputs.
        nn.init.uniform_(self.weight, -(hidden**-0.5), hidden**-0.5)


class LSTM(Recurrence):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gates.

    With ``has_gate_input`` the first parent is already the product of a :class:`GateInput` node. Such a product is
    computed for all steps in one call where its argument is known for all steps, for example in teacher forcing. The
    other parents are multiplied inside this cell.

    Args:
        hidden: Number of units.
        parents: Names of the values that the gates depend on. With ``has_gate_input`` the first one has the shape
            ``[n, 4 * hidden]``.
        size: Total size of the parents that are multiplied by this cell; 0 if there are none.
        has_gate_input: Whether the first parent is the output of a :class:`GateInput` node.
    """

    def __init__(
        self, hidden: int, parents: str | Sequence[str], size: int = 0, *, has_gate_input: bool = False
    ) -> None:
        super().__init__(parents)
        self.hidden, self.has_gate_input = validation.integer("hidden", hidden), has_gate_input
        self.size = validation.integer("size", size, 0 if has_gate_input else 1)
        self.inputs = nn.Linear(size, 4 * hidden, bias=False) if size else None
        # torch.nn.LSTM has two biases that are only ever added to each other; this cell has one.
        self.recurrent = nn.Linear(hidden, 4 * hidden)
        bound = hidden**-0.5  # as in torch.nn.LSTM
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def initial(self, rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return output and cell, zeros ``[n, hidden]``."""
        zeros = like.new_zeros(rows, self.hidden)
        return zeros, zeros

    def forward(self, state: tuple[Tensor, Tensor], *values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next output and cell."""
        return self._next(state, self._gate_inputs(values))

    def output(self, state: tuple[Tensor, Tensor]) -> Tensor:
        """Return the output."""
        return state[0]

    def unroll(self, state: tuple[Tensor, Tensor], *values: Tensor) -> Tensor:
        """Return the outputs before each step; the input-to-hidden products of all steps are one matrix product."""
        outputs = [state[0]]
        # The last step's input only affects the state after the sequence, which nothing reads.
        for gate_input in self._gate_inputs(values)[:, :-1].unbind(1):
            state = self._next(state, gate_input)
            outputs.append(state[0])
        return torch.stack(outputs, 1)

    def _next(self, state: tuple[Tensor, Tensor], gate_input: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next output and cell; ``gate_input`` is the input-to-hidden product ``[n, 4 * hidden]``."""
        output, cell = state
        i, f, o, g = (self.recurrent(output) + gate_input).split([self.hidden] * 4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell

    def _gate_inputs(self, values: tuple[Tensor, ...]) -> Tensor:
        """Return the sum of the input-to-hidden products of all parents."""
        precomputed, rest = values[: self.has_gate_input], values[self.has_gate_input :]
        if self.inputs is None:
            return precomputed[0]
        product = self.inputs(torch.cat(rest, -1) if len(rest) > 1 else rest[0])
        return product + precomputed[0] if self.has_gate_input else product


class Scan(nn.Module):
    """A sequence: a block of nodes, repeated ``steps`` times.

    The values of its nodes have a time axis, ``[n, T, ...]``. Parents can be earlier nodes of the same step, nodes
    before the sequence (their value is the same at every step), and ``state``: the carried state before the step.

    Args:
        nodes: Nodes of one step, in order.
        carry: Recurrence that updates the state.
        steps: Number of steps T of a rollout whose noise does not determine it, >= 1.
        recognition: Deterministic nodes for the posteriors, computed from the targets of a step.
    """

    def __init__(
        self, nodes: Iterable[Node], carry: Recurrence, steps: int, recognition: Iterable[Hidden] = ()
    ) -> None:
        super().__init__()
        self.nodes, self.recognition = nn.ModuleList(nodes), nn.ModuleList(recognition)
        self.carry = carry
        self.steps = validation.integer("steps", steps)

    def step_nodes(self, infer: bool) -> list[Any]:
        """Return the nodes of a step in the order in which they are computed."""
        return [*(self.recognition if infer else ()), *self.nodes]

    def run(self, store: Store, options: RolloutOptions, rows: int, like: Tensor) -> None:
        """Compute all steps and add their values, which have a time axis, to the store."""
        nodes = self.step_nodes(options.infer)
        tasks = [task for node in nodes for task in node_tasks(node, options)]
        timed = {key for key in store if key.split("|")[0] in {node.name for node in nodes}}
        timed -= {key for key in timed if key.endswith("|is_other")}  # one flag per sample, for all of its steps
        steps = _common_steps(store, timed)
        before, inside, after = plan(tasks, timed, set(store) - timed, self.carry.parents)
        timed |= _run_all_steps(before, store, timed, rows, steps, like)
        reads_state = any(STATE in task.needs for task in after)
        timed |= self._loop(inside, store, timed, rows, steps, like, keep_states=reads_state)
        _run_all_steps(after, store, timed, rows, steps, like)
        store.pop(STATE, None)  # the state has no meaning outside the sequence

    def _loop(
        self,
        tasks: Sequence[Task],
        store: Store,
        timed: set[str],
        rows: int,
        steps: int,
        like: Tensor,
        *,
        keep_states: bool,
    ) -> set[str]:
        """Run the tasks step by step and return the names of what was added to the store."""
        state = self.carry.initial(rows, like)
        if not tasks and timed.issuperset(self.carry.parents):
            unrolled = self.carry.unroll(state, *(store[name] for name in self.carry.parents))
            if unrolled is not None:
                store[STATE] = unrolled
                return {STATE}
        needed = {name for task in tasks for name in task.needs} | set(self.carry.parents)
        columns = {name: store[name].unbind(1) for name in timed & needed}
        outputs: dict[str, list[Tensor]] = {task.provides: [] for task in tasks}
        states: list[Tensor] = []
        current = {name: store[name] for name in needed & (store.keys() - timed)}
        for t in range(steps):
            current.update({name: column[t] for name, column in columns.items()})
            current[STATE] = self.carry.output(state)
            if keep_states:
                states.append(current[STATE])
            for task in tasks:
                current[task.provides] = task.run([current[name] for name in task.needs], rows, like)
                outputs[task.provides].append(current[task.provides])
            if t + 1 < steps:  # nothing reads the state after the last step
                state = self.carry(state, *(current[name] for name in self.carry.parents))
        store.update({name: torch.stack(values, 1) for name, values in outputs.items()})
        if keep_states:
            store[STATE] = torch.stack(states, 1)
        return {*outputs, STATE}


def plan(
    tasks: Sequence[Task], timed: set[str], fixed: set[str], carried: Iterable[str]
) -> tuple[list[Task], list[Task], list[Task]]:
    """Divide tasks into those before the loop, inside it and after it.

    Tasks before the loop depend only on values that are known for all steps. Tasks inside the loop are those that the
    carried state depends on. All others run after it.

    Args:
        tasks: Tasks of one step, in order.
        timed: Names of the known values with a time axis.
        fixed: Names of the known values without one.
        carried: Names of the values that the next state depends on.

    Raises:
        ConfigError: If no task provides a value that is needed.
    """
    known, before, rest = timed | fixed, [], []
    for task in tasks:
        # A task that needs only fixed values gains nothing here, since its input would be repeated for every step. A
        # task without needs is a constant, which is expanded for all steps at no cost.
        if known.issuperset(task.needs) and (set(task.needs) & timed or not task.needs):
            before.append(task)
            known.add(task.provides)
            timed = timed | {task.provides}
        else:
            rest.append(task)
    _check_provided(rest, carried, known | {task.provides for task in rest} | {STATE})
    needed, inside = set(carried), []
    # Backwards, because a task is needed only by later ones.
    for task in reversed(rest):
        if task.provides in needed:
            needed |= set(task.needs)
            inside.append(task)
    inside.reverse()
    in_loop = {task.provides for task in inside}
    return before, inside, [task for task in rest if task.provides not in in_loop]


def _check_provided(tasks: Iterable[Task], carried: Iterable[str], provided: set[str]) -> None:
    """Reject tasks and a carried state that need a value which nothing provides."""
    for task in tasks:
        missing = [name for name in task.needs if name not in provided]
        if missing:
            raise ConfigError(f"{task.provides!r} needs {missing[0]!r}, which has no value")
    missing = [name for name in carried if name not in provided]
    if missing:
        raise ConfigError(f"the carried state needs {missing[0]!r}, which has no value")


def _run_all_steps(
    tasks: Sequence[Task], store: Store, timed: set[str], rows: int, steps: int, like: Tensor
) -> set[str]:
    """Run tasks for all steps in one call, with steps as further samples; return the names of what was added."""
    flat: dict[str, Tensor] = {}

    def flattened(name: str) -> Tensor:
        # Cached, since several tasks often need the same value.
        if name not in flat:
            value = store[name]
            flat[name] = value.flatten(0, 1) if name in timed else value.repeat_interleave(steps, 0)
        return flat[name]

    for task in tasks:
        flat[task.provides] = task.run([flattened(name) for name in task.needs], rows * steps, like)
        store[task.provides] = flat[task.provides].unflatten(0, (rows, steps))
    return {task.provides for task in tasks}


def _common_steps(store: Mapping[str, Tensor], timed: Iterable[str]) -> int:
    """Return the number of steps that all tensors with a time axis have."""
    # Sorted, so that the message of the error is the same in every process (sets have no fixed order).
    lengths = {name: store[name].shape[1] for name in sorted(timed)}
    if len(set(lengths.values())) != 1:
        raise ConfigError(f"the nodes of a sequence must have the same number of steps, at least one, got {lengths}")
    return next(iter(lengths.values()))
