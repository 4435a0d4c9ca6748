"""Distillation of autoencoders: the terms against their formulas, and the map of the codes."""

import pytest
import torch

from kdzoo.distillers import AutoencoderKD
from kdzoo.models import Autoencoder


def model(seed=0, **options):
    torch.manual_seed(seed)
    return Autoencoder(**{"in_shape": (1, 8, 8), "code": 3, "width": 6, **options})


def batch(n=5):
    torch.manual_seed(9)
    return {"input": torch.rand(n, 1, 8, 8)}


def test_the_terms_of_distillation_are_their_formulas():
    student, teacher = model(), model(1, width=9)
    distiller = AutoencoderKD(student, teacher)
    distiller.prepare(batch())
    assert not distiller.code_map  # codes of one size are compared as they are
    images = batch()["input"]
    terms = distiller.losses(batch())
    code, teacher_code = student.encode(images).double(), teacher.encode(images).double()
    variance = (teacher_code - teacher_code.mean(0)).square().mean()
    torch.testing.assert_close(terms["code"], (code - teacher_code).square().mean(1) / variance, rtol=1e-5, atol=1e-9)
    expected = (student(images).double() - teacher(images).double()).square().mean((1, 2, 3))
    torch.testing.assert_close(terms["reconstruction"], expected)
    torch.testing.assert_close(terms["data"], (student(images).double() - images).square().mean((1, 2, 3)))


@pytest.mark.parametrize(
    ("student_options", "teacher_options", "sizes"),
    [({"code": 2}, {}, (2, 3)), ({"network": "conv", "code": 1}, {}, (4, 3)), ({}, {"network": "conv"}, (3, 12))],
)
def test_codes_of_other_sizes_go_through_a_learned_linear_map(student_options, teacher_options, sizes):
    student, teacher = model(**student_options), model(1, **teacher_options)
    distiller = AutoencoderKD(student, teacher)
    distiller.prepare(batch())
    (linear,) = distiller.code_map
    assert (linear.in_features, linear.out_features) == sizes
    images = batch()["input"]
    difference = linear(student.encode(images).flatten(1)) - teacher.encode(images).flatten(1)
    expected = difference.double().square().mean(1) / distiller.code_variance
    torch.testing.assert_close(distiller.losses(batch())["code"], expected, rtol=1e-5, atol=1e-9)
    trained = {id(parameter) for parameter in distiller.trainable_parameters()}
    assert {id(parameter) for parameter in linear.parameters()} <= trained
    assert not trained & {id(parameter) for parameter in teacher.parameters()}


def test_the_term_of_codes_does_not_depend_on_the_scale_of_the_teachers_code():
    student, teacher = model(), model(1, network="linear")
    values = []
    for _ in range(2):
        distiller = AutoencoderKD(student, teacher)
        distiller.prepare(batch())
        values.append(distiller.losses(batch())["code"])
        with torch.no_grad():
            for layer in (*teacher.encoder.layers, *student.encoder.layers[-1:]):
                for parameter in layer.parameters():
                    parameter.mul_(10)
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-9)


def test_the_variance_of_a_single_image_is_replaced_by_one():
    distiller = AutoencoderKD(model(), model(1))
    distiller.prepare(batch(1))
    assert float(distiller.code_variance) == 1


def test_the_variance_is_in_the_checkpoint():
    distiller, other = (AutoencoderKD(model(), model(1)) for _ in range(2))
    distiller.prepare(batch())
    other.load_state_dict(distiller.state_dict())
    assert float(other.code_variance) == float(distiller.code_variance) != 1
