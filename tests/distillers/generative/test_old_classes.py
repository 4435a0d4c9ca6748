"""What is done for the classes of earlier tasks, by itself; the distiller is in test_continual."""

import pytest
import torch

from kdzoo.distillers.generative.batch_noise import pack_noise, unpack_noise
from kdzoo.distillers.generative.node_divergences import NodeDivergences
from kdzoo.distillers.generative.old_classes import OLD_CLASS, DistilledOldClasses, OldClasses, make_old_classes
from kdzoo.errors import ConfigError
from kdzoo.graphical_models.paired import paired_rollout
from kdzoo.models import HVAE

OLD = torch.tensor([4, 1, 2])


def model(seed=0):
    torch.manual_seed(seed)
    return HVAE(in_shape=(7,), num_classes=6, latents=[4, 3], width=8, conditional=True)


def make(name):
    return make_old_classes(name, NodeDivergences("mmd"))


def drawn_names(name):
    return set(make(name).draw(model(), 5, torch.Generator().manual_seed(0)))


def test_each_way_draws_the_noise_that_it_needs():
    rollout = {OLD_CLASS, "old_noise.z2", "old_noise.z1"}
    assert drawn_names("nothing") == set()
    assert drawn_names("distil") == rollout
    assert drawn_names("replay") == rollout | {"replayed_noise.z2", "replayed_noise.z1"}


def test_nothing_has_no_terms_and_only_distillation_weights_latents():
    nothing, student = make("nothing"), model()
    assert nothing.terms(student, model(1), {"input": torch.zeros(3, 7)}, OLD) == {}
    assert [make(name).are_used for name in ("nothing", "distil", "replay")] == [False, True, True]
    assert make("distil").weighted_latents(student) == ["z2", "z1"]
    assert make("replay").weighted_latents(student) == nothing.weighted_latents(student) == []


@pytest.mark.parametrize(("uniform", "label"), [(0.0, 4), (0.34, 1), (0.67, 2), (1.0, 2)])
def test_a_uniform_number_chooses_one_of_the_old_classes(uniform, label):
    way, student, previous = make("distil"), model(), model(1)
    noise = student.noise(1)
    batch = {"input": torch.zeros(1, 7), OLD_CLASS: torch.tensor([uniform]), **pack_noise(noise, "old_")}
    expected = paired_rollout(previous, student, noise, {"label": torch.eye(6)[[label]]})
    terms = way.terms(student, previous, batch, OLD)
    for name, value in NodeDivergences("mmd")(expected, student).items():
        torch.testing.assert_close(terms[name], value)


@pytest.mark.parametrize("name", ["distil", "replay"])
def test_what_a_batch_lacks_is_drawn(name):
    torch.manual_seed(0)
    terms = make(name).terms(model(), model(1), {"input": torch.zeros(5, 7)}, OLD)
    assert {value.shape for value in terms.values()} == {(5,)}
    assert len({float(value) for value in terms["image"].detach()}) == 5


def test_replayed_samples_are_inferred_with_noise_of_their_own():
    way, student, previous = make("replay"), model(), model(1)
    batch = {"input": torch.zeros(5, 7), **way.draw(student, 5, torch.Generator().manual_seed(0))}
    target = OLD[(batch[OLD_CLASS] * 3).long()]
    samples = previous.eval().samples(unpack_noise(batch, "old_"), {"label": torch.eye(6)[target]}).detach()
    expected = student.negative_elbo({"input": samples, "target": target}, unpack_noise(batch, "replayed_"))
    terms = way.terms(student, previous, batch, OLD)
    assert all(torch.equal(terms[name], value) for name, value in expected.items())


def test_names_and_classes():
    assert type(make("nothing")) is OldClasses
    assert make("distil").divergences == NodeDivergences("mmd")
    assert isinstance(make("distil"), DistilledOldClasses)
    with pytest.raises(ConfigError, match=r"^old must be one of distil, replay, nothing, got 'forget'$"):
        make("forget")
