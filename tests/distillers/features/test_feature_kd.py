"""Feature distillation: the loss for every kind of layer, the projections, and which weights are exported."""

import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kdzoo
from kdzoo.core.batch import IGNORE
from kdzoo.distillers import FeatureKD
from kdzoo.errors import ConfigError
from kdzoo.models import MLP, Ensemble, ResNet
from tests.reference import distillers as reference
from tests.reference import hidden_features as features

CLASSES = 3
PER_STAGE = {f"stages.{i}": f"stages.{i}" for i in range(3)}


class Tokens(nn.Module):
    """A sequence classifier with one hidden layer, ``[batch, time, 4]`` to ``[batch, time, classes]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(4, width), nn.Linear(width, CLASSES)

    def forward(self, input: Tensor) -> Tensor:
        return self.head(self.hidden(input).tanh())


class Recurrent(nn.Module):
    """A sequence classifier whose hidden layer returns a tuple, as recurrent modules do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.head = nn.GRU(4, width, batch_first=True), nn.Linear(width, CLASSES)

    def forward(self, input: Tensor) -> Tensor:
        return self.head(self.hidden(input)[0])


class WithIdleLayer(nn.Module):
    """A model with a module that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(4, CLASSES), nn.Linear(4, 8)

    def forward(self, input: Tensor) -> Tensor:
        return self.used(input)


def resnet(width: int, depth: int = 8, size: int = 8) -> nn.Module:
    torch.manual_seed(width + depth)
    return ResNet(in_shape=(3, size, size), num_classes=CLASSES, depth=depth, width=width).eval()


def perceptron(width: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MLP(in_shape=(4,), num_classes=CLASSES, hidden=[width, width])


def images() -> dict[str, Tensor]:
    return {"input": torch.randn(5, 3, 8, 8), "target": torch.tensor([0, 2, IGNORE, 1, IGNORE])}


def vectors(n: int = 5) -> dict[str, Tensor]:
    return {"input": torch.randn(n, 4), "target": torch.arange(n) % CLASSES}


def prepared(distiller: FeatureKD, batch: dict[str, Tensor]) -> FeatureKD:
    distiller.eval().dry_run(batch)
    return distiller


def stages(model: nn.Module, input: Tensor) -> list[np.ndarray]:
    """The outputs of the three stages of a residual network, without hooks."""
    hidden, outputs = model.stem(input), []
    with torch.no_grad():
        for stage in model.stages:
            hidden = stage(hidden)
            outputs.append(hidden.double().numpy())
    return outputs


def arrays(module: nn.Module) -> list[np.ndarray]:
    return [parameter.detach().double().numpy() for parameter in module.parameters()]


def assert_close(value: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-6, atol=1e-6)


def test_hint_of_feature_maps_through_convolutions():
    batch, student, teacher = images(), resnet(4), resnet(8)
    distiller = prepared(FeatureKD(student, teacher, layers=PER_STAGE), batch)
    assert [tuple(m.weight.shape) for m in distiller.projections] == [(8, 4, 1, 1), (16, 8, 1, 1), (32, 16, 1, 1)]
    pairs = zip(distiller.projections, stages(student, batch["input"]), stages(teacher, batch["input"]), strict=True)
    differences = [
        features.hint_mse(reference.pointwise(student_map, *arrays(projection)), teacher_map)
        for projection, student_map, teacher_map in pairs
    ]
    assert_close(distiller.losses(batch)["feature"], np.mean(differences, axis=0))


def test_attention_of_feature_maps_needs_no_projection():
    batch, student, teacher = images(), resnet(4), resnet(8, depth=14)
    distiller = prepared(FeatureKD(student, teacher, layers=PER_STAGE, match="attention"), batch)
    assert not list(distiller.projections)
    pairs = zip(stages(student, batch["input"]), stages(teacher, batch["input"]), strict=True)
    assert_close(
        distiller.losses(batch)["feature"], np.mean([features.attention_transfer(*pair) for pair in pairs], axis=0)
    )


def test_soft_and_hard_terms_are_those_of_logit_distillation():
    batch, student, teacher = images(), resnet(4), resnet(8)
    terms = prepared(FeatureKD(student, teacher, layers={"stem": "stem"}, temperature=3.0), batch).losses(batch)
    with torch.no_grad():
        s, t = (model(batch["input"]).double().numpy() for model in (student, teacher))
    target = batch["target"].numpy()
    assert_close(terms["soft"], reference.soft(s, t, np.ones(5, bool), 3.0))
    assert_close(terms["hard"], reference.hard(s, target, target != IGNORE))
    assert [len(value) for value in terms.values()] == [5, 5, 3]


@pytest.mark.parametrize(
    ("student_path", "teacher_path"), [("layers.0", "layers.1"), ("layers.1", "layers.0"), ("head", "head")]
)
def test_hint_of_vectors_by_any_pair_of_paths(student_path, teacher_path):
    batch, student, teacher = vectors(), perceptron(6), perceptron(9, seed=1)
    distiller = prepared(FeatureKD(student, teacher, layers={student_path: teacher_path}), batch)

    def hidden(model: nn.Module, path: str) -> np.ndarray:
        order = {"layers.0": 1, "layers.1": 2, "head": 3}[path]
        chain = nn.Sequential(*[*model.layers, model.head][:order])
        with torch.no_grad():
            return chain(batch["input"]).double().numpy()

    projected, (projection,) = hidden(student, student_path), distiller.projections
    assert isinstance(projection, nn.Identity if student_path == "head" else nn.Linear)
    if student_path != "head":
        projected = reference.linear(projected, *arrays(projection))
    assert_close(distiller.losses(batch)["feature"], features.hint_mse(projected, hidden(teacher, teacher_path)))


@pytest.mark.parametrize("model", [Tokens, Recurrent])
def test_hint_of_sequences(model):
    batch = {"input": torch.randn(3, 5, 4), "target": torch.arange(15).reshape(3, 5) % CLASSES}
    distiller = prepared(FeatureKD(model(6), model(7), layers={"hidden": "hidden"}), batch)
    (projection,) = distiller.projections
    assert isinstance(projection, nn.Linear)
    terms = distiller.losses(batch)
    assert [tuple(value.shape) for value in terms.values()] == [(3,), (3, 5), (15,)]

    def hidden(module: nn.Module) -> np.ndarray:
        with torch.no_grad():
            output = module(batch["input"])
        return (output[0] if isinstance(output, tuple) else output).double().numpy()

    projected = reference.linear(hidden(distiller.student.hidden), *arrays(projection))
    assert_close(terms["feature"], features.hint_mse(projected, hidden(distiller.teacher.hidden)))


def test_gradient_reaches_student_and_projections_only():
    batch = vectors()
    distiller = prepared(FeatureKD(perceptron(6), perceptron(9), layers={"layers.0": "layers.0"}), batch)
    distiller.losses(batch)["feature"].sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in distiller.projections.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in distiller.student.layers[0].parameters())
    assert all(parameter.grad is None for parameter in distiller.student.head.parameters())
    assert all(parameter.grad is None for parameter in distiller.teacher.parameters())


def test_projections_are_trained_and_saved_beside_the_student(tmp_path):
    distiller = FeatureKD(perceptron(6), perceptron(9), layers={"layers.0": "layers.0"})
    data = TensorDataset(*vectors(32).values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_steps=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        before = {}
        build = distiller.configure_optimizers

        def copy_weights_and_build():
            before.update({name: value.clone() for name, value in distiller.projections.state_dict().items()})
            return build()

        distiller.configure_optimizers = copy_weights_and_build
        trainer.fit(distiller, DataLoader(data, batch_size=16))
    assert before
    assert not any(torch.equal(before[name], value) for name, value in distiller.projections.state_dict().items())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt")["state_dict"]
    assert {name.split(".")[0] for name in saved} == {"student", "projections"}


def test_exported_student_has_no_projections(tmp_path):
    from kdzoo.config import compose
    from kdzoo.runs import pipeline

    cfg = compose(
        "distiller=feature_kd",
        "distiller.layers={layers.0:layers.0}",
        "student.hidden=[16]",
        "teacher.hidden=[24]",
        "trainer.max_epochs=1",
        "seed=0",
        "control=false",
        f"output_dir={tmp_path / 'run'}",
        f"cache_dir={tmp_path / 'cache'}",
    )
    pipeline.run(cfg)
    student = kdzoo.load_student(tmp_path / "run" / "student")
    new = MLP(in_shape=(1, 8, 8), num_classes=10, hidden=[16])
    assert student.state_dict().keys() == new.state_dict().keys()


def test_unknown_match_is_refused():
    with pytest.raises(ConfigError, match="match must be one of"):
        FeatureKD(perceptron(6), perceptron(9), layers={"head": "head"}, match="cosine")


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_module_that_is_not_called_is_refused(role):
    models = {"student": perceptron(6), "teacher": perceptron(9), role: WithIdleLayer()}
    paths = {name: "idle" if name == role else "head" for name in ("student", "teacher")}
    distiller = FeatureKD(models["student"], models["teacher"], layers={paths["student"]: paths["teacher"]})
    with pytest.raises(ConfigError, match="'idle' of WithIdleLayer was not called"):
        distiller.dry_run(vectors())


def test_hint_of_other_spatial_size_is_refused():
    distiller = FeatureKD(resnet(4), resnet(4), layers={"stages.1": "stages.2"})
    with pytest.raises(ConfigError, match=r"student layer of shape \(5, 8, 4, 4\).*\(5, 16, 2, 2\).*width only"):
        distiller.dry_run(images())


def test_attention_of_vectors_is_refused():
    distiller = FeatureKD(perceptron(6), perceptron(9), layers={"layers.0": "layers.0"}, match="attention")
    with pytest.raises(ValueError, match=r"feature maps of shape \(b, c, h, w\), got \(5, 6\)"):
        distiller.dry_run(vectors())


def test_member_of_an_ensemble_as_hint():
    batch, members = vectors(), [perceptron(9, seed=1), perceptron(9, seed=2)]
    distiller = prepared(FeatureKD(perceptron(9), Ensemble(members), layers={"layers.0": "members.1.layers.0"}), batch)
    with torch.no_grad():
        hidden, hint = (m.layers[0](batch["input"]).double().numpy() for m in (distiller.student, members[1]))
        mean = reference.mean_of_probabilities([m(batch["input"]).double().numpy() for m in members])
        logits = distiller.student(batch["input"]).double().numpy()
    terms = distiller.losses(batch)
    assert_close(terms["feature"], features.hint_mse(hidden, hint))
    assert_close(terms["soft"], reference.soft(logits, mean, np.ones(5, bool), distiller.temperature))
