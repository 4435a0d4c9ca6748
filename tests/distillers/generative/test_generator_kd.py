"""Distillation of a generator on the teacher's noise."""

import copy
from functools import partial

import pytest
import torch

from kdzoo.data import Digits
from kdzoo.distillers import GeneratorKD
from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Graph, Latent, Normal, Target
from kdzoo.models.hvae import Perceptron
from tests.distillers.generative.test_adversarial import gan

JOINT = {"feature": 1.0, "generator": 0.5}


class OneImage(Graph):
    """A graph with one target, an image."""

    def as_data(self, values):
        return values["image"]


def batch(n=5):
    torch.manual_seed(1)
    return {"input": torch.empty(n, 0), "noise.z": torch.randn(n, 3)}


def digits_of_all_classes():
    data = Digits(labels_per_class=None, batch_size=64)
    data.setup()
    return data


def test_a_copy_of_the_teacher_has_no_distance():
    teacher = gan(norm=None)
    terms = GeneratorKD(copy.deepcopy(teacher), teacher, loss_weights=JOINT).losses(batch())
    assert list(terms) == ["pixel", "feature", "generator", "real", "generated", "penalty"]
    assert not terms["pixel"].any()
    assert not terms["feature"].any()


def test_the_terms_follow_their_definitions():
    student, teacher = gan(width=2).eval(), gan().eval()
    distiller = GeneratorKD(student, teacher, loss_weights=JOINT)
    terms, noise = distiller.eval().losses(batch()), {"z": batch()["noise.z"]}
    ours, theirs = student.samples(noise), teacher.samples(noise)
    torch.testing.assert_close(terms["pixel"], (ours - theirs).square().mean((1, 2, 3)))
    features = [teacher.discriminator.features(samples) for samples in (ours, theirs)]
    torch.testing.assert_close(terms["feature"], (features[0] - features[1]).square().mean(1))
    # Before the first step the discriminator is the teacher's.
    torch.testing.assert_close(terms["generator"], -torch.log(torch.sigmoid(teacher.discriminator(ours))))
    torch.testing.assert_close(terms["real"], -torch.log(torch.sigmoid(teacher.discriminator(theirs))))
    torch.testing.assert_close(terms["generated"], -torch.log(torch.sigmoid(-teacher.discriminator(ours))))
    real = theirs.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(teacher.discriminator(real).sum(), real)
    torch.testing.assert_close(terms["penalty"], gradient.square().sum((1, 2, 3)))


def test_a_penalty_without_a_weight_is_not_computed():
    distiller = GeneratorKD(gan(width=2), gan(), loss_weights={**JOINT, "penalty": 0.0})
    assert "penalty" not in distiller.losses(batch())


@pytest.mark.parametrize("joint", [False, True])
def test_the_student_learns_from_noise_alone(joint, fit):
    teacher, student = gan(norm=None, average=0.0), gan(width=2)
    with torch.no_grad():  # initial weights are so small that all samples are nearly the same
        for parameter in teacher.targets()["image"].parameters():
            parameter *= 4
    teacher.targets()["image"].conditional.net.average.after_step()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    data = digits_of_all_classes()
    adam = partial(torch.optim.Adam, lr=1e-2)
    distiller = GeneratorKD(
        student, teacher, loss_weights={"generator": 0.01} if joint else {}, optimizer=adam, opponent_lr=0.05
    )
    distances = []
    for _ in range(2):
        distances.append(float(distiller.eval().losses(batch(64))["pixel"].mean()))
        if len(distances) == 1:
            fit(distiller.train(), distiller.transfer_set(data), epochs=4)
    assert distances[1] < 0.5 * distances[0]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_without_a_joint_loss_no_discriminator_is_trained():
    distiller = GeneratorKD(gan(width=2), gan())
    trained = {id(parameter) for parameter in distiller.trainable_parameters()}
    generator = distiller.student.targets()["image"].conditional.net.network
    assert trained == {id(parameter) for parameter in generator.parameters()}


@pytest.mark.parametrize("joint", [False, True])
def test_the_exported_discriminator_is_the_teachers_or_was_trained_from_it(joint, fit):
    student, teacher = gan(width=2), gan()
    weights = [copy.deepcopy(teacher.discriminator.state_dict())]
    distiller = GeneratorKD(student, teacher, loss_weights=JOINT if joint else {})
    weights.append(copy.deepcopy(student.discriminator.state_dict()))
    fit(distiller, distiller.transfer_set(digits_of_all_classes()), epochs=1)
    weights.append(student.discriminator.state_dict())
    started, trained = (
        all(torch.equal(value, weights[0][name]) for name, value in others.items()) for others in weights[1:]
    )
    assert started
    assert trained is not joint
    assert all(torch.equal(value, weights[0][name]) for name, value in teacher.discriminator.state_dict().items())
    assert "discriminator" not in distiller.notes


def test_a_discriminator_of_other_sizes_stays_untrained_and_is_named():
    student = gan(discriminator_width=3)
    before = copy.deepcopy(student.discriminator.state_dict())
    distiller = GeneratorKD(student, gan(), loss_weights=JOINT)
    assert distiller.opponent() is distiller.discriminator
    assert "sizes are not the teacher's" in distiller.notes["discriminator"]
    assert all(torch.equal(value, before[name]) for name, value in student.discriminator.state_dict().items())


def test_the_joint_loss_has_the_form_that_is_asked_for():
    models = gan(width=2), gan()
    terms = GeneratorKD(*models, loss_weights=JOINT, form="hinge").eval().losses(batch())
    noise = {"z": batch()["noise.z"]}
    ours, theirs = (models[i].eval().discriminator(models[i].samples(noise)) for i in (0, 1))
    torch.testing.assert_close(terms["generator"], -models[1].discriminator(models[0].samples(noise)))
    torch.testing.assert_close(terms["real"], (1 - theirs).clamp_min(0))
    torch.testing.assert_close(terms["generated"], (1 + ours).clamp_min(0))
    with pytest.raises(ConfigError, match=r"form must be one of .*, got 'wasserstein'"):
        GeneratorKD(gan(), gan(), form="wasserstein")


def test_classes_are_drawn_for_a_model_with_a_condition():
    models = [gan(conditional=True, num_classes=4, width=width) for width in (2, 4)]
    data = digits_of_all_classes()
    distiller = GeneratorKD(*models)
    drawn = next(iter(distiller.transfer_set(data).train_dataloader()))
    assert drawn["given.label"].sum(0).min() > 5
    assert distiller.losses(drawn)["pixel"].shape == (64,)


def test_a_model_without_a_discriminator_can_teach_by_its_samples():
    image = Target("image", Normal((1, 8, 8), scale=0.5), Perceptron([3, 8, 64], (1, 8, 8)), "z")
    teacher, student = OneImage([Latent("z", Normal((3,))), image]), gan()
    assert GeneratorKD(student, teacher).losses({"input": torch.zeros(2, 0)})["pixel"].shape == (2,)
    with pytest.raises(ConfigError, match=r"loss_weights.feature needs a teacher with a discriminator.*got OneImage"):
        GeneratorKD(student, teacher, loss_weights={"feature": 1.0})


def test_steps_of_a_discriminator_that_is_not_trained_are_refused():
    with pytest.raises(ConfigError, match=r"opponent_steps must be 1 where loss_weights.generator is 0, .* got 2"):
        GeneratorKD(gan(), gan(), opponent_steps=2)
    GeneratorKD(gan(), gan(), opponent_steps=2, loss_weights=JOINT)


def test_a_discriminator_of_codes_measures_no_samples():
    teacher = gan(encoder=True, discriminated="code")
    with pytest.raises(
        ConfigError, match=r"feature needs a teacher with a discriminator of samples .* with one of codes"
    ):
        GeneratorKD(gan(), teacher, loss_weights={"feature": 1.0})


def test_a_student_of_bits_has_the_gradient_of_their_probabilities():
    bits = {"network": "mlp", "output": "bits"}
    distiller = GeneratorKD(gan(width=2, **bits), gan(**bits))
    term = distiller.losses({"input": torch.zeros(6, 0)})["pixel"]
    assert set(term.detach().mul(64).round(decimals=3).frac().tolist()) == {0.0}  # a share of 64 bits
    term.sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in distiller.student.parameters())


def test_noise_of_another_size_is_refused():
    with pytest.raises(ConfigError, match=r"the student's noise must have .*\{'z': \(3,\)\}, got \{'z': \(4,\)\}"):
        GeneratorKD(gan(latent=4), gan())
    with pytest.raises(ConfigError, match=r"the student's inputs must have .*label"):
        GeneratorKD(gan(), gan(conditional=True, num_classes=4))
