"""The paired rollout: shared noise, the source of the latents, and incompatible models."""

import copy

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Bernoulli, Delta, Graph, Latent, Normal, Target
from kdzoo.graphical_models.paired import (
    check_compatible,
    node_divergence,
    paired_rollout,
    rollout_student,
    rollout_teacher,
)


def graph(seed=0, *, z1=4, family=None, name="y"):
    torch.manual_seed(seed)
    return Graph(
        [
            Latent("z2", Normal((3,), scale=1.0)),
            Latent("z1", Normal((z1,)), nn.Linear(3, 2 * z1), "z2"),
            Target(name, family or Normal((5,), scale=0.5), nn.Linear(z1, 5), "z1"),
        ]
    ).double()


def test_the_student_reads_its_own_latents_or_the_teachers():
    teacher, student = graph(0), graph(1)
    noise = teacher.noise(6)
    surrogate, local = (paired_rollout(teacher, student, noise, latents_from=who) for who in ("student", "teacher"))
    assert torch.equal(local.student.values["z1"], local.teacher.values["z1"])
    assert not torch.equal(surrogate.student.values["z1"], surrogate.teacher.values["z1"])
    net = student.entries[2].conditional.net
    assert torch.equal(surrogate.student.distributions["y"].loc, net(surrogate.student.values["z1"]))
    assert torch.equal(local.student.distributions["y"].loc, net(surrogate.teacher.values["z1"]))
    raw = student.entries[1].conditional.net(noise["z2"].double())
    expected = Normal((4,)).sample(raw, noise["z1"].double())
    assert torch.equal(surrogate.student.values["z1"], expected)


def test_some_samples_take_the_teachers_latents():
    teacher, student = graph(0), graph(1)
    noise = teacher.noise(8)
    which = torch.arange(8) % 2 == 0
    trace = rollout_teacher(teacher, noise)
    mixed = rollout_student(student, trace, noise, teacher_latents={"z1": which})
    own = rollout_student(student, trace, noise)
    assert torch.equal(mixed.values["z1"][which], trace.values["z1"][which])
    assert torch.equal(mixed.values["z1"][~which], own.values["z1"][~which])


def test_the_teacher_keeps_its_mode_and_gets_no_gradient():
    teacher, student = graph(0), graph(1)
    teacher.train()
    pair = paired_rollout(teacher, student, teacher.noise(4))
    node_divergence(pair, "y", "kl", "sum").sum().backward()
    assert teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_several_students_share_one_teacher_rollout():
    teacher = graph(0)
    noise = teacher.noise(4)
    trace = rollout_teacher(teacher, noise)
    for seed in (1, 2):
        alone = paired_rollout(teacher, graph(seed), noise)
        assert torch.equal(alone.student.raw["y"], rollout_student(graph(seed), trace, noise).raw["y"])


@pytest.mark.parametrize(
    ("student", "words"),
    [
        (graph(name="x"), r"targets are \['y'\], the student's \['x'\]"),
        (graph(family=Bernoulli((5,))), r"node 'y': the teacher has Normal \(5,\), the student Bernoulli \(5,\)"),
        (
            graph(z1=2),
            r"latent 'z1' has shape \(4,\) in the teacher and \(2,\) in the student; .* set distiller\.noise_map",
        ),
    ],
    ids=["name", "family", "shape"],
)
def test_incompatible_models_are_refused(student, words):
    with pytest.raises(ConfigError, match=words):
        check_compatible(graph(), student)


def test_the_error_names_the_latent_without_a_partner():
    student = Graph([Latent("z1", Normal((4,))), Target("y", Normal((5,), scale=0.5), nn.Linear(4, 5), "z1")])
    with pytest.raises(ConfigError, match="latent 'z2' of the teacher has no partner"):
        check_compatible(graph(), student)
    assert check_compatible(graph(), student, allow_unpaired=True) == ["z1"]


def test_the_error_of_an_undefined_divergence_names_the_node():
    student = graph(family=Delta((5,)))
    pair = paired_rollout(student, copy.deepcopy(student), student.noise(3))
    with pytest.raises(ConfigError, match="node 'y': kl between deltas is infinite"):
        node_divergence(pair, "y", "kl", "sum")
