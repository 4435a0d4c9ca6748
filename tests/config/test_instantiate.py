"""From configuration to objects: only exact names are built, and every mistake is one line."""

import pytest
import torch

from kdzoo import config
from kdzoo.errors import ConfigError, DataError


def test_instantiate_builds_nested_nodes_and_partial_functions():
    node = {
        "_target_": "torch.nn.Sequential",
        "_args_": [{"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1}],
    }
    model = config.instantiate(node, allow={"torch.nn.Sequential", "torch.nn.Linear"})
    assert model(torch.zeros(3, 2)).shape == (3, 1)
    adam = config.instantiate(
        {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.5}, allow={"torch.optim.Adam"}
    )
    assert adam(model.parameters()).defaults["lr"] == 0.5


def test_a_nested_name_is_refused_before_anything_is_imported():
    node = {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "antigravity.fly"}]}
    with pytest.raises(ConfigError, match=r"'antigravity\.fly' is not in any config folder"):
        config.instantiate(node, allow={"torch.nn.Sequential"})


def test_a_prefix_of_an_allowed_name_is_refused():
    with pytest.raises(ConfigError, match=r"'torch.load' is not .* did you mean"):
        config.instantiate({"_target_": "torch.load", "f": "x"}, allow={"torch.loa", "torch.load_library"})


def test_what_a_constructor_says_becomes_one_line():
    with pytest.raises(ConfigError, match=r"cannot build torch\.nn\.Dropout: dropout probability has to be"):
        config.instantiate({"_target_": "torch.nn.Dropout", "p": 7}, allow={"torch.nn.Dropout"})
    with pytest.raises(DataError, match="no file"), config.reraise_as_config_error("a.B"):
        raise DataError("no file")


def test_locate_says_what_is_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="not_there"):
        config.locate("broken_module.Thing")
    with pytest.raises(ConfigError, match="there is no module or name"):
        config.locate("kdzoo.models.Perceptron")


class Base:
    def __init__(self, width: int = 3, *, depth: int = 2) -> None: ...


class Follows(Base):
    def __init__(self, extra: int, **options) -> None:
        super().__init__(**options)


class Anything:
    def __init__(self, **options) -> None: ...


class Nothing: ...


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (Follows, {"extra", "width", "depth"}),
        (Anything, {"options"}),
        (Nothing, set()),
        (torch.nn.Identity, {"args", "kwargs"}),
    ],
)
def test_parameters_follow_options_to_the_base_classes(target, names):
    assert set(config.parameters(target)) == names


def test_sizes_of_the_data_go_to_whoever_takes_them():
    inner = {"_target_": "kdzoo.models.MLP", "hidden": [4]}
    node = {"_target_": "kdzoo.models.Ensemble", "members": [inner, {**inner, "num_classes": 3}]}
    sized = config.with_sizes(node, {"in_shape": (1, 8, 8), "num_classes": 10}, config.packaged_targets())
    assert [one["num_classes"] for one in sized["members"]] == [10, 3]
    assert sized["members"][0]["in_shape"] == [1, 8, 8]


def test_a_size_that_the_data_do_not_have_is_named():
    with pytest.raises(ConfigError, match=r"kdzoo\.models\.MLP needs num_classes, which these data do not have"):
        config.with_sizes({"_target_": "kdzoo.models.MLP"}, {"in_shape": (4,)}, config.packaged_targets())
    with pytest.raises(ConfigError, match=r"'os\.system' is not in any config folder"):
        config.with_sizes({"_target_": "os.system"}, {}, config.packaged_targets())


def test_the_key_of_an_inner_node_is_named():
    class_name = f"{__name__}.RejectsItsArgument"
    node = {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": class_name, "width": 3}]}
    with pytest.raises(ConfigError, match=r"_args_.*width must be even"):
        config.instantiate(node, allow={"torch.nn.Sequential", class_name})


class RejectsItsArgument:
    def __init__(self, width: int) -> None:
        raise ConfigError("width must be even")


def test_targets_are_found_at_every_depth():
    tree = {"_target_": "a.B", "inner": [{"_target_": "c.D"}, {"deep": {"_target_": "e.F"}}], "plain": 1}
    assert list(config.targets(tree)) == ["a.B", "c.D", "e.F"]


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("one"), "one"), (ValueError("one\n two\nthree"), "one two"), (ValueError(), "ValueError")],
)
def test_one_line(error, line):
    assert config.one_line(error) == line
