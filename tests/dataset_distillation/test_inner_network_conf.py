"""The packaged networks that learn from synthetic data."""

import pytest
import torch
import yaml

from kdzoo import config
from kdzoo.dataset_distillation import InnerNetwork
from kdzoo.errors import ConfigError

WEIGHTS = {
    "logistic": 784 * 10 + 10,
    "mlp": (784 * 100 + 100) + (100 * 10 + 10),
    "convnet_8": 74_650,
    "lenet": 61_706,
    "convnet_3x128": (128 * 9 + 256) + 2 * (128 * 128 * 9 + 256) + (128 * 3 * 3 * 10 + 10),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_file_names_one_learner_of_the_right_size(name):
    ((key, node),) = yaml.safe_load((config.packaged_folder() / "inner_network" / f"{name}.yaml").read_text()).items()
    model = {**node["model"], "in_shape": (1, 28, 28), "num_classes": 10}
    inner_network = config.instantiate({**node, "model": model}, allow={node["_target_"], model["_target_"]})
    assert key == name
    assert isinstance(inner_network, InnerNetwork)
    assert inner_network.n_weights == WEIGHTS[name]
    weights = inner_network.sample(2, torch.Generator().manual_seed(0))
    assert inner_network.logits(weights, torch.zeros(3, 1, 28, 28)).shape == (2, 3, 10)


def test_several_are_chosen_by_name():
    chosen = config.compose("inner_network=[logistic,convnet_3x128]").inner_network
    assert list(chosen) == ["logistic", "convnet_3x128"]


def test_what_is_wrong_in_a_learner_is_said_with_its_key():
    linear = {"_target_": "kdzoo.models.MLP", "in_shape": (2, 2), "num_classes": 3, "hidden": []}
    node = {
        "_target_": "kdzoo.dataset_distillation.SyntheticSet",
        "in_shape": (2, 2),
        "num_classes": 3,
        "inner_network": {
            "linear": {"_target_": "kdzoo.dataset_distillation.InnerNetwork", "model": linear, "std": -1.0}
        },
    }
    with pytest.raises(ConfigError, match=r"^inner_network\.linear: std must be a finite number >= 0, got -1.0$"):
        config.instantiate(node, allow=config.packaged_targets())
