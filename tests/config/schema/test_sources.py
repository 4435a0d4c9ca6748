"""The config files are read once, with their comments, packaged and of the user."""

from kdzoo.config.schema.sources import ConfigFiles


def test_the_classes_of_a_group():
    files = ConfigFiles(None)
    assert files.options("distiller")["dkd"] == "kdzoo.distillers.DKD"
    assert "kdzoo.models.MLP" in files.classes("teacher")
    # A member of an ensemble is not a value of the key ``teacher``; a schedule that only an experiment names is one.
    assert files.targets["kdzoo.models.MLP"].groups == {"teacher", "student"}
    assert "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts" in files.classes("scheduler")
    assert files.objects("callbacks")["early_stopping"] == "pytorch_lightning.callbacks.EarlyStopping"


def test_comments_and_values_of_a_class():
    target = ConfigFiles(None).targets["kdzoo.distillers.DatasetDistillation"]
    assert target.values["inits"] == 4
    assert target.comments["rates.labels"] == "learning rate of the labels, likewise"


def test_every_group_and_setting_of_a_run_is_described():
    files = ConfigFiles(None)
    keys = [*files.key_groups, "experiment", "debug", "seed", "teacher_training.max_epochs"]
    assert [key for key in keys if not files.description(key)] == []
    assert files.run_values["seeds"] == [0, 1, 2, 3, 4]


def test_a_file_of_the_user_is_an_option(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "tiny.yaml").write_text("_target_: my_nets.Tiny\nwidth: 3  # neurons\n")
    files = ConfigFiles(tmp_path)
    assert files.options("student")["tiny"] == "my_nets.Tiny"
    assert files.targets["my_nets.Tiny"].comments == {"width": "neurons"}
