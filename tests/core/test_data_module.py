"""The interface of data modules, on the smallest data module that has it."""

import pytest

from kdzoo.core.data_module import BatchData
from kdzoo.core.samplers import EpochBatches


class Smallest(BatchData):
    """A data module of nothing, with the sizes that it is given."""

    def __init__(self, **sizes):
        super().__init__()
        self.given_sizes = sizes
        self.train_sampler = EpochBatches(4, 2, seed=0)

    @property
    def sizes(self):
        return self.given_sizes

    @property
    def is_augmented(self):
        return False

    def fingerprint(self):
        return "0" * 64

    def summary(self):
        return dict.fromkeys(("n_train", "n_labelled", "n_val", "n_test", "num_classes"), 0)

    def train_eval_dataloader(self):
        return []


@pytest.mark.parametrize("name", sorted(BatchData.__abstractmethods__))
def test_every_required_member_is_required(name):
    members = {key: value for key, value in vars(Smallest).items() if key != name}
    incomplete = type("Incomplete", (BatchData,), members)
    with pytest.raises(TypeError, match=name):
        incomplete()


@pytest.mark.parametrize(("sizes", "expected"), [({"in_shape": (2,)}, True), ({"vocab_size": 5}, False)])
def test_samples_of_data_with_a_vocabulary_differ_in_shape(sizes, expected):
    assert Smallest(**sizes).has_equal_rows is expected


def test_rank_and_world_size_are_those_of_the_trainer():
    class Trainer:
        global_rank, world_size = 2, 3

    data = Smallest()
    assert data._rank_and_world_size() == (0, 1)
    data.trainer = Trainer()
    assert data._rank_and_world_size() == (2, 3)
