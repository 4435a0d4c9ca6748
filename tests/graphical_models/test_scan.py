"""Sequences: computing many steps in one call gives the same result as a plain loop over the steps."""

import copy

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.graphical_models import (
    LSTM,
    STATE,
    Bernoulli,
    GateInput,
    Graph,
    Hidden,
    Input,
    Latent,
    Normal,
    Recurrence,
    Scan,
    Target,
)
from kdzoo.graphical_models.nodes import Random
from kdzoo.graphical_models.paired import node_divergence, paired_rollout, rollout_student, rollout_teacher
from kdzoo.graphical_models.scan import plan
from kdzoo.graphical_models.tasks import Task

H, B, T = 5, 3, 6


class Concatenated(nn.Linear):
    def forward(self, *values):
        return super().forward(torch.cat(values, -1)).tanh() * 2


class Total(nn.Linear):
    """The net of a node after the sequence."""

    def forward(self, values):
        return super().forward(values.sum(1))


class Sum(Recurrence):
    """The state is the sum of what was seen."""

    def __init__(self, parents, size):
        super().__init__(parents)
        self.size, self.calls = size, 0

    def initial(self, rows, like):
        return like.new_zeros(rows, self.size)

    def forward(self, state, value):
        self.calls += 1
        return state + value


class FastSum(Sum):
    """It reads whole sequences."""

    def unroll(self, state, value):
        return state[:, None] + value.cumsum(1) - value


def full(carry=None, width=4):
    """Return a sequence with everything that a sequence can have."""
    nodes = [
        Input("u", Normal((2,), scale=1.0)),
        Latent(
            "z",
            Normal((3,)),
            Concatenated(H + 2, 6),
            (STATE, "u"),
            posterior=Concatenated(width + H, 6),
            posterior_parents=("seen", STATE),
        ),
        Hidden("code", Concatenated(3, width), "z"),
        Latent(
            "bit",
            Bernoulli((2,)),
            Concatenated(H, 2),
            STATE,
            posterior=Concatenated(width, 2),
            posterior_parents="seen",
        ),
        Target("x", Normal((3,), scale=0.5), Concatenated(width + H + 2 + 2, 3), ("code", STATE, "g", "bit")),
        Target("pen", Bernoulli((1,)), Concatenated(H + width, 1), (STATE, "code")),
        Hidden("gate_input", GateInput(3, H), "x"),
        Target("leaf", Normal((2,)), Concatenated(3 + 1, 4), ("x", "pen")),
    ]
    recognition = [Hidden("seen", Concatenated(3 + 1, width), ("x", "pen"))]
    return Graph(
        [
            Latent("g", Normal((2,), scale=1.0)),
            Scan(nodes, carry or LSTM(H, ("gate_input", "code"), width, has_gate_input=True), T, recognition),
            Target("end", Normal((2,), scale=1.0), Total(3, 2), "z"),
        ]
    ).double()


def naive(graph, noise, inputs, *, forced=None, mixed=None, infer=False):
    """Return values, raw outputs and posterior raw outputs, one node and one step at a time."""
    forced, mixed = forced or {}, mixed or {}
    found = {}

    def put(name, value, timed):
        found.setdefault(name, []).append(value) if timed else found.__setitem__(name, value)

    def one(node, here, step, timed):
        """Compute one node, of a step if there is one."""
        if isinstance(node, Input):
            here[node.name] = inputs[node.name][:, step]
            return
        raw = node.conditional.net
        raw = (
            torch.zeros(B, *node.family.raw_shape, dtype=torch.double)
            if raw is None
            else raw(*(here[parent] for parent in node.conditional.parents))
        )
        if isinstance(node, Hidden):
            here[node.name] = raw
            put(node.name, raw, timed)
            return
        put(f"{node.name}|prior", raw, timed)
        if infer and isinstance(node, Latent) and node.posterior is not None:
            raw = node.posterior.net(*(here[parent] for parent in node.posterior.parents))
            put(f"{node.name}|posterior", raw, timed)

        def at(value):
            return value[:, step] if timed else value

        if node.name in forced:
            here[node.name] = at(forced[node.name])
        elif node.name in noise:
            value = node.family.sample(raw, at(noise[node.name]))
            if node.name in mixed:
                other, which = mixed[node.name]
                value = torch.stack([o if w else v for v, o, w in zip(value, at(other), which, strict=True)])
            here[node.name] = value
        if node.name in here:
            put(node.name, here[node.name], timed)

    full_values = {}
    for entry in graph.entries:
        if not isinstance(entry, Scan):
            one(entry, full_values, None, False)
            continue
        state = entry.carry.initial(B, graph.like)
        for t in range(T):
            here = {**full_values, STATE: entry.carry.output(state)}
            if infer:
                for name in ("x", "pen"):
                    here[name] = forced[name][:, t]
                for node in entry.recognition:
                    one(node, here, t, True)
            for node in entry.nodes:
                one(node, here, t, True)
            state = entry.carry(state, *(here[name] for name in entry.carry.parents))
        found = {name: torch.stack(value, 1) if isinstance(value, list) else value for name, value in found.items()}
        full_values |= found
    return {**inputs, **found}


def compare(graph, noise, inputs, **options):
    trace = graph.rollout(noise, inputs, **options)
    expected = naive(graph, noise, inputs, **options)
    priors = {f"{name}|prior": raw for name, raw in trace.raw.items()}
    posteriors = {name: raw for name, raw in expected.items() if name.endswith("|posterior")}
    assert trace.values.keys() | priors.keys() | posteriors.keys() == expected.keys()
    assert {f"{name}|posterior" for name in trace.posteriors} == posteriors.keys()
    for name, value in {**trace.values, **priors}.items():
        torch.testing.assert_close(value, expected[name], atol=1e-10, rtol=1e-10)
    random = graph.random_nodes()
    for name, found in {**trace.distributions, **{f"{n}|posterior": d for n, d in trace.posteriors.items()}}.items():
        node = random[name.split("|")[0]]
        raw = expected.get(name if "|" in name else f"{name}|prior")
        other = node.family.distribution(raw)
        torch.testing.assert_close(found.mean, other.mean, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(found.variance, other.variance, atol=1e-10, rtol=1e-10)
    return trace, expected


def gradients(graph, tensors):
    """Return the gradients of a sum with fixed random weights, by parameter."""
    generator = torch.Generator().manual_seed(9)
    total = sum((value * torch.randn(value.shape, generator=generator)).sum() for value in tensors)
    names, parameters = zip(*graph.named_parameters(), strict=True)
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    return dict(zip(names, found, strict=True))


def drawn(graph, leaves=False):
    generator = torch.Generator().manual_seed(4)
    noise = {name: value.double() for name, value in graph.noise(B, generator=generator, leaves=leaves).items()}
    inputs = {name: value.double() for name, value in graph.draw_inputs(B, generator=generator).items()}
    return noise, inputs


def cases(graph, other):
    """Return the ways to roll out: alone, after the teacher, on the teacher's latents, on some of them, inferring."""
    noise, inputs = drawn(graph)
    teacher_values = rollout_teacher(other, *drawn(other, leaves=True)).values
    targets = {name: teacher_values[name] for name in graph.targets()}
    latents = {name: teacher_values[name] for name in graph.latents()}

    def without(names):
        return {name: value for name, value in noise.items() if name not in names}

    which = torch.tensor([True, False, True])
    return {
        "own": (noise, inputs, {}),
        "targets given": (without(targets), inputs, {"forced": targets}),
        "all given": (without({**targets, **latents}), inputs, {"forced": targets | latents}),
        "mixed": (
            without(targets),
            inputs,
            {"forced": targets, "mixed": {name: (value, which) for name, value in latents.items()}},
        ),
        "inferring": (without(targets), inputs, {"forced": targets, "infer": True}),
        "leaves drawn": (drawn(graph, leaves=True)[0], inputs, {}),
    }


CARRIES = {
    "driven lstm": lambda: LSTM(H, ("gate_input", "code"), 4, has_gate_input=True),
    "lstm": lambda: LSTM(H, ("x", "code", "pen"), 8),
}
WAYS = ("own", "targets given", "all given", "mixed", "inferring", "leaves drawn")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("carry", CARRIES)
def test_values_distributions_and_gradients_equal_those_of_a_plain_loop(carry, way):
    torch.manual_seed(0)
    graph, other = full(CARRIES[carry]()), full(CARRIES[carry]())
    noise, inputs, options = cases(graph, other)[way]
    trace, expected = compare(graph, noise, inputs, **options)
    moving = [name for name in trace.raw if trace.raw[name].requires_grad]
    assert {"z", "x", "leaf"} <= set(moving)
    fast, slow = (
        gradients(graph, [one(name) for name in moving])
        for one in (lambda name: trace.raw[name], lambda name: expected[f"{name}|prior"])
    )
    for name, value in fast.items():
        assert (value is None) == (slow[name] is None)
        if value is not None:
            torch.testing.assert_close(value, slow[name], atol=1e-10, rtol=1e-10)
    assert fast["entries.1.nodes.1.conditional.net.weight"] is not None


@pytest.mark.parametrize("latents_from", ["student", "teacher"])
def test_a_paired_rollout_equals_two_plain_loops(latents_from):
    torch.manual_seed(0)
    teacher, student = full(width=7), full(width=2)
    noise, inputs = drawn(teacher)
    pair = paired_rollout(teacher, student, noise, inputs, latents_from=latents_from)
    teacher_values = naive(teacher, noise, inputs)
    given = {name: teacher_values[name] for name in teacher_values if name in student.targets()}
    given |= {name: teacher_values[name] for name in student.latents()} if latents_from == "teacher" else {}
    own = naive(student, {name: value for name, value in noise.items() if name not in given}, inputs, forced=given)
    for name in student.random_nodes():
        torch.testing.assert_close(pair.teacher.raw[name], teacher_values[f"{name}|prior"], atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(pair.student.raw[name], own[f"{name}|prior"], atol=1e-10, rtol=1e-10)


def test_some_samples_take_the_teachers_latents_at_every_step():
    torch.manual_seed(0)
    teacher, student = full(width=7), full(width=2)
    noise, inputs = drawn(teacher)
    trace = rollout_teacher(teacher, noise, inputs)
    which = torch.tensor([True, False, True])
    traces = [
        rollout_student(student, trace, noise, inputs, teacher_latents=dict.fromkeys(student.latents(), taken))
        for taken in (which, True)
    ]
    alone = rollout_student(student, trace, noise, inputs)
    torch.testing.assert_close(traces[0].raw["x"][which], traces[1].raw["x"][which])
    torch.testing.assert_close(traces[0].raw["x"][~which], alone.raw["x"][~which])
    assert not torch.allclose(traces[0].raw["x"][which], alone.raw["x"][which])


# ---------------------------------------------------------------- reading whole sequences


def reading(carry):
    torch.manual_seed(1)
    nodes = [
        Target("y", Normal((2,), scale=0.5), nn.Linear(H, 2), STATE),
        Hidden("gate_input", nn.Linear(2, H), "y"),
    ]
    return Graph([Scan(nodes, carry, T)]).double()


def test_a_recurrence_that_unrolls_is_called_once():
    slow, fast = reading(Sum("gate_input", H)), reading(FastSum("gate_input", H))
    y = torch.randn(B, T, 2, dtype=torch.double)
    found, expected = (graph.rollout({}, forced={"y": y}) for graph in (fast, slow))
    torch.testing.assert_close(found.raw["y"], expected.raw["y"], atol=1e-12, rtol=1e-12)
    assert fast.scan.carry.calls == 0
    assert slow.scan.carry.calls == T - 1
    one, other = gradients(fast, [found.raw["y"]]), gradients(slow, [expected.raw["y"]])
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-10, rtol=1e-10)


def test_a_recurrence_that_unrolls_goes_step_by_step_if_necessary():
    slow, fast = reading(Sum("gate_input", H)), reading(FastSum("gate_input", H))
    noise = {"y": torch.randn(B, T, 2, dtype=torch.double)}
    torch.testing.assert_close(fast.rollout(noise).values["y"], slow.rollout(noise).values["y"])
    assert fast.scan.carry.calls == T - 1


def test_networks_of_given_targets_are_called_once():
    """The nets of targets, and of what only these depend on, are called once for all steps."""
    graph = full()
    rows = []
    for node in graph.nodes():
        if node.name in ("x", "gate_input", "leaf"):
            node.conditional.net.register_forward_hook(lambda net, args, result: rows.append(len(result)))
    noise, inputs = drawn(graph)
    values = graph.rollout(*drawn(graph, leaves=True)).values
    targets = {name: values[name] for name in graph.targets()}
    rows.clear()
    graph.rollout({name: noise[name] for name in graph.latents()}, inputs, forced=targets)
    assert rows == [B * T] * 3


# ---------------------------------------------------------------- the LSTM


@pytest.mark.parametrize("driven", [True, False], ids=["driven", "plain"])
def test_the_lstm_cell_equals_that_of_torch(driven):
    torch.manual_seed(0)
    cell = nn.LSTMCell(4, H).double()
    own = LSTM(H, ("a", "b") if driven else "b", 0 if driven else 4, has_gate_input=driven).double()
    order = [0, 1, 3, 2]  # torch has the gates i, f, g, o
    own.recurrent.weight.data, own.recurrent.bias.data = (
        torch.cat([one.chunk(4)[i] for i in order]).detach().clone()
        for one in (cell.weight_hh, cell.bias_hh + cell.bias_ih)
    )
    weight = torch.cat([cell.weight_ih.chunk(4)[i] for i in order]).detach()
    if not driven:
        own.inputs.weight.data = weight
    states = [own.initial(B, own.recurrent.weight), (torch.zeros(B, H).double(), torch.zeros(B, H).double())]
    for value in torch.randn(T, B, 4, dtype=torch.double):
        states = [own(states[0], value @ weight.T if driven else value), cell(value, states[1])]
    for one, other in zip(*states, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


# ---------------------------------------------------------------- lengths, copies, refusals


def test_steps_after_the_end_of_a_sequence_do_not_count():
    torch.manual_seed(0)
    teacher, student = full(width=7), full(width=2)
    noise, inputs = drawn(teacher)
    pair = paired_rollout(teacher, student, noise, inputs)
    lengths = torch.tensor([T, 2, 0])
    for reduction in ("sum", "mean"):
        found = node_divergence(pair, "x", "kl", reduction, lengths)
        steps = (pair.teacher.raw["x"] - pair.student.raw["x"]).square() / (2 * 0.5**2)
        expected = [getattr(steps[i, :length], reduction)() if length else 0.0 for i, length in enumerate(lengths)]
        torch.testing.assert_close(found, torch.stack([torch.as_tensor(one).double() for one in expected]))


@pytest.mark.parametrize("steps", [1, 9])
def test_the_noise_determines_the_number_of_steps(steps):
    graph = full()
    noise, inputs = graph.noise(B, steps=steps), graph.draw_inputs(B, steps=steps)
    trace = graph.rollout(noise, {name: value.double() for name, value in inputs.items()})
    assert trace.values["x"].shape == (B, steps, 3)
    assert trace.distributions["end"].mean.shape == (B, 2)


def test_copies_and_saved_states_of_a_sequence_give_the_same_values(tmp_path):
    torch.manual_seed(0)
    graph, other = full(), full()
    noise, inputs = drawn(graph)
    expected = graph.rollout(noise, inputs).values["x"]
    torch.save(graph.state_dict(), tmp_path / "graph.pt")
    other.load_state_dict(torch.load(tmp_path / "graph.pt", weights_only=True))
    for one in (copy.deepcopy(graph), other):
        assert torch.equal(one.rollout(noise, inputs).values["x"], expected)


def test_sequences_of_different_lengths_are_refused():
    graph = full()
    noise, inputs = drawn(graph)
    inputs["u"] = inputs["u"][:, :-1]
    with pytest.raises(ConfigError, match=r"must have the same number of steps, at least one, got \{.*'u': 5"):
        graph.rollout(noise, inputs)


def test_missing_values_are_refused():
    graph = full()
    noise, inputs = drawn(graph)
    with pytest.raises(ConfigError, match=r"^'z\|prior' needs 'u', which has no value"):
        graph.rollout(noise, {})
    del noise["z"]
    with pytest.raises(ConfigError, match=r"^'code' needs 'z', which has no value"):
        graph.rollout(noise, inputs)


def test_the_carried_state_needs_existing_values():
    graph = full(Sum("nothing", H))
    with pytest.raises(ConfigError, match=r"^the carried state needs 'nothing', which has no value$"):
        graph.rollout(*drawn(graph))


def test_the_plan_puts_each_task_where_it_can_be_computed():
    def task(name, *needs):
        return Task(name, needs, lambda values, rows, like: values[0])

    tasks = [
        task("of input", "u"),
        task("prior"),
        task("z", STATE, "of input"),
        task("only from fixed", "g"),
        task("output", "z", STATE),
        task("next", "z"),
    ]
    ahead, inside, after = ([one.provides for one in part] for part in plan(tasks, {"u"}, {"g"}, ["next"]))
    assert ahead == ["of input", "prior"]
    assert inside == ["z", "next"]
    assert after == ["only from fixed", "output"]


def test_random_nodes_of_a_sequence_are_listed_in_order():
    graph = full()
    assert [name for name, node in graph.random_nodes().items() if isinstance(node, Random)] == [
        *("g", "z", "bit", "x", "pen", "leaf", "end")
    ]
    assert graph.leaves() == {"leaf", "end"}
    assert graph.in_sequence("x")
    assert not graph.in_sequence("end")


REFUSED = {
    "no steps": (
        lambda: Scan([Target("y", Bernoulli((1,)))], LSTM(2, "y", 1), 0),
        r"^steps must be an integer >= 1, got 0$",
    ),
    "nothing to read": (lambda: LSTM(2, "y"), r"^size must be an integer >= 1, got 0$"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_sequences_are_refused(case):
    declare, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        declare()
