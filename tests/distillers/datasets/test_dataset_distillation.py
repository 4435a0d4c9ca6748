"""Dataset distillation: loss and gradient against a plain loop, refused arguments, and short trainings on digits."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from kdzoo.core.randomness import mix_seed
from kdzoo.data import Digits
from kdzoo.dataset_distillation import InnerNetwork, SyntheticSet
from kdzoo.dataset_distillation.files import read
from kdzoo.dataset_distillation.selection import select
from kdzoo.distillers import DatasetDistillation
from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.kinds import SyntheticSetKind
from kdzoo.models import MLP

SIZES = {"in_shape": (3,), "num_classes": 4}


def linear_set(**options):
    torch.manual_seed(0)
    inner_network = {
        "linear": InnerNetwork(nn.Linear(3, 4)),
        "mlp": InnerNetwork(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))),
    }
    return SyntheticSet(inner_network=inner_network, **SIZES, **{"steps": 3, **options}).double()


def rows(n=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 3, generator=generator, dtype=torch.double)
    return {"input": inputs, "target": torch.arange(n) % 4, "index": torch.arange(n)}


def plain_loop(model, synthetic_set, name, batch, state):
    """Return the cross entropy on a batch after the inner steps, computed with a module and autograd alone."""
    weights = [value.clone().requires_grad_() for value in state.values()]

    def logits(inputs):
        return torch.func.functional_call(model, dict(zip(state, weights, strict=True)), (inputs,))

    for eta in synthetic_set.step_sizes[name]:
        loss = nn.functional.cross_entropy(logits(synthetic_set.images), synthetic_set.labels)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        weights = [value - eta * gradient for value, gradient in zip(weights, gradients, strict=True)]
    return nn.functional.cross_entropy(logits(batch["input"]), batch["target"])


def test_loss_and_gradient_are_those_of_a_plain_loop_over_networks_and_architectures():
    synthetic_set, batch = linear_set(), rows()
    distiller = DatasetDistillation(synthetic_set, inits=2, seed=5)
    loss = distiller.losses(batch)["real"].mean()
    gradients = torch.autograd.grad(loss, list(synthetic_set.parameters()))
    generator = torch.Generator().manual_seed(mix_seed(5, 0))
    torch.randint(3, 4, (), generator=generator)  # the number of inner steps
    values = []
    for name, inner_network in synthetic_set.inner_networks.items():
        for weights in inner_network.sample(2, generator):
            state = {key: value.double() for key, value in inner_network.state(weights).items()}
            values.append(plain_loop(inner_network.model, synthetic_set, name, batch, state))
    expected = torch.stack(values).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, list(synthetic_set.parameters())))


def test_all_micro_batches_of_a_step_have_the_same_networks_and_each_step_has_new_ones():
    distiller = DatasetDistillation(linear_set(), inits=2)
    first, again = distiller.networks(), distiller.networks()
    assert all(torch.equal(first[name], again[name]) for name in first)
    distiller.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    distiller.trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = 1
    assert not torch.equal(first["linear"], distiller.networks()["linear"])


def test_the_number_of_inner_steps_is_drawn_from_lengths():
    distiller = DatasetDistillation(linear_set(step_sizes="shared"), lengths=[2, 4])
    lengths = set()
    distiller.student.train_networks = lambda name, weights, steps, **_: lengths.add(steps) or weights
    for seed in range(30):
        distiller.inner_training.seed = seed
        distiller.networks()
    assert lengths == {2, 3, 4}


def test_a_window_has_the_gradient_of_the_last_steps_only():
    batch, synthetic_set = rows(), linear_set()
    full, windowed = (DatasetDistillation(synthetic_set, window=window) for window in (None, 1))
    gradients = [
        torch.autograd.grad(distiller.losses(batch)["real"].mean(), synthetic_set.step_sizes["linear"])[0]
        for distiller in (full, windowed)
    ]
    assert torch.equal(gradients[1][:2], torch.zeros(2).double())
    torch.testing.assert_close(gradients[0][2], gradients[1][2])


@pytest.mark.parametrize("engine", ["full", "reverse", "segments", "jvp", "auto"])
def test_every_engine_has_the_same_gradient(engine):
    synthetic_set, batch = linear_set(), rows()
    expected, gradient = (
        torch.autograd.grad(
            DatasetDistillation(synthetic_set, engine=name).losses(batch)["real"].mean(), synthetic_set.images
        )[0]
        for name in ("full", engine)
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14)


def test_the_automatic_choice_of_an_engine_notes_its_reason():
    distiller = DatasetDistillation(linear_set())
    distiller.losses(rows())
    assert set(distiller.notes) == {"engine of linear", "engine of mlp"}


def test_the_teacher_term_is_the_divergence_from_the_teacher():
    teacher, batch = nn.Linear(3, 4).double(), rows()
    distiller = DatasetDistillation(linear_set(), teacher, inits=1, loss_weights={"teacher": 1.0}, temperature=2.0)
    terms = distiller.losses(batch)
    expected = []
    for name, weights in distiller.networks().items():
        student_logits = distiller.student.inner_networks[name].logits(weights, batch["input"])[0]
        q, p = (student_logits / 2).log_softmax(1), (teacher(batch["input"]) / 2).softmax(1)
        expected.append(4 * nn.functional.kl_div(q, p, reduction="none").sum(1))
    torch.testing.assert_close(terms["teacher"], torch.stack(expected).mean(0))


# ---------------------------------------------------------------- refused arguments


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"window": 4}, "window must be"),
        ({"lengths": [5, 2]}, "lengths must be"),
        ({"lengths": [0, 2]}, "lengths"),
        ({"lengths": [2]}, r"lengths must be \[least, most\]"),
        ({"adam_rates": [0.1, 0.01]}, "adam_rates must be"),
        ({"adam_rates": [0.0, 0.01]}, r"adam_rates\[0\] must be"),
        ({"rates": {"pixels": 1.0}}, "rates must be one of"),
        ({"rates": {"images": -1.0}}, "rates.images must be"),
        ({"inits": 0}, "inits must be"),
        ({"engine": "magic"}, "engine must be one of"),
        ({"start": "zeros"}, "start must be one of"),
        ({"max_norm": 0.0}, "max_norm must be"),
        ({"loss_weights": {"teacher": 1.0}}, "needs a teacher"),
        ({"baselines": ["noise"]}, "baselines must be one of"),
    ],
)
def test_arguments_out_of_range_are_refused_in_one_line(options, line):
    with pytest.raises(ConfigError, match=line) as caught:
        DatasetDistillation(linear_set(), **options)
    assert "\n" not in str(caught.value)


class OnceDifferentiable(torch.autograd.Function):
    """The identity, with a gradient that cannot be differentiated again."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class Opaque(nn.Linear):
    """A layer that is differentiable only once."""

    def forward(self, x):
        return OnceDifferentiable.apply(super().forward(x))


def test_an_inner_network_that_is_not_twice_differentiable_is_refused_before_training():
    synthetic_set = SyntheticSet(inner_network={"opaque": InnerNetwork(Opaque(3, 4))}, **SIZES)
    batch = {key: value.float() if value.is_floating_point() else value for key, value in rows().items()}
    with pytest.raises(ConfigError, match="twice differentiable"):
        DatasetDistillation(synthetic_set, inits=1).dry_run(batch)


# ---------------------------------------------------------------- training


def digits(**options):
    data = Digits(labels_per_class=None, **{"batch_size": 128, **options})
    data.prepare_data()
    data.setup("fit")
    return data


def trained(distiller, data, folder, epochs):
    trainer = pl.Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        accelerator="cpu",
    )
    trainer.fit(distiller, datamodule=data)
    return distiller.student


def logistic(sizes, **options):
    return SyntheticSet(inner_network={"logistic": InnerNetwork(MLP(**sizes, hidden=[]))}, **sizes, **options)


def test_ten_learned_examples_beat_the_class_means(tmp_path):
    data, kind, metrics = digits(), SyntheticSetKind(), []
    test = list(data.test_dataloader())
    for seed in range(2):
        torch.manual_seed(seed)
        synthetic_set = logistic(data.sizes, steps=3)
        distiller = DatasetDistillation(
            synthetic_set, inits=2, seed=seed, baselines=["mean"], optimizer=partial(torch.optim.Adam, lr=2e-3)
        )
        metrics.append(kind.metrics(kind.predict(trained(distiller, data, tmp_path, 12), test)))
    means = kind.metrics(kind.predict(distiller.report_extras.baselines(data)["mean"], test))
    assert min(of_seed["accuracy"] for of_seed in metrics) > means["accuracy"] + 0.05
    assert max(of_seed["accuracy_std"] for of_seed in metrics) < 0.02
    assert len(list((tmp_path / "epochs").glob("*.png"))) == 12


@pytest.mark.parametrize("labels", ["simplex", "fixed"])
def test_labels_and_step_sizes_stay_in_their_ranges(labels, tmp_path):
    data = digits(train_size=256)
    synthetic_set = logistic(data.sizes, steps=2, labels=labels, step_size=1.0)
    before = synthetic_set.labels.detach().clone()
    trained(DatasetDistillation(synthetic_set, inits=1, optimizer=partial(torch.optim.SGD, lr=1.0)), data, tmp_path, 2)
    sizes = synthetic_set.step_sizes["logistic"]
    assert sizes.min() >= 1e-5
    assert sizes.max() <= 1
    if labels == "fixed":
        assert torch.equal(synthetic_set.labels, before)
    else:
        torch.testing.assert_close(synthetic_set.labels.sum(1), torch.ones(10))
        assert synthetic_set.labels.min() >= 0
        assert not torch.equal(synthetic_set.labels, before)


def test_a_diverging_inner_training_is_named_and_the_last_finite_set_written(tmp_path):
    data = digits(train_size=256)
    synthetic_set = logistic(data.sizes, steps=50, step_size=0.01)
    distiller = DatasetDistillation(synthetic_set, inits=1)
    finite_images = []

    def enlarge_images():
        if distiller.current_epoch:
            finite_images.append(synthetic_set.images.detach().clone())
            synthetic_set.images.data.mul_(1e25)

    distiller.on_train_epoch_start = enlarge_images
    message = (
        r"epoch 1, step \d+: inner_network.logistic: .* step \d+ of 50.* on which all trainings stayed finite is in "
        r".*last_good.npz"
    )
    with pytest.raises(NonFiniteLossError, match=message):
        trained(distiller, data, tmp_path, 2)
    assert torch.equal(read(tmp_path / "last_good.npz").images, finite_images[0])


@pytest.mark.parametrize("name", ["random", "mean", "herding"])
def test_images_start_from_a_selection_of_the_training_split(name):
    data = digits()
    synthetic_set = logistic(data.sizes, per_class=2)
    DatasetDistillation(synthetic_set, start=name, seed=3).transfer_set(data)
    train = data.splits.train
    expected, classes = select(name, train.inputs, train.targets, 2, 10, 3)
    torch.testing.assert_close(synthetic_set.images.detach(), expected)
    assert torch.equal(synthetic_set.classes(), classes)


def test_fewer_examples_than_classes_start_from_means_over_the_classes_of_their_labels():
    data = digits()
    synthetic_set = logistic(data.sizes, examples=5)
    DatasetDistillation(synthetic_set, start="mean").transfer_set(data)
    means, _ = select("mean", data.splits.train.inputs, data.splits.train.targets, 1, 10)
    torch.testing.assert_close(synthetic_set.images.detach(), means.view(5, 2, *means.shape[1:]).mean(1))
    assert synthetic_set.labels[2].tolist() == [0, 0, 0, 0, 0.5, 0.5, 0, 0, 0, 0]


def test_held_out_networks_of_a_pool_are_accurate_and_never_drawn():
    data = digits(train_size=512)
    inner_network = InnerNetwork(MLP(**data.sizes, hidden=[]), pool=3, pool_steps=600)
    synthetic_set = SyntheticSet(inner_network={"logistic": inner_network}, **data.sizes)
    distiller = DatasetDistillation(synthetic_set)
    distiller.dry_run({key: value[:8] for key, value in next(iter(data.train_dataloader())).items()})
    distiller.transfer_set(data)
    drawn, held_out = inner_network.sample(100), inner_network.held_out()
    assert len(drawn.unique(dim=0)) == 3
    assert len(held_out) == 20
    assert not (drawn[:, None] == held_out).all(-1).any()
    predicted = inner_network.logits(held_out, data.splits.val.inputs).argmax(-1)
    assert (predicted == data.splits.val.targets).double().mean() > 0.7


def test_a_share_of_the_steps_uses_adam_at_a_rate_in_the_range():
    distiller, calls = DatasetDistillation(linear_set(), adam_share=0.5, adam_rates=[0.01, 0.02]), []
    distiller.student.train_networks = lambda name, weights, steps, **options: calls.append(options) or weights
    for seed in range(60):
        distiller.inner_training.seed = seed
        distiller.networks()
    of_adam = [options["step_sizes"] for options in calls if "optimizer" in options]
    assert 0.25 < len(of_adam) / len(calls) < 0.75
    rates = torch.cat(of_adam)
    assert rates.min() >= 0.01
    assert rates.max() <= 0.02
    assert rates.unique().numel() > 10
    assert all(len(sizes) == 3 for sizes in of_adam)


def test_figures_show_the_history_of_images_and_other_protocols(figures, tmp_path):
    data = digits(train_size=256)
    distiller = DatasetDistillation(logistic(data.sizes, steps=2), inits=1)
    distiller.transfer_set(data)
    trained(distiller, data, tmp_path, 1)
    paths = distiller.report_extras.figures(tmp_path / "figures")
    assert [path.name for path in paths] == ["images_by_epoch.png", "protocols.png"]
    history, protocols = (figure.axes[0] for figure in figures[-2:])
    assert [label.get_text() for label in history.get_yticklabels()] == ["epoch 1"]
    names = [label.get_text() for label in protocols.get_yticklabels()]
    networks = [label.get_text() for label in protocols.get_xticklabels()]
    (image,) = protocols.images
    accuracy = image.get_array()
    assert accuracy.shape == (len(names), len(networks))
    assert networks == [*distiller.student.inner_networks, "unseen"]
    table = (tmp_path / "figures" / "protocols.md").read_text()
    assert all(name in table for name in (*names, *networks))
    assert f"{100 * accuracy[0, 0]:.1f}" in table


def test_a_gradient_that_is_not_finite_is_refused_and_the_set_written_unchanged(tmp_path):
    data = digits(train_size=256)
    synthetic_set = logistic(data.sizes, steps=2)
    distiller = DatasetDistillation(synthetic_set, inits=1)
    distiller.on_after_backward = lambda: synthetic_set.images.grad.mul_(torch.inf)
    with pytest.raises(NonFiniteLossError, match=r"epoch 0, step 0: the gradient .* not finite.*last_good.npz"):
        trained(distiller, data, tmp_path, 1)
    assert torch.equal(read(tmp_path / "last_good.npz").images, synthetic_set.images)
    assert synthetic_set.images.isfinite().all()


def test_a_plain_lightning_training_starts_from_the_chosen_images(tmp_path):
    data = digits(train_size=256)
    synthetic_set = logistic(data.sizes, steps=1)
    trained(
        DatasetDistillation(synthetic_set, start="mean", optimizer=partial(torch.optim.SGD, lr=0.0)), data, tmp_path, 1
    )
    means, _ = select("mean", data.splits.train.inputs, data.splits.train.targets, 1, 10)
    torch.testing.assert_close(synthetic_set.images.detach(), means)


def test_initial_images_from_data_need_the_data_module(tmp_path):
    data = digits(train_size=256)
    distiller = DatasetDistillation(logistic(data.sizes, steps=1), start="mean")
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, default_root_dir=tmp_path, accelerator="cpu"
    )
    with pytest.raises(ConfigError, match=r"start=mean .* transfer_set"):
        trainer.fit(distiller, data.train_dataloader())


def test_validation_uses_the_present_set():
    distiller, batch = DatasetDistillation(linear_set()).eval(), rows()
    before = distiller.losses(batch)["real"]
    distiller.student.images.data.mul_(3)
    distiller.student.images.data = distiller.student.images.data.clone()
    with torch.no_grad():
        distiller.student.labels.mul_(2)
    after = distiller.losses(batch)["real"]
    assert not torch.equal(before, after)
