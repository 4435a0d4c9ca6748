"""Loss terms as sums with counts: exact means over any division, and the samples that a value is about."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.core.batch import IGNORE
from kdzoo.core.loss_terms import (
    RunningMeans,
    check_weights,
    counts_over_ranks,
    merge_weights,
    position_counts,
    rows_about,
    total,
)
from kdzoo.errors import ConfigError
from tests.core.two_ranks import results_of_two_ranks


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=8), st.integers(0, 99))
def test_running_means_do_not_depend_on_the_split(parts, seed):
    """Each term is divided by its own count; a scalar stands for its samples; an empty term has no mean."""
    torch.manual_seed(seed)
    running, full, few, scalar = RunningMeans(), [], [], []
    for samples, labelled in parts:
        terms = {"full": torch.rand(samples), "few": torch.rand(labelled), "scalar": torch.rand(())}
        running.add(terms, samples)
        full.append(terms["full"])
        few.append(terms["few"])
        scalar += [float(terms["scalar"])] * samples
    means = running.means()
    assert means["full"].item() == pytest.approx(torch.cat(full).double().mean().item(), rel=1e-5)
    assert means["scalar"].item() == pytest.approx(np.mean(scalar), rel=1e-5)
    every = torch.cat(few)
    assert ("few" in means) == bool(len(every))
    if len(every):
        assert means["few"].item() == pytest.approx(every.double().mean().item(), rel=1e-5)


def means_and_counts(rank):
    """Return the means of both ranks, which have 3 and 1 samples, and the sums of some counts."""
    soft, hard = ([1.0, 2.0, 3.0], [4.0]) if rank == 0 else ([5.0], [])
    running = RunningMeans()
    running.add({"soft": torch.tensor(soft), "hard": torch.tensor(hard)}, len(soft))
    means = {name: float(mean) for name, mean in running.means().items()}
    return means, [int(count) for count in counts_over_ranks([len(soft), len(hard)], torch.device("cpu"))]


def test_means_and_counts_are_those_of_all_ranks(tmp_path):
    """One rank has no label; both have the mean of the other's."""
    assert results_of_two_ranks(means_and_counts, tmp_path) == [({"soft": 11 / 4, "hard": 4.0}, [4, 1])] * 2


def test_total():
    assert total(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 2) == (torch.tensor(10.0), 4)
    assert total(torch.tensor(2.0), 3) == (torch.tensor(6.0), 3)
    assert total(torch.empty(0), 3) == (torch.tensor(0.0), 0)


def test_position_counts():
    inputs = torch.zeros(2, 3)
    assert position_counts({"input": inputs}) == [2, 0]
    assert position_counts({"input": inputs, "target": torch.tensor([1, IGNORE])}) == [2, 1]
    target = torch.tensor([[1, IGNORE, 2], [0, 0, 0]])
    assert position_counts({"input": inputs, "target": target}) == [6, 5]
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert position_counts({"input": inputs, "target": target, "mask": mask}) == [3, 2]
    # Batches with noise have one value for each sample.
    assert position_counts({"input": inputs, "target": target, "length": torch.tensor([2, 1])}) == [2, 5]


def test_rows_about():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    target = torch.tensor([[1, IGNORE, 2], [0, 0, 0]])
    batch = {"input": torch.zeros(2, 3), "target": target, "mask": mask}
    assert rows_about(torch.tensor([False, False, True]), batch, labelled=False).tolist() == [1]
    assert rows_about(torch.tensor([True, False]), batch, labelled=True).tolist() == [0]
    assert rows_about(torch.tensor(True), batch, labelled=False).tolist() == [0, 1]


def test_given_weights_replace_defaults():
    assert merge_weights({"soft": 0.9, "hard": 0.1}, {"hard": 0}) == {"soft": 0.9, "hard": 0}
    assert merge_weights({}, {"any": 2.0}) == {"any": 2.0}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"sof": 1.0}, r"loss_weights.sof is not a term of this distiller; its terms: \['hard', 'soft'\]"),
        ({"soft": -1.0}, r"loss_weights.soft must be a finite number >= 0, got -1.0"),
        ({"soft": True}, r"loss_weights.soft must be a finite number >= 0, got True"),
        ({"soft": float("inf")}, r"loss_weights.soft must be a finite number >= 0, got inf"),
    ],
)
def test_wrong_weights_are_rejected(weights, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        merge_weights({"soft": 0.9, "hard": 0.1}, weights)


def test_known_weights_pass():
    check_weights(["soft"], ["soft", "hard"])
