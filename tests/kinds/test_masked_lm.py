"""Masked language models: metrics, the comparison with a teacher, the figure, and the check."""

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from kdzoo import kinds
from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError
from kdzoo.kinds import masked_lm
from kdzoo.models import HFModel
from tests.kinds.text_cases import SIZES, VOCABULARY, bert, labelled_texts, masked_texts

pytest.importorskip("transformers")

KIND = kinds.get("masked_lm")


def test_metrics_are_those_of_torch():
    model, batches = bert("mlm").eval(), [masked_texts(), masked_texts(seed=1)]
    metrics = KIND.metrics(KIND.predict(model, batches))
    inputs, target = (torch.cat([batch[key] for batch in batches]) for key in ("input", "target"))
    logits = model(inputs)
    loss = cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORE)
    assert metrics["masked_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(loss.exp().item(), rel=1e-5)
    accuracy = (logits.argmax(-1) == target)[target != IGNORE].double().mean()
    assert metrics["masked_accuracy"] == pytest.approx(float(accuracy))


def test_fidelity_to_another_model_is_that_of_torch(monkeypatch):
    monkeypatch.setattr(masked_lm, "COMPARED_TOKENS", 20)
    batches = [masked_texts(), masked_texts(seed=1)]
    student, teacher = bert("mlm", 0).eval(), bert("mlm", 1).eval()
    fidelity = KIND.fidelity(KIND.predict(student, batches), KIND.predict(teacher, batches))
    inputs, target = (torch.cat([batch[key] for batch in batches]) for key in ("input", "target"))
    logits = [model(inputs)[target != IGNORE] for model in (student, teacher)]
    agreement = (logits[0].argmax(-1) == logits[1].argmax(-1)).double().mean()
    assert fidelity["agreement"] == pytest.approx(float(agreement))
    log_q, log_p = (values[:20].double().log_softmax(-1) for values in logits)
    kl = kl_div(log_q, log_p, log_target=True, reduction="batchmean").detach()
    assert fidelity["kl"] == pytest.approx(float(kl), rel=1e-4)


def test_a_model_agrees_with_itself():
    predictions = KIND.predict(bert("mlm"), [masked_texts()])
    assert KIND.fidelity(predictions, predictions) == {"agreement": 1.0, "kl": pytest.approx(0.0, abs=1e-9)}


def test_log_probabilities_are_drawn_against_the_teacher(figures, tmp_path):
    batch, models = masked_texts(), {role: bert("mlm", seed).eval() for seed, role in enumerate(("teacher", "student"))}
    predictions = {role: KIND.predict(model, [batch]) for role, model in models.items()}
    assert KIND.plot_predictions(predictions, tmp_path) == [tmp_path / "log_probabilities.png"]
    masked = batch["target"] != IGNORE
    of_role = {
        role: -cross_entropy(model(batch["input"])[masked], batch["target"][masked], reduction="none").detach()
        for role, model in models.items()
    }
    (points,) = figures[0].axes[0].collections
    expected = torch.stack([of_role["teacher"], of_role["student"]], 1)
    torch.testing.assert_close(torch.tensor(points.get_offsets()).float(), expected, rtol=1e-5, atol=1e-5)
    assert figures[0].axes[0].get_xlabel() == "log-probability, teacher (nats)"
    assert KIND.plot_predictions({"student": predictions["student"]}, tmp_path) == []


def test_texts_without_masks_are_refused():
    with pytest.raises(ConfigError, match=r"^teacher Bert needs data of masked texts, such as data=text"):
        KIND.check("teacher", bert("mlm"), labelled_texts(), SIZES)


def test_a_split_without_masked_tokens_is_refused():
    unmasked = {**masked_texts(), "target": torch.full((12, 8), IGNORE)}
    with pytest.raises(ConfigError, match=r"^data has no masked token to measure on; set data\.mask_rate above 0$"):
        KIND.check("student", bert("mlm"), unmasked, SIZES)


def test_a_teacher_without_a_head_is_refused(tmp_path):
    bert("embedding").model.save_pretrained(tmp_path)
    teacher = HFModel(str(tmp_path), task="mlm")
    with pytest.raises(ConfigError, match=r"^teacher HFModel has no masked-language head: its folder lacks cls\."):
        KIND.check("teacher", teacher, masked_texts(), SIZES)
    KIND.check("student", teacher, masked_texts(), SIZES)  # a student learns its head


def test_an_embedding_table_may_have_more_rows_than_there_are_tokens():
    KIND.check("teacher", bert("mlm"), masked_texts(), {**SIZES, "vocab_size": VOCABULARY - 3})
    with pytest.raises(ConfigError, match=r"^teacher Bert does not fit the data: its logits have shape \(12, 8, 40\)"):
        KIND.check("teacher", bert("mlm"), masked_texts(), {**SIZES, "vocab_size": VOCABULARY + 1})
