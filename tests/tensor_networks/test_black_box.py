"""Chains that are built from queries alone: exact where they can be, within the budget, and unchanged by failures."""

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError, DataError
from kdzoo.models import MLP, MPS, MPSClassifier
from kdzoo.tensor_networks import from_queries
from kdzoo.tensor_networks.cross import cross_interpolate
from kdzoo.tensor_networks.queries import BudgetError, Oracle
from kdzoo.tensor_networks.sketching import sketch


def chain(**options):
    torch.manual_seed(0)
    return MPSClassifier(in_shape=(1, 3, 4), num_classes=3, bond_dim=4, **options)


@pytest.mark.parametrize("method", ["sketching", "cross"])
@pytest.mark.parametrize("feature_map", ["polynomial", "cos_sin", "legendre", "whitened", "trainable"])
def test_a_chain_is_found_from_its_outputs(method, feature_map):
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
