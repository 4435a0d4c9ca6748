"""Graphs: nodes, rollouts, observations, the evidence lower bound, copies."""

import copy

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.graphical_models import (
    LSTM,
    STATE,
    Bernoulli,
    Categorical,
    Constant,
    Delta,
    Graph,
    Hidden,
    Input,
    Latent,
    Normal,
    Scan,
    Target,
)
from kdzoo.graphical_models.families import MergedNormal
from kdzoo.graphical_models.marginal import log_marginal
from kdzoo.graphical_models.paired import paired_rollout, rollout_student, rollout_teacher


class Concatenated(nn.Linear):
    def forward(self, *values):
        return super().forward(torch.cat(values, -1))


def model():
    """Return (x, top) -> z -> hidden -> (a -> b, c): inputs, targets in the middle and at the end."""
    return Graph(
        [
            Input("x", Categorical((3,)), source="label"),
            Latent("top", Normal((2,)), Constant(4), posterior=nn.Linear(4, 4), posterior_parents="up"),
            Latent(
                "z",
                Normal((3,)),
                Concatenated(5, 6),
                ("top", "x"),
                posterior=Concatenated(6, 6),
                posterior_parents=("up", "top"),
            ),
            Hidden("hidden", nn.Linear(3, 5), "z"),
            Target("a", Normal((2,), scale=0.5), nn.Linear(5, 2), "hidden", lambda batch: batch["points"][:, :2]),
            Target("b", Bernoulli((1,)), nn.Linear(2, 1), "a", lambda batch: batch["points"][:, 2:]),
            Target("c", Delta((4,)), nn.Linear(5, 4), "hidden", "points"),
        ],
        [Hidden("up", nn.Linear(2, 4), "a")],
    )


# ---------------------------------------------------------------- nodes


def test_nodes_are_listed_by_role():
    graph = model()
    assert [node.name for node in graph.nodes()] == ["x", "top", "z", "hidden", "a", "b", "c"]
    assert list(graph.inputs()) == ["x"]
    assert list(graph.latents()) == ["top", "z"]
    assert list(graph.targets()) == ["a", "b", "c"]
    assert list(graph.random_nodes()) == ["top", "z", "a", "b", "c"]
    assert graph.leaves() == {"b", "c"}
    assert graph.scan is None
    assert not graph.in_sequence("a")


def test_inference_parameters_are_those_that_samples_do_not_depend_on():
    graph = model()
    trace = graph.rollout(graph.noise(4), graph.draw_inputs(4))
    sum(raw.sum() for raw in trace.raw.values()).backward()
    unused = {name for name, parameter in graph.named_parameters() if parameter.grad is None}
    own = {id(parameter) for parameter in graph.inference_parameters()}
    assert unused == {name for name, parameter in graph.named_parameters() if id(parameter) in own}
    assert unused


BIT = Bernoulli((1,))
WRONG = {
    "two of a name": (lambda: Graph([Latent("z", BIT), Latent("z", BIT)]), r"^two nodes are named 'z'$"),
    "later parent": (
        lambda: Graph([Latent("z", BIT, nn.Linear(1, 1), "y"), Target("y", BIT)]),
        r"^node 'z': parent 'y' is not an earlier node; allowed: \[\]$",
    ),
    "state outside": (
        lambda: Graph([Target("y", BIT, nn.Linear(1, 1), STATE)]),
        r"^node 'y': parent 'state' is not an earlier node",
    ),
    "no node": (lambda: Graph([nn.Linear(1, 1)]), r"^a graph is made of nodes, got Linear$"),
    "two sequences": (
        lambda: Graph([Scan([Target(name, BIT)], LSTM(2, name, 1), 3) for name in ("a", "b")]),
        r"^a graph may have one sequence, got several$",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_graphs_are_refused(case):
    make, message = WRONG[case]
    with pytest.raises(ConfigError, match=message):
        make()


# ---------------------------------------------------------------- noise and rollouts


def test_noise_is_drawn_for_nodes_that_others_depend_on():
    graph = model()
    assert {name: value.shape for name, value in graph.noise(5).items()} == {
        "top": (5, 2),
        "z": (5, 3),
        "a": (5, 2),
    }
    assert graph.noise(5, leaves=True).keys() == {"top", "z", "a", "b"}
    one, other = (graph.noise(5, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_values_are_those_of_the_networks_and_the_noise():
    torch.manual_seed(0)
    graph = model()
    noise, inputs = graph.noise(4, leaves=True), graph.draw_inputs(4)
    trace = graph.rollout(noise, inputs)
    net = {node.name: node.conditional.net for node in graph.nodes() if node.name != "x"}

    def normal(raw, name):
        family = graph.random_nodes()[name].family
        return family.distribution(raw).mean + family.distribution(raw).stddev * noise[name]

    top = normal(net["top"].value.expand(4, 4), "top")
    z = normal(net["z"](top, inputs["x"]), "z")
    hidden = net["hidden"](z)
    a = net["a"](hidden) + 0.5 * noise["a"]
    b = (noise["b"] < net["b"](a).sigmoid()).float()
    expected = {"x": inputs["x"], "top": top, "z": z, "hidden": hidden, "a": a, "b": b, "c": net["c"](hidden)}
    assert trace.values.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(trace.values[name], value)
    assert trace.raw.keys() == trace.distributions.keys() == graph.random_nodes().keys()
    assert trace.posteriors == {}


def test_a_leaf_without_noise_has_a_distribution_and_no_value():
    graph = model()
    trace = graph.rollout(graph.noise(4), graph.draw_inputs(4))
    assert "b" not in trace.values
    assert trace.distributions["b"].mean.shape == (4, 1)
    assert trace.values["c"].shape == (4, 4)


def test_forced_and_mixed_values_are_used():
    torch.manual_seed(0)
    graph = model()
    noise, inputs = graph.noise(3), graph.draw_inputs(3)
    own = graph.rollout(noise, inputs).values
    z, which = torch.randn(3, 3), torch.tensor([True, False, True])
    forced = graph.rollout(noise, inputs, forced={"z": z}).values
    mixed = graph.rollout(noise, inputs, mixed={"z": (z, which)}).values
    assert torch.equal(forced["z"], z)
    torch.testing.assert_close(forced["hidden"], graph.entries[3].conditional.net(z))
    assert torch.equal(mixed["z"][which], z[which])
    assert torch.equal(mixed["z"][~which], own["z"][~which])


def test_a_sampler_makes_the_values():
    graph = model()
    seen = []

    def middle(family, raw, noise):
        seen.append(family)
        return family.distribution(raw).mean

    trace = graph.rollout(graph.noise(3), graph.draw_inputs(3), sampler=middle)
    assert seen == [graph.random_nodes()[name].family for name in ("top", "z", "a")]
    assert torch.equal(trace.values["z"], trace.distributions["z"].mean)


def test_errors_name_the_missing_value():
    graph = model()
    noise = graph.noise(3)
    with pytest.raises(ConfigError, match=r"^'z\|prior' needs 'x', which has no value: give its noise, or force it$"):
        graph.rollout(noise)
    with pytest.raises(ConfigError, match=r"^'hidden' needs 'z', which has no value"):
        graph.rollout({"top": noise["top"]}, graph.draw_inputs(3))
    with pytest.raises(ConfigError, match=r"^a rollout needs noise, inputs or given values, which say how many"):
        Graph([Target("y", BIT, Constant(1))]).rollout({})


def test_samples_are_in_the_layout_of_the_data():
    torch.manual_seed(0)
    graph = model().double()
    drawn = graph(torch.zeros(5, 1))
    assert drawn.shape == (5, 2 + 1 + 4)
    assert drawn.dtype == torch.double
    noise = graph.noise(5)
    inputs = {name: value.double() for name, value in graph.draw_inputs(5).items()}
    trace = graph.rollout(noise, inputs)
    expected = torch.cat([trace.values["a"], trace.distributions["b"].mean, trace.values["c"]], -1)
    assert torch.equal(graph.samples(noise, inputs), expected)


def test_inputs_are_drawn_from_the_standard_distribution_of_their_family():
    graph = Graph([Input("c", Categorical((4,))), Input("n", Normal((2,), scale=3.0)), Target("y", BIT)])
    drawn = graph.draw_inputs(4000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(drawn["c"].mean(0), torch.full((4,), 0.25), atol=0.03)
    assert torch.allclose(drawn["n"].std(0), torch.full((2,), 3.0), atol=0.15)


# ---------------------------------------------------------------- observations


def test_nodes_read_their_observations():
    graph = model()
    batch = {"label": torch.tensor([2, 0]), "points": torch.tensor([[1.0, 2.0, 1.0, 0.0], [3.0, 4.0, 0.0, 1.0]])}
    assert graph.observed(batch, graph.inputs())["x"].tolist() == [[0, 0, 1], [1, 0, 0]]
    graph = Graph([*graph.entries[:5]])
    assert graph.observed(batch, graph.targets())["a"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(ConfigError, match=r"^node 'x' reads 'label', which the batch lacks; it has \['points'\]$"):
        graph.observed({"points": batch["points"]}, graph.inputs())


# ---------------------------------------------------------------- the evidence bound


class Posterior(nn.Module):
    """Mean and raw deviation of z given y = 1.5 z + 0.3 + 0.5 e: precision 1 + 9, mean 6 (y - 0.3) / 10."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def forward(self, y):
        deviation = torch.tensor(10.0, dtype=torch.double).rsqrt() + self.shift
        raw = ((deviation - 1e-6) * torch.tensor(2.0).log()).expm1().log()
        return torch.cat([0.6 * (y - 0.3) + self.shift, raw.expand_as(y)], 1)


def inferred(shift):
    graph = Graph(
        [
            Latent("z", Normal((1,)), posterior=Posterior(shift), posterior_parents="y"),
            Target("y", Normal((1,), scale=0.5), nn.Linear(1, 1), "z", "input"),
        ]
    ).double()
    weight, bias = graph.targets()["y"].conditional.net.parameters()
    nn.init.constant_(weight, 1.5)
    nn.init.constant_(bias, 0.3)
    return graph


@pytest.mark.parametrize("shift", [0.0, 0.2], ids=["true posterior", "another posterior"])
def test_the_mean_bound_is_the_log_density_minus_the_divergence_of_posteriors(shift):
    graph, n = inferred(shift), 40_000
    y = torch.tensor([[-1.0], [2.0]], dtype=torch.double)
    deviation = 10**-0.5
    true, own = (
        torch.distributions.Normal(0.6 * (y - 0.3) + move, torch.full_like(y, deviation + move))
        for move in (0.0, shift)
    )
    expected = -log_marginal(graph, {"y": y}) + torch.distributions.kl_divergence(own, true)[:, 0]
    for i in range(2):
        noise = graph.elbo_noise(n, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            terms = graph.negative_elbo({"input": y[i : i + 1].expand(n, 1)}, noise)
        total = terms["z"] + terms["y"]
        assert abs(total.mean() - expected[i]).item() <= 4 * total.std().item() / n**0.5 + 1e-5


def test_the_terms_of_the_bound_are_those_of_the_posteriors_and_the_targets():
    torch.manual_seed(0)
    graph = Graph([*model().entries[:6]], model().recognition)
    batch = {"label": torch.tensor([2, 0]), "points": torch.tensor([[1.0, 2.0, 1.0], [3.0, 4.0, 0.0]])}
    noise = graph.elbo_noise(2)
    terms = graph.negative_elbo(batch, noise)
    a, b, x = batch["points"][:, :2], batch["points"][:, 2:], torch.eye(3)[batch["label"]]
    nodes = {node.name: node for node in graph.nodes()}
    up = graph.recognition[0].conditional.net(a)
    parents = {"top": [up], "z": [up]}
    values = {}
    for name in ("top", "z"):
        node = nodes[name]
        if name == "z":
            parents["z"].append(values["top"])
            prior = node.conditional.net(values["top"], x)
        else:
            prior = node.conditional.net().expand(2, 4)
        posterior = node.posterior.net(*parents[name])
        p, q = node.family.distribution(posterior), node.family.distribution(prior)
        values[name] = p.mean + p.stddev * noise[name]
        torch.testing.assert_close(terms[name], torch.distributions.kl_divergence(p, q).sum(1))
    mean = nodes["a"].conditional.net(nodes["hidden"].conditional.net(values["z"]))
    torch.testing.assert_close(terms["a"], -torch.distributions.Normal(mean, 0.5).log_prob(a).sum(1))
    probability = nodes["b"].conditional.net(a).sigmoid()
    torch.testing.assert_close(terms["b"], -torch.where(b == 1, probability, 1 - probability).log().sum(1))
    assert terms.keys() == {"top", "z", "a", "b"}


def test_a_merged_posterior_is_the_product_of_prior_and_likelihood():
    torch.manual_seed(0)
    graph = Graph(
        [
            Latent("z", Normal((2,)), Constant(4), posterior=nn.Linear(3, 4), posterior_parents="y", merged=True),
            Target("y", Normal((3,), scale=1.0), nn.Linear(2, 3), "z", "input"),
        ]
    )
    nn.init.normal_(graph.latents()["z"].conditional.net.value)
    y = torch.randn(5, 3)
    trace = graph.rollout(graph.noise(5), forced={"y": y}, infer=True)
    likelihood = graph.latents()["z"].posterior.net(y)
    expected = MergedNormal((2,)).distribution(torch.cat([trace.raw["z"], likelihood], 1))
    torch.testing.assert_close(trace.posteriors["z"].mean, expected.mean)
    torch.testing.assert_close(trace.posteriors["z"].stddev, expected.stddev)
    assert (trace.posteriors["z"].stddev < trace.distributions["z"].stddev).all()


def test_a_latent_without_posterior_cannot_be_trained_on_data():
    graph = Graph([Latent("z", BIT), Target("y", BIT, nn.Linear(1, 1), "z", "input")])
    with pytest.raises(ConfigError, match=r"^latent 'z' has no posterior: the model cannot be trained on data$"):
        graph.negative_elbo({"input": torch.ones(2, 1)}, graph.elbo_noise(2))


def test_steps_after_the_end_do_not_count_in_the_bound():
    torch.manual_seed(0)
    nodes = [
        Latent("z", Normal((2,)), nn.Linear(4, 4), STATE, posterior=Concatenated(5, 4), posterior_parents=("y", STATE)),
        Target("y", Normal((1,), scale=1.0), nn.Linear(2, 1), "z", "input"),
    ]
    graph = Graph([Scan(nodes, LSTM(4, ("y", "z"), 3), 6)])
    batch, noise, lengths = {"input": torch.randn(3, 6, 1)}, graph.elbo_noise(3), torch.tensor([6, 2, 4])
    terms = graph.negative_elbo(batch, noise, lengths)
    changed = {"input": batch["input"].clone()}
    changed["input"][1, 2:] += 7
    for name, value in graph.negative_elbo(changed, noise, lengths).items():
        torch.testing.assert_close(value, terms[name])
    full_values = graph.negative_elbo(changed, noise)
    assert (full_values["y"][1] > terms["y"][1]).all()
    for name, value in graph.negative_elbo(batch, noise, torch.full((3,), 6)).items():
        torch.testing.assert_close(value, graph.negative_elbo(batch, noise)[name])


# ---------------------------------------------------------------- copies and pairs


def test_copies_and_saved_states_give_the_same_values(tmp_path):
    torch.manual_seed(0)
    graph, other = model(), model()
    noise, inputs = graph.noise(4), graph.draw_inputs(4)
    expected = graph.rollout(noise, inputs).values["c"]
    torch.save(graph.state_dict(), tmp_path / "graph.pt")
    other.load_state_dict(torch.load(tmp_path / "graph.pt", weights_only=True))
    for one in (copy.deepcopy(graph), other):
        assert torch.equal(one.rollout(noise, inputs).values["c"], expected)
    double = copy.deepcopy(graph).double()
    result = double.rollout(noise, {name: value.double() for name, value in inputs.items()}).values["c"]
    assert result.dtype == torch.double
    torch.testing.assert_close(result.float(), expected, atol=1e-5, rtol=1e-5)


def test_leaf_latents_need_no_value_from_the_teacher():
    def graph():
        nodes = [Latent("z", Normal((2,)), Constant(4)), Latent("end", Normal((1,)), nn.Linear(2, 2), "z")]
        return Graph([*nodes, Target("y", BIT, nn.Linear(2, 1), "z")])

    teacher, student = graph(), graph()
    noise = teacher.noise(3)
    pair = paired_rollout(teacher, student, noise, latents_from="teacher")
    assert "end" not in pair.student.values
    which = dict.fromkeys(("z", "end"), torch.tensor([True, False, True]))
    assert rollout_student(student, rollout_teacher(teacher, noise), noise, teacher_latents=which).raw["end"].shape == (
        3,
        2,
    )
