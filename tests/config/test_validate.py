"""Every mistake of a command line is named, all at once; correct command lines pass."""

import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import kdzoo
from kdzoo import config
from kdzoo.cli.main import COMMANDS
from kdzoo.config import overrides, validate
from kdzoo.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_dkd"


def check(line, **options):
    return overrides.check(overrides.parse(shlex.split(line)), list(COMMANDS), **options)


MISTAKES = {
    # groups and their files
    "distiller=logit_kdd": "distiller=logit_kdd does not exist; did you mean 'logit_kd'?",
    "distiler=dkd": "unknown key 'distiler'; did you mean 'distiller'?",
    "data=mnits": "data=mnits does not exist; did you mean 'mnist'?",
    "callbacks=[early_stopping,lr_monitr]": "callbacks=lr_monitr does not exist; did you mean 'lr_monitor'?",
    "distiller=[dkd,logit_kd]": "distiller takes one name, got ['dkd', 'logit_kd']",
    "+experiment=hinton2015_mnist": "leave out the +, experiment has a place already",
    "teacher=null": "teacher is missing: kdzoo.distillers.LogitKD needs a teacher",
    "data/images=mnist": "unknown key 'data/images'",
    "-m data=glob(x*)": "'data=glob(x*)' matches nothing",
    "-m scheduler=null,cosine": "null cannot be part of a sweep over scheduler",
    # keys
    "distiller.temprature=3": "distiller.temprature is not an argument of kdzoo.distillers.LogitKD; "
    "did you mean 'temperature'?",
    "student.hiden=[3]": "student.hiden is not an argument of kdzoo.models.MLP; did you mean 'hidden'?",
    "student={hiden:[3]}": "student.hiden is not an argument of kdzoo.models.MLP; did you mean 'hidden'?",
    "optimizer.lrr=1": "optimizer.lrr is not an argument of torch.optim.Adam; did you mean 'lr'?",
    "trainer.max_epoch=1": "trainer.max_epoch is not an argument of pytorch_lightning.Trainer; "
    "did you mean 'max_epochs'?",
    "teacher_training.max_epoch=1": "teacher_training.max_epoch is unknown; did you mean 'max_epochs'?",
    "control_training.max_epoch=1": "control_training.max_epoch is unknown; did you mean 'max_epochs'?",
    "control_training.optimizer={_target_:torch.optim.SGD,lr:1}": "control_training.optimizer._partial_ must be true",
    "control_training.scheduler=3": "control_training.scheduler must be",
    "teacher_training.data.batch_sice=1": "teacher_training.data.batch_sice is not an argument of kdzoo.data.Digits",
    "trainer.strategy=fsdp": "trainer.strategy=fsdp divides a model among processes",
    "trainer.max_epochs=0": "trainer.max_epochs=0 would train nothing; allowed: above 0",
    "trainer.max_steps=0": "trainer.max_steps=0 would train nothing; allowed: above 0",
    "trainer.limit_train_batches=0.0": "trainer.limit_train_batches=0.0 would train nothing; allowed: above 0",
    "trainer.max_epochs=-1": "trainer.max_epochs=-1 would train without end; set it, or trainer.max_steps",
    "teacher_training.optimizer.lr=1": "teacher_training.optimizer.lr would change ${optimizer} too",
    "callbacks=early_stopping callbacks.early_stopping.patence=1": "EarlyStopping; did you mean 'patience'?",
    "+foo=3": "unknown key 'foo'",
    "++sed=3": "unknown key 'sed'; did you mean 'seed'?",
    "~distiller.temperatur": "~distiller.temperatur: Could not delete",
    "hydra.foo=3": "Could not override 'hydra.foo'",
    "hydra/launcher=jobib": "Could not find 'hydra/launcher/jobib'",
    "trainer.logger=true": "trainer.logger is set by the run",
    "-m distiller=logit_kd,logit_mse distiller.temperature=1": "is not an argument of kdzoo.distillers.LogitMSE",
    # values
    "distiller.temperature=hot": "distiller.temperature must be a number, got 'hot'",
    "distiller.temperature=true": "distiller.temperature must be a number, got True",
    "data.batch_size=3.5": "data.batch_size must be an integer, got 3.5",
    "student.hidden=[3,3,3,3,3,3,3,3,3,3,a,3,3,3,3,3]": "student.hidden must be a list of integers",
    "student.hidden=[3,true]": "student.hidden must be a list of integers, got [3, True]",
    "optimizer.betas=[0.9]": "optimizer.betas must be a list of 2 numbers, got [0.9]",
    "trainer.precision=31": "trainer.precision must be",
    "control=yes": "control must be true or false, got 'yes'",
    "seed=abc": "seed must be an integer or null, got 'abc'",
    "seed=-1": "seeds must be >= 0, got -1",
    "seeds=3": "seeds must be a list of integers, got 3",
    "seeds=[1,2,1]": "seeds must differ, got [1, 2, 1]",
    "seeds=[]": "seeds must name at least one seed",
    "max_batch_size=-1": "max_batch_size must be at least 1 or null, got -1",
    "max_sequence_length=0": "max_sequence_length must be at least 1 or null, got 0",
    "largest={em_steps:many}": "largest must be",
    "max_samples=0": "max_samples must be at least 1 or null, got 0",
    "checkpoint_every_n_steps=0": "checkpoint_every_n_steps must be at least 1 or null, got 0",
    "distiller.loss_weights.sofft=1": "distiller.loss_weights.sofft is not a term of LogitKD; did you mean 'soft'?",
    "distiller.loss_weights={hart:1}": "distiller.loss_weights.hart is not a term of LogitKD; did you mean 'hard'?",
    "distiller.loss_weights.soft=-1": "distiller.loss_weights.soft must be a number >= 0, got -1",
    "-m seed=0,1 distiller.temperature=1,2,x": "distiller.temperature must be a number, got 'x'",
    "seed=0,1": "'seed=0,1' is a sweep over several values; add -m",
    "data.seed=${sed}": "data.seed cannot be resolved: Interpolation key 'sed' not found",
    "optimizer=null": "optimizer is missing",
    "teacher_training.optimizer={_target_:torch.optim.SGD,lr:1}": "teacher_training.optimizer._partial_ must be true",
    # missing
    "data=arrays": "data.test_file is missing; set data.test_file=...",
    "distiller=feature_kd": "distiller.layers is missing",
    "student._target_=torch.nn.Linear": "student.in_features is missing: torch.nn.Linear needs it",
    # what may be built
    "+callbacks.mine._target_=my_calbacks.Mine": "_target_ 'my_calbacks.Mine' cannot be imported",
    "hydra.launcher._target_=os.system": "objects in Hydra's own settings are rejected",
    "+hydra.callbacks.x={a:1}": "hydra.callbacks are rejected",
    "+callbacks.x.y=3": "callbacks.x must be a mapping with _target_",
    # words
    "seed=[": "'seed=[' is not an override",
    "seed": "'seed' is neither key=value nor a command",
    "lst": "did you mean 'list'?",
    "--multirn seed=0,1": "unknown flag '--multirn'; did you mean '--multirun'?",
    "--config-name=mine": "unknown flag '--config-name=mine'",
    "--experimental-rerun x.pickle": "unknown flag '--experimental-rerun'",
    "--config-dir /nowhere": "--config-dir /nowhere is not a folder",
}


SEVERAL = {
    "--multirn seed=0,1": 2,  # a flag, and a sweep without -m
    "--experimental-rerun x.pickle": 2,
    "data=arrays": 2,  # two files
    "student._target_=torch.nn.Linear": 6,  # two are missing, four of the MLP's do not fit
}
"""How many lines there are where it is not one."""


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_named_in_one_line(line):
    lines = check(line).mistakes
    assert any(MISTAKES[line] in text for text in lines), lines
    assert all("\n" not in text for text in lines)
    assert len(lines) == SEVERAL.get(line, 1), lines


def test_all_mistakes_at_once():
    found = check("distiler=dkd student.hiden=[3] optimizer.lr=fast seeds=[1,1] data=mnits seed=[").mistakes
    parts = ["'distiler'", "student.hiden", "optimizer.lr must", "seeds must differ", "data=mnits", "'seed=['"]
    assert [sum(part in one for one in found) for part in parts] == [1] * 6
    assert len(found) == 6


def test_every_value_of_a_sweep_is_checked():
    found = check("-m distiller.temperature=1,a,2,b data.batch_size=3,x student=mlp,resnet").mistakes
    assert {one.rpartition(" got ")[2] for one in found} == {"'a'", "'b'", "'x'"}


CORRECT = [
    "",
    "distiller.micro_batch_size=8",
    "data.augment.shift=2",
    "data.augment={shift:2}",
    "student._target_=torch.nn.Identity",
    "student={hidden:[3]}",
    "student.hidden=[]",
    "~scheduler",
    "scheduler=null",
    "scheduler=cosine scheduler.eta_min=0.1",
    "scheduler=cosine scheduler.last_epoch=-1",
    "hydra.run.dir=/tmp/elsewhere",
    "'output_dir=\"with space\"'",
    "trainer.max_epochs=2",
    "trainer.max_epochs=2 teacher_training.max_epochs=${trainer.max_epochs}",
    "data.seed=3 teacher_training.seed=0",
    "teacher_training.data.batch_size=32",
    "teacher_training.optimizer={_target_:torch.optim.SGD,_partial_:true,lr:0.1}",
    "-m hydra/launcher=joblib hydra.launcher.n_jobs=2 seed=0,1",
    "seeds=[0,1]",
    "-m seed=range(0,3) distiller=glob(logit*)",
    "-m distiller.temperature=choice(1,2) student.hidden=[8],[16]",
    "-m distiller=logit_kd,dkd distiller.temperature=1,4",
    "optimizer=sgd optimizer.lr=1e-2 optimizer.nesterov=true",
    "optimizer.betas=[0.9,0.99]",
    "callbacks=[early_stopping,lr_monitor] logger=csv",
    "callbacks=[model_summary,model_checkpoint] logger=[csv,tensorboard]",
    "debug=default",
    "debug=limit",
    "debug=profiler",
    "debug=[overfit,profiler]",
    "+callbacks.bar._target_=pytorch_lightning.callbacks.RichModelSummary",
    "distiller=feature_kd distiller.layers={net.0:net.0}",
    "data=arrays data.train_file=a.npz data.test_file=b.npz",
    "distiller=supervised teacher=null",
    "experiment=hinton2015_mnist debug=fast",
    "distiller.loss_weights={soft:1,hard:0}",
    "trainer=ddp trainer.devices=2",
    "--cfg job --resolve distiller=dkd",
    "++distiller.temperature=3",
]


@pytest.mark.parametrize("line", CORRECT)
def test_a_correct_command_line_is_not_refused(line):
    assert check(line).mistakes == []


def test_a_key_that_is_only_in_the_signature_may_be_set(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    good = f"--config-dir {EXAMPLE}/conf distiller=my_dkd distiller.temperature=2 distiller.micro_batch_size=8"
    result = check(good)
    assert result.mistakes == []
    assert result.overrides[1:] == ["++distiller.temperature=2", "++distiller.micro_batch_size=8"]
    bad = check(f"--config-dir {EXAMPLE}/conf distiller=my_dkd distiller.temprature=2").mistakes
    assert "did you mean 'temperature'?" in bad[0]


def test_a_mapping_may_bring_keys_that_the_file_lacks():
    for key in (
        "distiller.loss_weights={z1:0.5}",
        "teacher_free={warmup:0.5}",
        "teacher_training.data={train_size:100}",
    ):
        result = check(f"distiller=semi_auxiliary {key}")
        assert result.mistakes == []
        assert result.overrides == ["distiller=semi_auxiliary", f"++{key}"]
        config.compose_all(result.overrides, None)


def test_a_hidden_file_and_a_broken_file_are_named(tmp_path):
    (tmp_path / "distiller").mkdir()
    (tmp_path / "distiller" / "dkd.yaml").write_text("_target_: a.B\n")
    (found,) = check(f"--config-dir {tmp_path}").mistakes
    assert "is hidden by the packaged distiller/dkd.yaml" in found
    (tmp_path / "distiller" / "dkd.yaml").rename(tmp_path / "distiller" / "mine.yaml")
    (tmp_path / "distiller" / "mine.yaml").write_text("a: [1\n")
    assert len(check(f"--config-dir {tmp_path} distiller=mine").mistakes) == 1


def test_hydra_callbacks_in_a_file_are_refused(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nhydra:\n  callbacks:\n    x:\n      _target_: os.system\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    assert "hydra.callbacks are rejected" in check(f"--config-dir {tmp_path} experiment=mine").mistakes[0]


def test_missing_values_are_excused_where_nothing_is_built():
    assert check("data=arrays distiller=feature_kd", complete=False).mistakes == []


@pytest.mark.parametrize("target", ["torch.load", "torch.optim.Adamax", "os.system", "kdzoo.models.MLP.forward"])
def test_only_exact_names_are_built(target, tmp_path):
    cfg = config.compose(f"+callbacks.x._target_={target}", "seed=0", f"output_dir={tmp_path}/run")
    with pytest.raises(ConfigError, match="is not in any config folder"):
        kdzoo.run(cfg)
    assert not (tmp_path / "run").exists()
    assert not any("any config folder" in one for one in validate.mistakes(cfg, {*config.packaged_targets(), target}))


def test_run_in_a_notebook_names_all_mistakes_and_writes_nothing(tmp_path):
    cfg = config.compose("student.hiden=[3]", "distiller.temperature=hot", "foo=1", f"output_dir={tmp_path}/run")
    with pytest.raises(ConfigError) as error:
        kdzoo.run(cfg)
    assert len(str(error.value).splitlines()) == 3
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["optimizer", "scheduler"])
def test_run_names_a_part_without_a_class(key, tmp_path):
    cfg = config.compose(f"teacher_training.{key}.lr=0.002", f"output_dir={tmp_path}/run")
    with pytest.raises(ConfigError, match=rf"^teacher_training\.{key} has no _target_, .* got {{'lr': 0\.002}}$"):
        kdzoo.run(cfg)
    assert not (tmp_path / "run").exists()


def test_run_names_a_file_that_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"the configuration file '.*nowhere\.yaml' does not exist"):
        kdzoo.run(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"callbacks": "early_stopping"}, "callbacks must be a mapping of names"),
        (
            {"callbacks": [{"_target_": "pytorch_lightning.callbacks.LearningRateMonitor"}]},
            "callbacks must be a mapping",
        ),
        ({"logger": ["csv"]}, "logger must be a mapping of names"),
        ({"trainer": {"log_every_n_steps": 0}}, "trainer.log_every_n_steps must be at least 1 or null, got 0"),
    ],
)
def test_run_names_values_that_would_fail_later(changes, message, tmp_path):
    settings = OmegaConf.to_container(config.compose(f"output_dir={tmp_path}/run"), resolve=True)
    trainer = settings["trainer"] | changes.get("trainer", {})
    with pytest.raises(ConfigError, match=f"^{message}"):
        kdzoo.run({**settings, **changes, "trainer": trainer})


@pytest.mark.parametrize("name", ["wandb", "mlflow", "tensorboard"])
def test_a_logger_without_its_package_is_refused_before_anything_is_built(name, monkeypatch):
    monkeypatch.setattr(validate, "find_spec", lambda package: None)
    lines = check(f"logger={name}").mistakes
    assert lines == [f"logger.{name} needs the package {name}, which is not installed: pip install 'kdzoo[{name}]'"]


def test_a_folder_with_the_name_of_a_package_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "a_logger_s_files").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not validate._is_installed("a_logger_s_files")
    (tmp_path / "a_package.py").write_text("")
    assert validate._is_installed("a_package")


def test_a_mistake_in_the_defaults_of_a_file_does_not_hide_the_others(tmp_path):
    (tmp_path / "distiller").mkdir()
    (tmp_path / "distiller" / "bad.yaml").write_text("defaults: [dkdd]\ntemperature: 2.0\n")
    line = overrides.parse(
        ["--config-dir", str(tmp_path), "distiller=bad", "distiller.temperature=3", "student.hiden=[8]", "seed=-1"]
    )
    first, *others = overrides.check(line).mistakes
    assert first == (
        f"distiller=bad: {config.no_such_choice('distiller', 'dkdd', config.groups(tmp_path)['distiller'])}"
    )
    assert others == [
        "seeds must be >= 0, got -1",
        "student.hiden is not an argument of kdzoo.models.MLP; did you mean 'hidden'?",
    ]
