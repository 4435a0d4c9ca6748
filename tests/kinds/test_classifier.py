"""The classifier kind against NumPy and scikit-learn in float64, and the models that it refuses."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, log_loss, recall_score
from torch import Tensor, nn

from kdzoo import config
from kdzoo.data import IGNORE, Digits
from kdzoo.errors import ConfigError, DataError
from kdzoo.kinds import ClassifierKind, get
from kdzoo.kinds.classifier import (
    CALIBRATION_BINS,
    ClassifierModel,
    Predictions,
    best_shift,
    class_recall,
    first_inputs,
    one_of_each_class,
    recall_of,
    shift_classes,
)
from kdzoo.models import MLP, MPSClassifier
from kdzoo.runs import pipeline

KIND = ClassifierKind()
PNG = b"\x89PNG\r\n\x1a\n"


def random_predictions(n: int = 400, classes: int = 5, scale: float = 3.0, seed: int = 0) -> Predictions:
    """Return predictions that are right more often than not."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator)
    target = torch.where(
        torch.rand(n, generator=generator) < 0.5,
        logits.argmax(1),
        torch.randint(classes, (n,), generator=generator),
    )
    return Predictions(logits, target)


def expected_calibration_error(probability: np.ndarray, target: np.ndarray) -> float:
    """Return the ECE of Guo et al. 2017, equation 3, bin by bin and sample by sample."""
    total = 0.0
    for b in range(CALIBRATION_BINS):
        confidences, hits = [], []
        for row, label in zip(probability, target, strict=True):
            if b / CALIBRATION_BINS < row.max() <= (b + 1) / CALIBRATION_BINS:
                confidences.append(row.max())
                hits.append(float(row.argmax() == label))
        if hits:
            total += len(hits) / len(target) * abs(np.mean(hits) - np.mean(confidences))
    return total


class Returns(nn.Module):
    """A module that returns what a function of the inputs returns."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor):
        return self.function(inputs)


class TestMetrics:
    @pytest.mark.parametrize("classes", [2, 5, 10])
    @pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
    def test_agree_with_independent_float64_references(self, classes, scale) -> None:
        predictions = random_predictions(classes=classes, scale=scale)
        logits, target = predictions.logits.double().numpy(), predictions.target.numpy()
        probability = softmax(logits, axis=1)
        metrics = KIND.metrics(predictions)
        assert metrics["accuracy"] == pytest.approx(accuracy_score(target, logits.argmax(1)), abs=1e-12)
        assert metrics["errors"] == (logits.argmax(1) != target).sum()
        clipped = np.clip(probability, 1e-300, 1)
        assert metrics["cross_entropy"] == pytest.approx(
            -np.mean(np.log(clipped[np.arange(len(target)), target])), rel=1e-5
        )
        assert metrics["calibration_error"] == pytest.approx(expected_calibration_error(probability, target), abs=1e-5)

    def test_cross_entropy_is_that_of_scikit_learn(self) -> None:
        predictions = random_predictions()
        probability = softmax(predictions.logits.double().numpy(), axis=1)
        expected = log_loss(predictions.target.numpy(), probability, labels=range(5))
        assert KIND.metrics(predictions)["cross_entropy"] == pytest.approx(expected, rel=1e-6)

    def test_are_finite_where_probabilities_underflow(self) -> None:
        metrics = KIND.metrics(Predictions(torch.tensor([[1000.0, 0.0], [0.0, 1000.0]]), torch.tensor([1, 1])))
        assert metrics["cross_entropy"] == pytest.approx(500.0)
        assert metrics["calibration_error"] == pytest.approx(0.5)

    def test_all_correct_and_all_wrong(self) -> None:
        logits = 50 * torch.eye(3)
        assert KIND.metrics(Predictions(logits, torch.arange(3)))["errors"] == 0
        wrong = KIND.metrics(Predictions(logits, torch.tensor([1, 2, 0])))
        assert (wrong["accuracy"], wrong["errors"]) == (0.0, 3)

    def test_errors_is_a_count(self) -> None:
        assert isinstance(KIND.metrics(random_predictions())["errors"], int)

    def test_the_score_is_one_of_them(self) -> None:
        assert KIND.score in KIND.metrics(random_predictions())

    def test_recall_is_that_of_scikit_learn(self) -> None:
        predictions = random_predictions()
        expected = recall_score(predictions.target.numpy(), predictions.predicted.numpy(), average=None)
        np.testing.assert_allclose(class_recall(predictions).numpy(), expected, rtol=1e-6)

    def test_recall_of_a_class_without_samples_is_nan(self) -> None:
        recall = class_recall(Predictions(torch.eye(3), torch.tensor([0, 1, 1])))
        assert recall[:2].tolist() == [1.0, 0.5]
        assert math.isnan(recall[2])


class TestFidelity:
    def test_agrees_with_independent_float64_references(self) -> None:
        student, teacher = random_predictions(seed=1), random_predictions(seed=2)
        z, v = student.logits.double().numpy(), teacher.logits.double().numpy()
        fidelity = KIND.fidelity(student, teacher)
        assert fidelity["agreement"] == pytest.approx((z.argmax(1) == v.argmax(1)).mean(), abs=1e-12)
        expected = (softmax(v, axis=1) * (log_softmax(v, axis=1) - log_softmax(z, axis=1))).sum(1).mean()
        assert fidelity["kl"] == pytest.approx(expected, rel=1e-6)

    def test_equal_predictions_agree_everywhere(self) -> None:
        predictions = random_predictions()
        assert KIND.fidelity(predictions, predictions) == {"agreement": 1.0, "kl": 0.0}

    def test_divergence_is_that_of_the_student_from_the_teacher(self) -> None:
        certain = Predictions(torch.tensor([[20.0, 0.0]]), torch.tensor([0]))
        uniform = Predictions(torch.zeros(1, 2), torch.tensor([0]))
        assert KIND.fidelity(uniform, certain)["kl"] == pytest.approx(math.log(2), rel=1e-5)
        assert KIND.fidelity(certain, uniform)["kl"] == pytest.approx(10 - math.log(2), rel=1e-5)


class TestUnseenClasses:
    @pytest.mark.parametrize("classes", [[0], [3], [1, 4]])
    @pytest.mark.parametrize("seed", range(20))
    def test_no_shift_is_better_than_the_chosen_one(self, classes, seed) -> None:
        predictions = random_predictions(n=60, seed=seed)
        logits, target = predictions.logits, predictions.target
        logits[:, classes] -= 4
        shift = best_shift(logits, target, classes)

        def correct(candidate: float) -> int:
            shifted = logits.numpy().astype(np.float64)
            shifted[:, classes] += candidate
            return int((shifted.argmax(1) == target.numpy()).sum())

        # All possible decisions: on either side of each difference between two logits of a sample.
        differences = (logits[:, :, None] - logits[:, None, :]).double().flatten().numpy()
        brute_force = max(correct(d + step) for d in np.unique(differences) for step in (-1e-4, 1e-4))
        assert correct(shift) == max(brute_force, correct(0.0))
        assert (shift_classes(logits, classes, shift).argmax(1) == target).sum() == correct(shift)

    def test_a_bias_that_is_too_low_is_recovered(self) -> None:
        target = torch.arange(300) % 3
        logits = 10 * nn.functional.one_hot(target).float()
        logits[:, 2] -= 12  # class 2 now loses by 2 where it should win, and by 22 elsewhere
        assert best_shift(logits, target, [2]) == pytest.approx(12.0)

    def test_the_middle_of_the_widest_best_interval(self) -> None:
        # Class 1 wins above a shift of 1, 2, 5 and 9, rightly for the first and third sample only.
        logits = torch.tensor([[1.0, 0.0], [2.0, 0.0], [5.0, 0.0], [9.0, 0.0]])
        assert best_shift(logits, torch.tensor([1, 0, 1, 0]), [1]) == 7.0
        assert best_shift(logits, torch.tensor([1, 1, 0, 0]), [1]) == 3.5

    def test_beyond_the_outermost_threshold(self) -> None:
        logits = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
        assert best_shift(logits, torch.tensor([1, 1]), [1]) == 4.0
        assert best_shift(logits, torch.tensor([0, 0]), [1]) == 0.0

    def test_decisions_at_equal_thresholds_change_together(self) -> None:
        logits = torch.tensor([[1.0, 0.0]] * 3 + [[4.0, 0.0]])
        assert best_shift(logits, torch.tensor([1, 1, 0, 0]), [1]) == 2.5

    def test_shift_returns_a_copy(self) -> None:
        logits = torch.zeros(2, 3)
        assert shift_classes(logits, [0, 2], 1.5).tolist() == [[1.5, 0.0, 1.5]] * 2
        assert not logits.any()

    def test_recall_of_classes(self) -> None:
        predictions = random_predictions()
        of_classes = np.isin(predictions.target.numpy(), [1, 3])
        expected = (predictions.predicted == predictions.target).numpy()[of_classes].mean()
        assert recall_of(predictions, [1, 3]) == pytest.approx(expected, abs=1e-12)
        assert math.isnan(recall_of(Predictions(torch.eye(2), torch.tensor([0, 0])), [1]))

    def test_metrics_are_of_the_test_split_and_the_shift_is_chosen_on_the_validation_split(self) -> None:
        test, validation = random_predictions(seed=1), random_predictions(seed=2)
        for predictions in (test, validation):
            predictions.logits[:, 3] -= 5
        metrics = KIND.unseen(test, validation, [3])
        shift = best_shift(validation.logits, validation.target, [3])
        shifted = Predictions(shift_classes(test.logits, [3], shift), test.target)
        assert metrics == {
            "unseen_recall": pytest.approx(float(class_recall(test)[3])),
            "unseen_recall_shifted": pytest.approx(float(class_recall(shifted)[3])),
            "errors_shifted": KIND.metrics(shifted)["errors"],
            "unseen_shift": shift,
        }
        assert metrics["unseen_recall_shifted"] > metrics["unseen_recall"]
        assert metrics["errors_shifted"] < KIND.metrics(test)["errors"]

    @pytest.mark.parametrize(("val_size", "unseen"), [(0.1, [3]), (0.1, []), (0, [3])])
    def test_a_run_measures_unseen_classes_if_there_are_any_and_a_validation_split(
        self, val_size, unseen, tmp_path
    ) -> None:
        data = Digits(val_size=val_size, exclude_classes=unseen)
        data.setup()
        models = {role: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for role in ("teacher", "student")}
        measured = pipeline.evaluate(KIND, models, data, tmp_path, unseen)["models"]
        for role in models:
            assert ("errors_shifted" in measured[role]["metrics"]) is bool(val_size and unseen)


class TestCheck:
    sizes = {"in_shape": (4,), "num_classes": 3}
    batch = {"input": torch.zeros(2, 4), "target": torch.zeros(2, dtype=torch.long)}

    def error_of(self, model: nn.Module, batch=None) -> str:
        with pytest.raises(ConfigError) as caught:
            KIND.check("student", model, batch or self.batch, self.sizes)
        return str(caught.value)

    def test_accepts_a_model_that_fits(self) -> None:
        KIND.check("student", nn.Linear(4, 3), self.batch, self.sizes)
        KIND.check("student", nn.Linear(4, 3), {"input": torch.zeros(2, 4)}, self.sizes)

    def test_accepts_one_row_of_logits_for_each_position(self) -> None:
        batch = {"input": torch.zeros(2, 7, 4), "target": torch.zeros(2, 7, dtype=torch.long)}
        KIND.check("teacher", nn.Linear(4, 3), batch, self.sizes)

    def test_wrong_number_of_classes(self) -> None:
        line = self.error_of(nn.Linear(4, 5))
        assert re.search(r"student Linear does not fit the data.*\(2, 5\).*\(2, 3\).*num_classes=3", line)

    def test_data_without_classes(self) -> None:
        with pytest.raises(ConfigError, match=r"^teacher Linear needs data of classes, which have num_classes$"):
            KIND.check("teacher", nn.Linear(4, 3), {"input": torch.zeros(2, 4)}, {"in_shape": (4,)})
        with pytest.raises(ConfigError, match=r"^the data have 1 class; a classifier needs at least 2$"):
            KIND.check("teacher", nn.Linear(4, 1), {"input": torch.zeros(2, 4)}, {"in_shape": (4,), "num_classes": 1})

    def test_a_run_on_data_without_classes_is_refused_in_one_line(self, tmp_path) -> None:
        (tmp_path / "OF.txt").write_text("".join(f"{row} {2 + row % 3} {50 + row % 40}\n" for row in range(272)))
        choices = ["distiller=supervised", "data=old_faithful", "student=mlp", "student.num_classes=3"]
        cfg = config.compose(*choices, f"data.root={tmp_path}", f"output_dir={tmp_path / 'run'}")
        with pytest.raises(ConfigError, match=r"^student MLP needs data of classes, which have num_classes$"):
            pipeline.run(cfg)

    def test_one_row_of_logits_for_a_sequence_with_many_targets(self) -> None:
        batch = {"input": torch.zeros(2, 7, 4), "target": torch.zeros(2, 7, dtype=torch.long)}
        assert "(2, 7, 3)" in self.error_of(Returns(lambda inputs: torch.zeros(len(inputs), 3)), batch)

    def test_wrong_input_shape(self) -> None:
        line = self.error_of(nn.Linear(5, 3))
        assert line.startswith("student Linear cannot take an input of shape (2, 4): ")
        assert "\n" not in line

    @pytest.mark.parametrize(
        ("function", "name"),
        [
            (lambda inputs: {"logits": torch.zeros(2, 3)}, "dict"),
            (lambda inputs: (torch.zeros(2, 3),), "tuple"),
            (lambda inputs: None, "NoneType"),
            (lambda inputs: torch.zeros(2, 3, dtype=torch.long), "torch.int64"),
        ],
    )
    def test_output_that_is_not_a_tensor_of_logits(self, function, name) -> None:
        line = self.error_of(Returns(function))
        assert line == f"student Returns is not a classifier: it must return a tensor of logits, got {name}"

    def test_names_the_role(self) -> None:
        with pytest.raises(ConfigError, match=r"^teacher Linear"):
            KIND.check("teacher", nn.Linear(4, 5), self.batch, self.sizes)

    @pytest.mark.parametrize("mode", [True, False])
    def test_changes_neither_mode_nor_weights_nor_statistics(self, mode) -> None:
        model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train(mode)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        KIND.check("student", model, self.batch, self.sizes)
        assert model.training is mode
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_restores_the_mode_after_a_failure(self) -> None:
        model = nn.Linear(5, 3).train()
        self.error_of(model)
        assert model.training


class TestPredict:
    def test_all_positions_in_the_order_of_the_data(self) -> None:
        model = nn.Linear(4, 3)
        inputs, target = torch.randn(7, 4), torch.arange(7) % 3
        batches = [{"input": inputs[:5], "target": target[:5]}, {"input": inputs[5:], "target": target[5:]}]
        predictions = KIND.predict(model, batches)
        torch.testing.assert_close(predictions.logits, model(inputs).detach())
        assert torch.equal(predictions.target, target)
        assert torch.equal(predictions.predicted, model(inputs).argmax(1))

    def test_batches_may_be_pairs(self) -> None:
        inputs, target = torch.randn(7, 4), torch.arange(7) % 3
        assert torch.equal(KIND.predict(nn.Linear(4, 3), [(inputs, target)]).target, target)

    def test_leaves_out_unlabelled_samples(self) -> None:
        inputs, target = torch.randn(4, 4), torch.tensor([2, IGNORE, 0, IGNORE])
        model = nn.Linear(4, 3)
        predictions = KIND.predict(model, [{"input": inputs, "target": target}])
        torch.testing.assert_close(predictions.logits, model(inputs[[0, 2]]).detach())
        assert predictions.target.tolist() == [2, 0]

    def test_leaves_out_masked_and_unlabelled_positions_of_sequences(self) -> None:
        inputs = torch.randn(2, 3, 4)
        batch = {
            "input": inputs,
            "target": torch.tensor([[0, 1, 2], [2, IGNORE, 1]]),
            "mask": torch.tensor([[True, True, False], [True, True, False]]),
        }
        model = nn.Linear(4, 3)
        predictions = KIND.predict(model, [batch])
        expected = model(torch.stack([inputs[0, 0], inputs[0, 1], inputs[1, 0]])).detach()
        torch.testing.assert_close(predictions.logits, expected)
        assert predictions.target.tolist() == [0, 1, 2]

    def test_without_dropout_and_gradients(self) -> None:
        model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9)).train()
        batch = [(torch.randn(50, 4), torch.zeros(50, dtype=torch.long))]
        first, second = KIND.predict(model, batch), KIND.predict(model, batch)
        assert torch.equal(first.logits, second.logits)
        assert not first.logits.requires_grad

    def test_half_precision_becomes_single(self) -> None:
        model = nn.Linear(4, 3).to(torch.bfloat16)
        inputs = torch.randn(5, 4, dtype=torch.bfloat16)
        predictions = KIND.predict(model, [(inputs, torch.zeros(5, dtype=torch.long))])
        assert predictions.logits.dtype == torch.float32

    def test_a_module_without_parameters(self) -> None:
        predictions = KIND.predict(nn.Identity(), [(torch.eye(3), torch.arange(3))])
        assert KIND.metrics(predictions)["accuracy"] == 1.0

    def test_refuses_an_object_that_is_not_a_batch(self) -> None:
        with pytest.raises(DataError, match="a batch must be"):
            KIND.predict(nn.Identity(), [torch.eye(3)[0]])


class TestFigures:
    @pytest.mark.parametrize("roles", [["student"], ["teacher", "student", "control"]])
    def test_are_written_as_pictures(self, roles, tmp_path) -> None:
        predictions = {role: random_predictions(seed=i) for i, role in enumerate(roles)}
        files = KIND.plot_predictions(predictions, tmp_path / "figures")
        assert [file.name for file in files] == ["reliability.png", "class_recall.png"]
        assert all(file.read_bytes().startswith(PNG) for file in files)

    def test_a_class_without_samples_and_certainty(self, figures, tmp_path) -> None:
        predictions = Predictions(1000 * torch.eye(3)[[0, 1]], torch.tensor([0, 0]))
        KIND.plot_predictions({"student": predictions}, tmp_path)
        (reliability,), (recall,) = (figure.axes for figure in figures)
        # Both samples are in the last bin, one of the two predictions is right; classes 1 and 2 have no bar.
        assert reliability.collections[0].get_offsets().tolist() == [[1.0, 0.5]]
        heights = [bar.get_height() for bar in recall.patches]
        np.testing.assert_array_equal(heights, [0.5, np.nan, np.nan])

    def test_curve_and_bars_show_the_measured_numbers(self, tmp_path, monkeypatch) -> None:
        drawn = {}
        for name in ("reliability_diagram", "recall_by_class"):
            monkeypatch.setattr(
                f"kdzoo.kinds.classifier.plotting.{name}",
                lambda data, path, name=name, **options: drawn.update({name: (data, options)}) or path,
            )
        predictions = random_predictions()
        KIND.plot_predictions({"student": predictions}, tmp_path)
        (recall, _), (confidence, options) = drawn["recall_by_class"], drawn["reliability_diagram"]
        np.testing.assert_allclose(recall["student"], class_recall(predictions).numpy())
        probability, is_correct = confidence["student"]
        expected = softmax(predictions.logits.double().numpy(), axis=1).max(1)
        np.testing.assert_allclose(probability, expected, rtol=1e-5)
        assert is_correct.mean() == pytest.approx(KIND.metrics(predictions)["accuracy"])
        assert options == {"bins": CALIBRATION_BINS}


def test_is_found_by_name() -> None:
    assert isinstance(get("classifier"), ClassifierKind)
    with pytest.raises(ConfigError, match=r"kind must be one of adversarial, .*, got 'automat'"):
        get("automat")


def test_the_protocol_is_any_callable_module() -> None:
    assert isinstance(nn.Linear(4, 3), ClassifierModel)


# ---------------------------------------------------------------- figures of models


def test_matrix_product_states_are_drawn_and_other_models_are_not(tmp_path) -> None:
    torch.manual_seed(0)
    chain = MPSClassifier(in_shape=(1, 4, 5), num_classes=3, bond_dim=3)
    batch = {"input": torch.rand(9, 1, 4, 5), "target": torch.arange(9) % 3}
    data = SimpleNamespace(test_dataloader=lambda: [batch], train_eval_dataloader=lambda: [batch, batch])
    teacher = MLP(in_shape=(1, 4, 5), num_classes=3)
    files = KIND.plot_model({"student": chain, "teacher": teacher}, tmp_path, data)
    assert {"bond_spectra.png", "sobol_maps.png", "relevance_maps.png", "sobol_pairs.png"} < {f.name for f in files}
    assert KIND.plot_model({"student": teacher}, tmp_path, data) == []
    assert KIND.plot_model({"student": chain}, tmp_path) == []


def test_examples_are_the_first_of_each_labelled_class() -> None:
    batch = {"input": torch.arange(6.0)[:, None], "target": torch.tensor([2, IGNORE, 0, 2, 0, IGNORE])}
    images, classes = one_of_each_class([batch])
    assert classes == [0, 2]
    assert images.flatten().tolist() == [2.0, 0.0]


def test_no_more_inputs_are_read_than_needed() -> None:
    def batches():
        yield {"input": torch.zeros(4, 2)}
        yield {"input": torch.ones(4, 2)}
        raise AssertionError

    assert first_inputs(batches(), 6).sum().item() == 4


def test_data_without_labels_cannot_be_measured():
    batches = [(torch.zeros(3, 4), torch.full((3,), IGNORE))]
    with pytest.raises(DataError, match="have no labels; allowed: at least one labelled sample"):
        KIND.predict(MLP(in_shape=(4,), num_classes=2, hidden=[3]), batches)
