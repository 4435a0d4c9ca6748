"""The distiller of graphical models: its terms, latent sources, inputs, calibration, estimators, controls, errors."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from kdzoo.data import Digits
from kdzoo.distillers import SemiAuxiliary
from kdzoo.distillers.generative.batch_noise import pack_inputs, pack_noise, unpack_inputs, unpack_noise
from kdzoo.distillers.generative.latent_sources import LATENT_CHOICE
from kdzoo.errors import ConfigError, DataError
from kdzoo.graphical_models import Delta, Graph, Latent, Normal, Target
from kdzoo.graphical_models.expectation import expected_divergences
from kdzoo.graphical_models.marginal import marginal_kl
from kdzoo.graphical_models.paired import node_divergence, paired_rollout
from kdzoo.models import HVAE
from tests.distillers.generative.cases import at_step, binary_chain, conditional, noise_batch, normal_chain


def test_the_terms_are_the_divergences_of_the_nodes():
    teacher, student = normal_chain(0), normal_chain(1)
    noise = teacher.noise(6)
    terms = SemiAuxiliary(copy.deepcopy(student), teacher).losses(noise_batch(noise))
    pair = paired_rollout(teacher, student, noise)
    assert list(terms) == ["y", "z1"]
    assert torch.equal(terms["y"], node_divergence(pair, "y", "kl", "sum"))
    assert torch.equal(terms["z1"], node_divergence(pair, "z1", "w2", "sum"))


@pytest.mark.parametrize("latents_from", ["student", "teacher", "mixed"])
def test_all_terms_of_a_copy_of_the_teacher_are_zero(latents_from):
    teacher = normal_chain()
    terms = SemiAuxiliary(copy.deepcopy(teacher), teacher, latents_from=latents_from).losses(
        noise_batch(teacher.noise(5))
    )
    assert all(bool((value == 0).all()) for value in terms.values())


def test_default_weights_are_lambda_for_latents_and_one_for_targets():
    weights = SemiAuxiliary(normal_chain(1), normal_chain(0), latent_weight=0.3).loss_weights
    assert weights == {"z1": 0.3}
    assert SemiAuxiliary(normal_chain(1), normal_chain(0), loss_weights={"z1": 2.0, "y": 0.5}).loss_weights == {
        "z1": 2.0,
        "y": 0.5,
    }


def test_settings_choose_divergence_and_reduction():
    teacher, student = normal_chain(0), normal_chain(1)
    noise = teacher.noise(6)
    pair = paired_rollout(teacher, student, noise)
    chosen = SemiAuxiliary(student, teacher, divergence="mmd", latent_divergence="kl", reduction="mean")
    terms = chosen.losses(noise_batch(noise))
    assert torch.equal(terms["y"], node_divergence(pair, "y", "mmd", "sum"))
    assert torch.equal(terms["z1"], node_divergence(pair, "z1", "kl", "mean"))


def test_mixed_latents_go_from_the_teachers_to_the_students():
    teacher, student = normal_chain(0), normal_chain(1)
    noise = teacher.noise(64)
    batch = {**noise_batch(noise), LATENT_CHOICE: torch.rand(64)}
    mixed = SemiAuxiliary(student, teacher, latents_from="mixed", mixing=0.5)
    surrogate, local = (
        SemiAuxiliary(student, teacher, latents_from=source).losses(batch)["y"] for source in ("student", "teacher")
    )
    assert torch.equal(at_step(mixed, 0, 100).losses(batch)["y"], local)
    halfway = at_step(mixed, 25, 100).losses(batch)["y"]
    assert torch.equal(halfway, torch.where(batch[LATENT_CHOICE] < 0.5, local, surrogate))
    assert torch.equal(at_step(mixed, 50, 100).losses(batch)["y"], surrogate)


def test_parameters_that_only_infer_are_frozen_and_all_others_get_a_gradient():
    teacher, student = (HVAE(in_shape=(1, 4, 4), latents=[3, 2], width=5) for _ in range(2))
    distiller = SemiAuxiliary(student, teacher)
    inferring = {id(parameter) for parameter in student.inference_parameters()}
    assert inferring
    assert not inferring & {id(parameter) for parameter in distiller.trainable()}
    sum(value.mean() for value in distiller.losses({"input": torch.zeros(3, 0)}).values()).backward()
    assert all(parameter.grad is not None for parameter in distiller.trainable())


def test_inputs_are_drawn_or_those_of_the_data():
    teacher, student = conditional(0), conditional(1)
    noise = teacher.noise(4)
    labels = torch.tensor([0, 2, 1, 2])
    one_hot = nn.functional.one_hot(labels, 3).float()
    batch = {**noise_batch(noise), "target": labels}
    distiller = SemiAuxiliary(student, teacher, inputs="data")
    expected = node_divergence(paired_rollout(teacher, student, noise, {"label": one_hot}), "y", "kl", "sum")
    assert torch.equal(distiller.losses(batch)["y"], expected)
    assert torch.equal(distiller.losses({**noise_batch(noise), **pack_inputs({"label": one_hot})})["y"], expected)
    with pytest.raises(ConfigError, match="node 'label' reads 'target', which the batch lacks"):
        distiller.losses(noise_batch(noise))


@pytest.fixture(scope="module")
def digits():
    data = Digits(labels_per_class=None, batch_size=64)
    data.setup()
    return data


def test_the_transfer_set_is_only_noise_unless_inputs_come_from_the_data(digits):
    teacher, student = conditional(0), conditional(1)
    drawn = next(iter(SemiAuxiliary(student, teacher).transfer_set(digits).train_dataloader()))
    assert set(unpack_noise(drawn)) == {"z"}
    assert unpack_inputs(drawn)["label"].sum(1).tolist() == [1.0] * 64
    assert drawn["input"].shape == (64, 0)
    observed = next(iter(SemiAuxiliary(student, teacher, inputs="data").transfer_set(digits).train_dataloader()))
    assert not unpack_inputs(observed)
    assert {"target", "noise.z"} <= observed.keys()


def test_calibration_counts_a_latent_in_nats_of_the_targets():
    """In the linear case half the mean diagonal of W^T W / scale^2."""
    teacher, student = normal_chain(0), normal_chain(1)
    distiller = SemiAuxiliary(student, teacher, calibrated=True)
    distiller.prepare({})
    weight = teacher.entries[2].conditional.net.weight
    expected = float((weight.T @ weight / 0.25).diagonal().mean() / 2)
    assert float(distiller.calibration[0]) == pytest.approx(expected, rel=0.15)
    assert "z1" in distiller.notes["calibration"]
    noise = teacher.noise(6)
    uncalibrated = SemiAuxiliary(student, teacher, calibrated=False).losses(noise_batch(noise))
    assert torch.allclose(distiller.losses(noise_batch(noise))["z1"], uncalibrated["z1"] * distiller.calibration[0])


def test_a_checkpoint_holds_the_calibration():
    """A distiller that is loaded and not prepared has the same losses as the one that was saved."""
    teacher, student = normal_chain(0), normal_chain(1)
    saved = SemiAuxiliary(student, teacher)
    saved.prepare({})
    loaded = SemiAuxiliary(normal_chain(2), teacher)
    loaded.load_state_dict(saved.state_dict(), strict=True)
    assert not torch.equal(saved.calibration, torch.ones(1))
    assert torch.equal(loaded.calibration, saved.calibration)
    batch = noise_batch(teacher.noise(6))
    assert torch.equal(loaded.losses(batch)["z1"], saved.losses(batch)["z1"])


def test_a_student_with_fewer_latents_learns_by_mapped_noise():
    teacher, student = normal_chain(0), normal_chain(1, z1=2)
    with pytest.raises(ConfigError, match=r"latent 'z1' has shape \(4,\) in the teacher and \(2,\)"):
        SemiAuxiliary(student, teacher)
    distiller = SemiAuxiliary(student, teacher, noise_map="learned")
    assert list(distiller.losses(noise_batch(teacher.noise(3)))) == ["y"]
    assert any(name.startswith("noise_map") for name, p in distiller.named_parameters() if p.requires_grad)
    assert distiller.report_extras.controls == {}
    with pytest.raises(ConfigError, match="latents_from must be student where noise is mapped"):
        SemiAuxiliary(student, teacher, noise_map="first", latents_from="teacher")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latents_from": "both"}, "latents_from must be one of student, teacher, mixed"),
        ({"divergence": "js"}, "divergence must be one of kl, w2, mmd, logits"),
        ({"reduction": "max"}, "reduction must be one of sum, mean"),
        ({"latent_weight": -1.0}, "latent_weight must be a finite number >= 0"),
        ({"mixing": 2.0}, r"mixing must be a finite number in \[0, 1\]"),
        ({"noise_map": "svd"}, "noise_map must be one of none, learned, first"),
        ({"inputs": "labels"}, "inputs must be one of noise, data"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_an_invalid_argument_raises(options, message):
    with pytest.raises(ConfigError, match=message):
        SemiAuxiliary(normal_chain(1), normal_chain(0), **options)


def test_training_halves_the_loss_of_the_targets(digits, fit):
    teacher, student = normal_chain(0), normal_chain(1)
    distiller = SemiAuxiliary(student, teacher, optimizer=partial(torch.optim.Adam, lr=3e-2))
    data = distiller.transfer_set(digits)

    def val_loss():
        with torch.no_grad():
            return float(distiller.losses(next(iter(data.val_dataloader())))["y"].mean())

    before = val_loss()
    fit(distiller, data, 5)
    assert val_loss() < 0.5 * before


# ---------------------------------------------------------------- discrete latents and exact marginals


@pytest.mark.parametrize("estimator", ["none", "straight_through", "gumbel", "reinforce", "enumerate"])
def test_every_estimator_gives_the_loss_and_all_but_none_a_gradient_to_earlier_latents(estimator):
    torch.manual_seed(0)
    teacher, student = binary_chain(0), binary_chain(1)
    distiller = SemiAuxiliary(student, teacher, estimator=estimator, temperature=0.01, latent_weight=0.0)
    terms = distiller.losses({"input": torch.zeros(4000, 0), **pack_noise(distiller.draw_noise(4000))})
    assert all(value.shape == (4000,) for value in terms.values())
    exact = expected_divergences(teacher, student)["y"].detach()
    assert float(terms["y"].detach().mean()) == pytest.approx(float(exact), rel=0.05)
    terms["y"].mean().backward()
    gradient = student.entries[0].conditional.net.value.grad
    assert (gradient is None or not gradient.any()) == (estimator == "none")


def test_reinforce_and_enumeration_have_the_exact_gradient():
    teacher, student = binary_chain(0), binary_chain(1)

    def gradient(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(student.parameters()))])

    exact = gradient(expected_divergences(teacher, student)["y"].sum())
    torch.manual_seed(0)
    # Enumeration has no sampling error here; that of REINFORCE needs many samples to be small.
    for estimator, n, tolerance in (("enumerate", 4, 1e-5), ("reinforce", 20_000, 0.05)):
        distiller = SemiAuxiliary(student, teacher, estimator=estimator)
        estimate = gradient(distiller.losses({"input": torch.zeros(n, 0)})["y"].mean())
        assert float((estimate - exact).norm() / exact.norm()) < tolerance


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"divergence": "logits"}, "divergence=logits of targets y"),
        ({"latents_from": "mixed"}, "latents_from=mixed"),
        ({"estimator": "gumbel"}, "estimator=gumbel"),
    ],
    ids=["logits", "mixed", "gumbel"],
)
def test_settings_without_a_bound_warn(options, reason):
    with pytest.warns(
        UserWarning, match=f"the surrogate loss does not bound the divergence of the marginals: {reason}"
    ):
        distiller = SemiAuxiliary(binary_chain(1), binary_chain(0), **options)
    assert reason in distiller.notes["bound"]


def test_settings_with_a_bound_do_not_warn(recwarn):
    distiller = SemiAuxiliary(binary_chain(1), binary_chain(0), divergence="w2")
    assert not recwarn
    assert "bound" not in distiller.notes


def test_the_exact_marginal_is_one_term():
    teacher, student = binary_chain(0), binary_chain(1)
    terms = SemiAuxiliary(student, teacher, marginal=True).losses({"input": torch.zeros(5, 0)})
    assert list(terms) == ["marginal"]
    assert float(terms["marginal"].detach().mean()) == pytest.approx(float(marginal_kl(teacher, student).detach()))


# ---------------------------------------------------------------- models without learned latents, and the local control


def generator(seed):
    torch.manual_seed(seed)
    return Graph([Latent("z", Normal((2,), scale=1.0)), Target("y", Delta((3,)), nn.Linear(2, 3), "z", source="input")])


def test_a_generator_of_point_masses_is_distilled_by_w2():
    teacher, student = generator(0), generator(1)
    distiller = SemiAuxiliary(student, teacher, divergence="w2")
    distiller.prepare({})
    noise = teacher.noise(4)
    expected = (
        teacher.entries[1].conditional.net(noise["z"]) - student.entries[1].conditional.net(noise["z"])
    ).square()
    assert torch.allclose(distiller.losses(noise_batch(noise))["y"], expected.sum(1))
    assert distiller.report_extras.controls == {}
    with pytest.raises(ConfigError, match="node 'y': kl between deltas is infinite"):
        SemiAuxiliary(generator(1), teacher).dry_run(noise_batch(noise))


@pytest.mark.parametrize("estimator", ["reinforce", "enumerate", "gumbel"])
def test_an_estimator_has_no_effect_on_local_distillation(estimator):
    teacher, student = binary_chain(0), binary_chain(1)
    batch = noise_batch(teacher.noise(6))
    local = SemiAuxiliary(student, teacher, latents_from="teacher", estimator=estimator).losses(batch)
    without = SemiAuxiliary(student, teacher, latents_from="teacher", estimator="none").losses(batch)
    assert all(torch.equal(local[name], without[name]) for name in without)
    (gradient,) = torch.autograd.grad(local["y"].sum(), student.entries[0].conditional.net.value, allow_unused=True)
    assert gradient is None


def test_an_estimator_has_no_effect_on_the_exact_marginal():
    terms = SemiAuxiliary(binary_chain(1), binary_chain(0), marginal=True, estimator="reinforce").losses(
        {"input": torch.zeros(5, 0)}
    )
    torch.testing.assert_close(terms["marginal"], marginal_kl(binary_chain(0), binary_chain(1)).expand(5))


def test_the_exact_marginal_passes_the_dry_run_and_has_a_local_control():
    distiller = SemiAuxiliary(binary_chain(1), binary_chain(0), marginal=True)
    distiller.dry_run({"input": torch.zeros(4, 0)})
    assert distiller.report_extras.controls == {"local": {"latents_from": "teacher", "marginal": False}}


@pytest.mark.parametrize(
    "options",
    [{"marginal": True}, {"estimator": "reinforce"}, {"estimator": "enumerate"}],
    ids=["marginal", "reinforce", "enumerate"],
)
def test_mixed_latents_with_an_exact_expectation_raise(options):
    with pytest.raises(ConfigError, match="latents_from must be student or teacher with"):
        SemiAuxiliary(binary_chain(1), binary_chain(0), latents_from="mixed", **options)


def test_mixing_of_zero_raises():
    with pytest.raises(ConfigError, match="mixing must be finite and > 0"):
        SemiAuxiliary(normal_chain(1), normal_chain(0), latents_from="mixed", mixing=0.0)


def test_observations_outside_of_the_support_raise_with_the_node():
    model = binary_chain(0)
    with pytest.raises(DataError, match=r"node 'y': Bernoulli takes values in \[0.0, 1.0\], the data are in \[-2, 7\]"):
        model.observed({"input": torch.tensor([[-2.0, 0.0, 7.0]])}, model.targets())
