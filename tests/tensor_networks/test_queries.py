"""The oracle: no question twice, counted, within the budget; a given chain is filled from questions alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.errors import ConfigError, DataError
from kdzoo.models import MLP, MPS, MPSClassifier
from kdzoo.tensor_networks import from_queries
from kdzoo.tensor_networks.cross import cross_interpolate
from kdzoo.tensor_networks.queries import BudgetError, Oracle
from kdzoo.tensor_networks.sketching import sketch


class Recorder:
    """A function that remembers what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, x):
        self.calls.append(x)
        place = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)
        return torch.stack([(x * place).sum(1), (x * place).square().sum(1)], 1)

    @property
    def given(self):
        return torch.cat(self.calls)


POINTS = st.lists(
    st.lists(st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0]), min_size=4, max_size=4), min_size=1, max_size=12
)


@settings(max_examples=50, deadline=None)
@given(first=POINTS, second=POINTS, cut=st.integers(0, 4), batch_size=st.integers(1, 5))
def test_every_combination_is_right_and_none_is_evaluated_twice(first, second, cut, batch_size):
    function = Recorder()
    oracle = Oracle(function, batch_size=batch_size)
    left = torch.tensor(first, dtype=torch.float64)[:, :cut]
    right = torch.tensor(second, dtype=torch.float64)[:, cut:]
    found = oracle.pairs(left, right)
    wanted = [[Recorder()(torch.cat([a, b])[None])[0] for b in right] for a in left]
    assert torch.equal(found, torch.stack([torch.stack(row) for row in wanted]))
    different = {tuple(float(v) + 0.0 for v in (*a, *b)) for a in left for b in right}
    assert oracle.evaluations == len(function.given) == len(different)
    assert oracle.asked == len(first) * len(second)
    assert max(map(len, function.calls)) <= batch_size
    whole = torch.cat([left.repeat_interleave(len(right), 0), right.repeat(len(left), 1)], 1)
    assert torch.equal(oracle(whole), found.flatten(0, 1))  # known by now, however it is cut
    assert oracle.evaluations == len(different)


def test_places_are_told_apart():
    function = Recorder()
    oracle = Oracle(function)
    oracle(torch.eye(6))
    oracle(torch.cat([torch.eye(6), 1 - torch.eye(6)]))
    assert oracle.evaluations == 12


def test_answers_are_float64_without_a_gradient():
    layer = nn.Linear(3, 2)
    found = Oracle(layer)(torch.rand(4, 3))
    assert found.dtype == torch.float64
    assert not found.requires_grad


def test_the_budget_is_kept():
    function = Recorder()
    oracle = Oracle(function, budget=5)
    oracle(torch.rand(3, 4))
    with pytest.raises(BudgetError, match=r"budget=5 .* 3 are spent, the next 4"):
        oracle(torch.rand(4, 4))
    assert len(function.given) == oracle.evaluations == 3
    oracle(torch.rand(2, 4))
    assert oracle.evaluations == 5


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda x: x.sum(1), r"must return \(samples, outputs\)"),
        (lambda x: x[:1], "of 2 samples"),
        (lambda x: x / 0, "not finite"),
    ],
    ids=["vector", "too-few", "not-finite"],
)
def test_what_a_function_must_return(function, match):
    with pytest.raises(DataError, match=match):
        Oracle(function)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("budget", 0)])
def test_arguments_of_the_oracle(name, value):
    with pytest.raises(ConfigError, match=name):
        Oracle(Recorder(), **{name: value})


# ---------------------------------------------------------------- into a model


def chain(**options):
    torch.manual_seed(0)
    return MPSClassifier(in_shape=(1, 3, 4), num_classes=3, bond_dim=4, **options)


@pytest.mark.parametrize("method", ["sketching", "cross"])
@pytest.mark.parametrize("feature_map", ["polynomial", "cos_sin", "legendre", "whitened", "trainable"])
def test_a_chain_is_found_from_its_answers(method, feature_map):
    options = {"feature_map": feature_map, "degree": 1, "out_site": 5}
    teacher = chain(noise=8.0, **options).double()
    images = torch.rand(16, 1, 3, 4, dtype=torch.float64)
    student = chain(**options).double()
    for one in (teacher, student):
        one.calibrate(images)
    found = from_queries(student, teacher, images, method=method, ends=6, cutoff=1e-10)
    others = torch.rand(20, 1, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        gap = (student(others) - teacher(others)).norm() / teacher(others).norm()
    assert gap < 1e-8
    assert found.bonds == tuple(student.dims.tolist())
    assert found.finished
    assert 0 < found.evaluations < found.asked


def test_bonds_are_those_that_were_found_and_can_be_trained():
    torch.manual_seed(0)
    teacher = MLP(in_shape=(1, 3, 4), num_classes=3, hidden=[8]).eval()
    student = chain()
    images = torch.rand(50, 1, 3, 4)
    found = from_queries(student, teacher, images, rank=6)
    assert max(found.bonds) == 6
    optimizer = torch.optim.Adam(student.parameters(), 1e-3)
    wanted = teacher(images).detach()
    gaps = []
    for _ in range(20):
        gap = (student(images) - wanted).square().mean()
        optimizer.zero_grad()
        gap.backward()
        optimizer.step()
        gaps.append(gap.item())
    assert gaps[-1] < gaps[0] < float(wanted.square().mean())


def test_a_failure_leaves_the_chain_as_it_was():
    student = chain()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with pytest.raises(BudgetError):
        from_queries(student, MLP(in_shape=(1, 3, 4), num_classes=3), torch.rand(30, 1, 3, 4), budget=100)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"method": "guessing"}, "method must be one of sketching, cross"),
        ({"rank": 0}, "rank"),
        ({"domain": [1.0, 0.0]}, "domain"),
        ({"ends": 0}, "ends"),
        ({"samples": torch.rand(3, 1, 3, 4)}, "needs more than 4 different samples, got 3"),
        ({"samples": torch.rand(0, 1, 3, 4)}, "at least one sample"),
        ({"samples": torch.full((9, 1, 3, 4), torch.nan)}, "samples must be finite, got 9 of 9 that are not"),
        ({"samples": torch.rand(9, 1, 3, 5)}, r"each of the chain's 12 sites, got inputs of \(1, 3, 5\)"),
    ],
    ids=["method", "rank", "domain", "ends", "few-samples", "no-samples", "nan", "sites"],
)
def test_arguments(changes, match):
    arguments = {"samples": torch.rand(30, 1, 3, 4), **changes}
    with pytest.raises((ConfigError, DataError), match=match):
        from_queries(chain(), MLP(in_shape=(1, 3, 4), num_classes=3), **arguments)


@pytest.mark.parametrize("method", ["sketching", "cross"])
def test_a_teacher_of_other_outputs_is_found_by_one_query(method):
    asked = []

    def teacher(x):
        asked.append(len(x))
        return x.flatten(1)[:, :5]

    with pytest.raises(ConfigError, match="the teacher must have the 3 outputs of the chain, got 5"):
        from_queries(chain(), teacher, torch.rand(30, 1, 3, 4), method=method)
    assert asked == [1]


@pytest.mark.parametrize("method", ["sketching", "cross"])
def test_the_query_for_its_outputs_is_one_that_is_needed_anyway(method):
    asked = []

    def teacher(x):
        asked.append(x)
        return x.flatten(1)[:, :3]

    student, images = chain(), torch.rand(30, 1, 3, 4)
    found = from_queries(student, teacher, images, method=method)
    assert found.evaluations == len(torch.cat(asked)) == len(torch.cat(asked).unique(dim=0))
    points = images.flatten(1)[:, student.order]
    oracle = Oracle(lambda x: teacher(x[:, student.order.argsort()]))
    grid = [*map(float, points.aminmax())]
    make = sketch if method == "sketching" else cross_interpolate
    direct = make(oracle, points, student.feature_map.double_features, rank=4, out_site=6, domain=grid)[2]
    assert found.evaluations == direct.evaluations


def test_samples_outside_of_the_feature_maps_domain_cost_no_query():
    def teacher(x):
        raise AssertionError

    with pytest.raises(DataError, match=r"CosSin takes inputs in \[0, 1\]"):
        from_queries(chain(feature_map="cos_sin"), teacher, torch.rand(30, 1, 3, 4) + 1)


def test_a_periodic_chain_is_refused():
    with pytest.raises(ConfigError, match="boundary='open'"):
        from_queries(MPS(6, 2, 3, boundary="periodic"), nn.Linear(6, 2), torch.rand(20, 6))
