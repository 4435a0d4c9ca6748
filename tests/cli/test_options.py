"""What ``kdzoo list`` prints of models, data and other options: their purpose, and every setting with its meaning."""

import pytest

from kdzoo import config
from kdzoo.cli.options import print_option
from kdzoo.config.schema.sources import GLOBAL_GROUPS

OTHERS = [(group, name) for group, names in config.groups().items() if group != "distiller" for name in names]


@pytest.fixture
def printed(monkeypatch, capsys):
    """Return a function that returns the lines of an option at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(group, name, folders=()):
        print_option(group, name, folders)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return call


@pytest.mark.parametrize(("group", "name"), OTHERS)
def test_every_packaged_option_is_described(group, name, printed):
    lines = printed(group, name)
    assert lines[0].startswith(f"{group}={name}")
    assert lines[2]
    # A setting that is longer than a line goes on in the next one.
    settings = [i for i, line in enumerate(lines) if line.startswith(f"{group}.") and len(line) < 80]
    assert group in GLOBAL_GROUPS or all(lines[i + 1].startswith("    ") for i in settings)


def test_a_model_has_its_settings_with_the_meaning_in_its_file_or_in_its_class(printed):
    lines = printed("student", "mlp")
    assert lines[0] == "student=mlp  (kdzoo.models.MLP)"
    assert lines[lines.index("student.hidden=[128]") + 1].strip().startswith("width of each hidden layer")
    assert lines[lines.index("student.dropout=0.0") + 1].strip().startswith("Probability in [0, 1)")
    assert not any(line.startswith("student.in_shape") for line in lines)  # the data fix it


def test_objects_with_a_name_have_their_whole_key(printed):
    lines = printed("callbacks", "early_stopping")
    assert lines[0] == "callbacks=early_stopping  (pytorch_lightning.callbacks.EarlyStopping)"
    assert "callbacks.early_stopping.patience=10" in lines
    assert not any("_target_" in line for line in lines)
    assert "inner_network.mlp.model.hidden=[100]" in printed("inner_network", "mlp")


def test_an_experiment_is_printed_as_it_is(printed):
    lines = printed("experiment", "hinton2015_mnist")
    assert "  - override /data: mnist" in lines
    assert not any("@package" in line for line in lines)


def test_a_users_model_has_the_settings_of_its_constructor(printed, tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text(
        "class Net:\n"
        '    """A net with [brackets].\n\n    Args:\n        width: How wide it is.\n    """\n'
        "    def __init__(self, in_shape, num_classes, width: int = 3, **options):\n        pass\n"
    )
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "my_net.yaml").write_text("_target_: my_net.Net\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert printed("student", "my_net", [tmp_path]) == [
        "student=my_net  (my_net.Net)",
        "",
        "A net with [brackets].",
        "",
        "Settings",
        "student.width=3",
        "    How wide it is.",
    ]
