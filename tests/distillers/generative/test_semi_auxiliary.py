"""The distillers of graphical models: their terms, whose parents, schedules, conditions, calibration, errors."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from kdzoo.data import Digits
from kdzoo.distillers import ELBO, SemiAuxiliary
from kdzoo.distillers.generative.batch_noise import pack_inputs, pack_noise, unpack_inputs, unpack_noise
from kdzoo.distillers.generative.latent_sources import LATENT_CHOICE
from kdzoo.errors import ConfigError, DataError
from kdzoo.graphical_models import Bernoulli, Categorical, Constant, Delta, Graph, Input, Latent, Normal, Target
from kdzoo.graphical_models.expectation import expected_divergences
from kdzoo.graphical_models.marginal import marginal_kl
from kdzoo.graphical_models.paired import node_divergence, paired_rollout
from kdzoo.models import HVAE


def graph(seed=0, z1=4, z2=3):
    torch.manual_seed(seed)
    return Graph(
        [
            Latent("z2", Normal((z2,), scale=1.0)),
            Latent("z1", Normal((z1,)), nn.Linear(z2, 2 * z1), "z2"),
            Target("y", Normal((5,), scale=0.5), nn.Linear(z1, 5), "z1", source="input"),
        ]
    )


def batch_of(noise, n):
    return {"input": torch.zeros(n, 0), **pack_noise(noise)}


def test_the_terms_are_the_divergences_of_the_nodes():
    teacher, student = graph(0), graph(1)
    noise = teacher.noise(6)
    terms = SemiAuxiliary(copy.deepcopy(student), teacher).losses(batch_of(noise, 6))
    pair = paired_rollout(teacher, student, noise)
    assert list(terms) == ["y", "z1"]
    assert torch.equal(terms["y"], node_divergence(pair, "y", "kl", "sum"))
    assert torch.equal(terms["z1"], node_divergence(pair, "z1", "w2", "sum"))


@pytest.mark.parametrize("latents_from", ["student", "teacher", "mixed"])
def test_a_copy_of_the_teacher_loses_nothing(latents_from):
    teacher = graph()
    terms = SemiAuxiliary(copy.deepcopy(teacher), teacher, latents_from=latents_from).losses(
        batch_of(teacher.noise(5), 5)
    )
    assert all(bool((value == 0).all()) for value in terms.values())


def test_weights_are_lambda_for_latents_and_one_for_targets():
    weights = SemiAuxiliary(graph(1), graph(0), latent_weight=0.3).loss_weights
    assert weights == {"z1": 0.3}
    assert SemiAuxiliary(graph(1), graph(0), loss_weights={"z1": 2.0, "y": 0.5}).loss_weights == {"z1": 2.0, "y": 0.5}


def test_options_choose_divergence_and_reduction():
    teacher, student = graph(0), graph(1)
    noise = teacher.noise(6)
    pair = paired_rollout(teacher, student, noise)
    chosen = SemiAuxiliary(student, teacher, divergence="mmd", latent_divergence="kl", reduction="mean")
    terms = chosen.losses(batch_of(noise, 6))
    assert torch.equal(terms["y"], node_divergence(pair, "y", "mmd", "sum"))
    assert torch.equal(terms["z1"], node_divergence(pair, "z1", "kl", "mean"))


def at_step(distiller, step, steps):
    distiller._trainer = SimpleNamespace(global_step=step, estimated_stepping_batches=steps)
    distiller.train()
    return distiller


def test_mixed_parents_go_from_the_teachers_to_the_students():
    teacher, student = graph(0), graph(1)
    noise = teacher.noise(64)
    batch = {**batch_of(noise, 64), LATENT_CHOICE: torch.rand(64)}
    mixed = SemiAuxiliary(student, teacher, latents_from="mixed", mixing=0.5)
    ours, local = (
        SemiAuxiliary(student, teacher, latents_from=one).losses(batch)["y"] for one in ("student", "teacher")
    )
    assert torch.equal(at_step(mixed, 0, 100).losses(batch)["y"], local)
    halfway = at_step(mixed, 25, 100).losses(batch)["y"]
    assert torch.equal(halfway, torch.where(batch[LATENT_CHOICE] < 0.5, local, ours))
    assert torch.equal(at_step(mixed, 50, 100).losses(batch)["y"], ours)


def test_the_student_infers_nothing_and_the_rest_learns():
    teacher, student = (HVAE(in_shape=(1, 4, 4), latents=[3, 2], width=5) for _ in range(2))
    distiller = SemiAuxiliary(student, teacher)
    inferring = {id(parameter) for parameter in student.inference_parameters()}
    assert inferring
    assert not inferring & {id(parameter) for parameter in distiller.trainable()}
    sum(value.mean() for value in distiller.losses({"input": torch.zeros(3, 0)}).values()).backward()
    assert all(parameter.grad is not None for parameter in distiller.trainable())


def conditional(seed):
    torch.manual_seed(seed)

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(5, 4)

        def forward(self, z, label):
            return self.net(torch.cat([z, label], 1))

    return Graph(
        [
            Input("label", Categorical((3,)), source="target"),
            Latent("z", Normal((2,)), nn.Linear(3, 4, bias=False), "label"),
            Target("y", Bernoulli((4,)), Joined(), ("z", "label"), source="input"),
        ]
    )


def test_conditions_are_drawn_or_those_of_the_data():
    teacher, student = conditional(0), conditional(1)
    noise = teacher.noise(4)
    labels = torch.tensor([0, 2, 1, 2])
    one_hot = nn.functional.one_hot(labels, 3).float()
    batch = {**batch_of(noise, 4), "target": labels}
    distiller = SemiAuxiliary(student, teacher, inputs="data")
    expected = node_divergence(paired_rollout(teacher, student, noise, {"label": one_hot}), "y", "kl", "sum")
    assert torch.equal(distiller.losses(batch)["y"], expected)
    assert torch.equal(distiller.losses({**batch_of(noise, 4), **pack_inputs({"label": one_hot})})["y"], expected)
    with pytest.raises(ConfigError, match="node 'label' reads 'target', which the batch lacks"):
        distiller.losses(batch_of(noise, 4))


@pytest.fixture(scope="module")
def digits():
    data = Digits(labels_per_class=None, batch_size=64)
    data.setup()
    return data


def test_the_transfer_set_is_noise_alone_unless_conditions_come_from_the_data(digits):
    teacher, student = conditional(0), conditional(1)
    drawn = next(iter(SemiAuxiliary(student, teacher).transfer_set(digits).train_dataloader()))
    assert set(unpack_noise(drawn)) == {"z"}
    assert unpack_inputs(drawn)["label"].sum(1).tolist() == [1.0] * 64
    assert drawn["input"].shape == (64, 0)
    given = next(iter(SemiAuxiliary(student, teacher, inputs="data").transfer_set(digits).train_dataloader()))
    assert not unpack_inputs(given)
    assert {"target", "noise.z"} <= given.keys()


def test_calibration_counts_a_latent_in_nats_of_the_targets():
    """In the linear case half the mean diagonal of W^T W / scale^2."""
    teacher, student = graph(0), graph(1)
    distiller = SemiAuxiliary(student, teacher, calibrated=True)
    distiller.prepare({})
    weight = teacher.entries[2].conditional.net.weight
    expected = float((weight.T @ weight / 0.25).diagonal().mean() / 2)
    assert float(distiller.calibration[0]) == pytest.approx(expected, rel=0.15)
    assert "z1" in distiller.notes["calibration"]
    noise = teacher.noise(6)
    to_container = SemiAuxiliary(student, teacher, calibrated=False).losses(batch_of(noise, 6))
    assert torch.allclose(distiller.losses(batch_of(noise, 6))["z1"], to_container["z1"] * distiller.calibration[0])


def test_fewer_latents_learn_through_a_map_of_the_noise():
    teacher, student = graph(0), graph(1, z1=2)
    with pytest.raises(ConfigError, match=r"node 'z1': the teacher has Normal \(4,\), the student Normal \(2,\)"):
        SemiAuxiliary(student, teacher)
    distiller = SemiAuxiliary(student, teacher, noise_map="learned")
    assert list(distiller.losses(batch_of(teacher.noise(3), 3))) == ["y"]
    assert any(name.startswith("noise_map") for name, p in distiller.named_parameters() if p.requires_grad)
    assert distiller.report_extras.controls == {}
    with pytest.raises(ConfigError, match="latents_from must be student where noise is mapped"):
        SemiAuxiliary(student, teacher, noise_map="first", latents_from="teacher")


@pytest.mark.parametrize(
    ("option", "words"),
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
def test_an_argument_out_of_range_is_refused(option, words):
    with pytest.raises(ConfigError, match=words):
        SemiAuxiliary(graph(1), graph(0), **option)


def test_distillation_brings_the_student_nearer(digits):
    teacher, student = graph(0), graph(1)
    distiller = SemiAuxiliary(student, teacher, optimizer=partial(torch.optim.Adam, lr=3e-2))
    data = distiller.transfer_set(digits)

    def measured():
        with torch.no_grad():
            return float(distiller.losses(next(iter(data.val_dataloader())))["y"].mean())

    before = measured()
    trainer = pl.Trainer(
        max_epochs=5,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(distiller, datamodule=data)
    assert measured() < 0.5 * before


# ---------------------------------------------------------------- training on data


def test_evidence_is_the_bound_with_the_latents_warmed_up(digits):
    model = HVAE(in_shape=(1, 8, 8), latents=[3, 2], width=8)
    distiller = ELBO(model, warmup=0.5)
    batch = next(iter(distiller.transfer_set(digits).train_dataloader()))
    terms = distiller.losses(batch)
    assert list(terms) == ["z2", "z1", "image"]
    expected = model.negative_elbo(batch, unpack_noise(batch))
    assert all(torch.equal(terms[name], expected[name]) for name in terms)
    warm = at_step(distiller, 10, 100).losses(batch)
    assert torch.equal(warm["image"], expected["image"])
    assert torch.allclose(warm["z1"], 0.2 * expected["z1"])


def test_evidence_of_a_model_that_infers_nothing_is_refused():
    with pytest.raises(ConfigError, match="latent 'z2' has no posterior"):
        ELBO(graph()).losses({"input": torch.zeros(2, 5)})


# ---------------------------------------------------------------- discrete latents and exact marginals


def binary(seed):
    torch.manual_seed(seed)
    top = Constant(2)
    top.value.data = torch.randn(2)  # at equal chances the expectation has a kink
    return Graph(
        [
            Latent("z2", Bernoulli((2,)), top),
            Latent("z1", Bernoulli((2,)), nn.Linear(2, 2), "z2"),
            Target("y", Bernoulli((3,)), nn.Linear(2, 3), "z1", source="input"),
        ]
    )


@pytest.mark.parametrize("estimator", ["none", "straight_through", "gumbel", "reinforce", "enumerate"])
def test_estimators_agree_on_the_loss_and_differ_in_what_they_reach(estimator):
    torch.manual_seed(0)
    teacher, student = binary(0), binary(1)
    distiller = SemiAuxiliary(student, teacher, estimator=estimator, temperature=0.01, latent_weight=0.0)
    terms = distiller.losses({"input": torch.zeros(4000, 0), **pack_noise(distiller.draw_noise(4000))})
    assert all(value.shape == (4000,) for value in terms.values())
    exact = expected_divergences(teacher, student)["y"]
    assert float(terms["y"].detach().mean()) == pytest.approx(float(exact), rel=0.05)
    terms["y"].mean().backward()
    reached = student.entries[0].conditional.net.value.grad
    assert (reached is None or not reached.any()) == (estimator == "none")


def test_reinforce_and_enumeration_have_the_exact_gradient():
    teacher, student = binary(0), binary(1)

    def gradient(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(student.parameters()))])

    exact = gradient(expected_divergences(teacher, student)["y"].sum())
    torch.manual_seed(0)
    for estimator, tolerance in (("enumerate", 1e-3), ("reinforce", 0.05)):
        distiller = SemiAuxiliary(student, teacher, estimator=estimator)
        found = gradient(distiller.losses({"input": torch.zeros(20_000, 0)})["y"].mean())
        assert float((found - exact).norm() / exact.norm()) < tolerance


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"divergence": "logits"}, "divergence=logits of targets y"),
        ({"latents_from": "mixed"}, "latents_from=mixed"),
        ({"estimator": "gumbel"}, "estimator=gumbel"),
    ],
    ids=["logits", "mixed", "gumbel"],
)
def test_a_choice_without_a_bound_is_told(options, words):
    with pytest.warns(UserWarning, match=f"the surrogate loss does not bound the divergence of the marginals: {words}"):
        distiller = SemiAuxiliary(binary(1), binary(0), **options)
    assert words in distiller.notes["bound"]


def test_bounds_are_not_warned_of(recwarn):
    distiller = SemiAuxiliary(binary(1), binary(0), divergence="w2")
    assert not recwarn
    assert "bound" not in distiller.notes


def test_the_exact_marginal_is_one_term():
    teacher, student = binary(0), binary(1)
    terms = SemiAuxiliary(student, teacher, marginal=True).losses({"input": torch.zeros(5, 0)})
    assert list(terms) == ["marginal"]
    assert float(terms["marginal"].detach().mean()) == pytest.approx(float(marginal_kl(teacher, student).detach()))


# ---------------------------------------------------------------- what has no learned latents, and local controls


def generator(seed):
    torch.manual_seed(seed)
    return Graph([Latent("z", Normal((2,), scale=1.0)), Target("y", Delta((3,)), nn.Linear(2, 3), "z", source="input")])


def test_a_generator_of_points_is_distilled_by_w2():
    teacher, student = generator(0), generator(1)
    distiller = SemiAuxiliary(student, teacher, divergence="w2")
    distiller.prepare({})
    noise = teacher.noise(4)
    expected = (
        teacher.entries[1].conditional.net(noise["z"]) - student.entries[1].conditional.net(noise["z"])
    ).square()
    assert torch.allclose(distiller.losses(batch_of(noise, 4))["y"], expected.sum(1))
    assert distiller.report_extras.controls == {}
    with pytest.raises(ConfigError, match="node 'y': kl between deltas is infinite"):
        SemiAuxiliary(generator(1), teacher).dry_run(batch_of(noise, 4))


@pytest.mark.parametrize("estimator", ["reinforce", "enumerate", "gumbel"])
def test_local_distillation_has_no_use_for_an_estimator(estimator):
    teacher, student = binary(0), binary(1)
    batch = batch_of(teacher.noise(6), 6)
    local = SemiAuxiliary(student, teacher, latents_from="teacher", estimator=estimator).losses(batch)
    to_container = SemiAuxiliary(student, teacher, latents_from="teacher", estimator="none").losses(batch)
    assert all(torch.equal(local[name], to_container[name]) for name in to_container)
    (reached,) = torch.autograd.grad(local["y"].sum(), student.entries[0].conditional.net.value, allow_unused=True)
    assert reached is None


def test_the_exact_marginal_rehearses_and_has_a_local_control_of_its_own():
    distiller = SemiAuxiliary(binary(1), binary(0), marginal=True)
    distiller.dry_run({"input": torch.zeros(4, 0)})
    assert distiller.report_extras.controls == {"local": {"latents_from": "teacher", "marginal": False}}


@pytest.mark.parametrize(
    "options",
    [{"marginal": True}, {"estimator": "reinforce"}, {"estimator": "enumerate"}],
    ids=["marginal", "reinforce", "enumerate"],
)
def test_what_cannot_be_mixed_is_refused(options):
    with pytest.raises(ConfigError, match="latents_from must be student or teacher with"):
        SemiAuxiliary(binary(1), binary(0), latents_from="mixed", **options)


def test_mixing_must_take_some_time():
    with pytest.raises(ConfigError, match="mixing must be finite and > 0"):
        SemiAuxiliary(graph(1), graph(0), latents_from="mixed", mixing=0.0)


def test_observations_outside_of_a_support_are_refused_by_name():
    model = binary(0)
    with pytest.raises(DataError, match=r"node 'y': Bernoulli takes values in \[0.0, 1.0\], the data are in \[-2, 7\]"):
        model.observed({"input": torch.tensor([[-2.0, 0.0, 7.0]])}, model.targets())
