"""The objectives of a search for layers, compared with NumPy on batches of different lengths."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torch import nn

from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError, DataError
from tests.layer_init.cases import PAD, VOCABULARY, made, outputs_of, texts

pytest.importorskip("transformers")
from kdzoo.layer_init import fidelity_objective, loss_objective, probe_objective, search_layers, truncated_layers


def batches(**targets):
    """Return two batches of texts, of different sizes and lengths."""
    result = [{"input": texts(5, 9)}, {"input": texts(3, 6, seed=1)}]
    for key, value in targets.items():
        for batch, tensor in zip(result, value, strict=True):
            batch[key] = tensor
    return result


def states(model, pooled: bool):
    """Return last hidden states of single texts without padding: [tokens, hidden], or the means [texts, hidden]."""
    rows = []
    for batch in batches():
        for ids in batch["input"]:
            alone = outputs_of(model.base_model, ids[ids != PAD][None]).last_hidden_state[0].double().numpy()
            rows.extend([alone.mean(0)] if pooled else list(alone))
    return np.stack(rows)


@pytest.mark.parametrize(("head", "pooled"), [("ForMaskedLM", False), ("Model", True)], ids=["tokens", "vectors"])
def test_fidelity_is_the_mean_cosine_to_the_full_teacher(head, pooled):
    teacher = made("Bert", head)
    score, t = fidelity_objective(batches(), teacher, pad_id=PAD), states(teacher, pooled)
    assert score(teacher) == pytest.approx(1, abs=1e-6)
    with truncated_layers(teacher, [0, 2]):
        s = states(teacher, pooled)
        cosines = (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)
        assert score(teacher) == pytest.approx(cosines.mean(), abs=1e-6)
        assert score(teacher) < 0.999


def test_fidelity_of_a_decoder_compares_its_hidden_states():
    teacher = made("GPT2")
    score, t = fidelity_objective(batches(), teacher, pad_id=PAD), states(teacher, False)
    with truncated_layers(teacher, [1, 3]):
        s = states(teacher, False)
        cosines = (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)
        assert score(teacher) == pytest.approx(cosines.mean(), abs=1e-6)


def test_without_a_padding_token_every_position_counts():
    teacher = made("Bert", "Model")
    rows = [hidden_states_unmasked(teacher, batch["input"]) for batch in batches()]
    t = np.concatenate([row.mean(1) for row in rows])
    score = fidelity_objective(batches(), teacher, pad_id=None)
    with truncated_layers(teacher, [0, 2]):
        s = np.concatenate([hidden_states_unmasked(teacher, batch["input"]).mean(1) for batch in batches()])
        cosines = (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)
        assert score(teacher) == pytest.approx(cosines.mean(), abs=1e-6)


def hidden_states_unmasked(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).last_hidden_state.double().numpy()


def logistic_regression(x, y, strength: float = 1.0):
    """Return weights and biases of softmax regression with a squared penalty on weights, by Newton's method."""
    classes, (n, d) = int(y.max()) + 1, x.shape
    inputs = np.concatenate([x, np.ones((n, 1))], 1)
    weights, targets = np.zeros((d + 1, classes)), np.eye(classes)[y]
    penalty = np.kron(np.diag([1.0] * d + [1e-9]), np.eye(classes)) / strength
    for _ in range(50):
        z = inputs @ weights
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        gradient = (inputs.T @ (p - targets)).ravel() + penalty @ weights.ravel()
        curvature = sum(np.kron(np.outer(a, a), np.diag(q) - np.outer(q, q)) for a, q in zip(inputs, p, strict=True))
        weights -= np.linalg.solve(curvature + penalty + 1e-9 * np.eye(len(penalty)), gradient).reshape(weights.shape)
    return weights


def test_probe_is_the_accuracy_of_a_regression_over_three_folds():
    pytest.importorskip("sklearn")
    generator = torch.Generator().manual_seed(5)
    ids = [torch.randint(1, VOCABULARY, (15, 6), generator=generator) for _ in range(2)]
    y = torch.randint(0, 2, (30,), generator=generator)
    held_out = [{"input": one, "target": part} for one, part in zip(ids, y.split(15), strict=True)]
    teacher = made("Bert", "Model")
    x = np.concatenate([hidden_states_unmasked(teacher, one).mean(1) for one in ids])
    y = y.numpy()
    fold = np.empty(30, dtype=int)
    for one in (0, 1):  # folds in order of appearance, each with its share of both classes
        members = np.flatnonzero(y == one)
        sizes = np.bincount(np.arange(len(y))[np.sort(y) == one] % 3, minlength=3)
        fold[members] = np.repeat(np.arange(3), sizes)
    accuracies = []
    for number in range(3):
        weights = logistic_regression(x[fold != number], y[fold != number])
        held = fold == number
        prediction = (np.concatenate([x[held], np.ones((held.sum(), 1))], 1) @ weights).argmax(1)
        accuracies.append((prediction == y[held]).mean())
    assert probe_objective(held_out, teacher, pad_id=PAD)(teacher) == pytest.approx(np.mean(accuracies), abs=1e-9)
    assert 0 < np.mean(accuracies) < 1


def test_loss_is_minus_the_cross_entropy_of_masked_tokens():
    teacher, held_out = made("Bert"), batches()
    total, count = 0.0, 0
    for batch in held_out:
        batch["target"] = torch.where(batch["input"] % 3 == 1, batch["input"], IGNORE)
        logits = outputs_of(teacher, batch["input"]).logits.double().numpy()
        for row, column in np.argwhere(batch["target"].numpy() != IGNORE):
            z = logits[row, column]
            total += np.log(np.exp(z).sum()) - z[batch["target"][row, column]]
            count += 1
    assert count > 5
    assert loss_objective(held_out, teacher, pad_id=PAD)(teacher) == pytest.approx(-total / count, abs=1e-6)


def test_loss_of_a_classifier_is_the_mean_over_labelled_texts():
    teacher = made("Bert", "ForSequenceClassification", num_labels=3)
    held_out = batches(target=[torch.tensor([0, 1, 2, IGNORE, 1]), torch.tensor([2, 2, 0])])
    losses = []
    for batch in held_out:
        for z, target in zip(outputs_of(teacher, batch["input"]).logits.double().numpy(), batch["target"], strict=True):
            losses.extend([] if target == IGNORE else [np.log(np.exp(z).sum()) - z[target]])
    assert len(losses) == 7
    assert loss_objective(held_out, teacher, pad_id=PAD)(teacher) == pytest.approx(-np.mean(losses), abs=1e-6)


def test_scores_change_neither_mode_nor_gradients():
    model = made("Bert").train()
    held_out = [{"input": ids["input"], "target": ids["input"]} for ids in batches()]
    for factory in (fidelity_objective, loss_objective):
        score = factory(held_out, model, pad_id=PAD)
        assert score(model) == score(model)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_best_layers_for_the_loss_have_the_least_loss():
    teacher = made("Bert")
    held_out = [{"input": one["input"], "target": one["input"]} for one in batches()]
    score = loss_objective((batch for batch in held_out), teacher, pad_id=PAD)
    search = search_layers(teacher, 2, score)
    with truncated_layers(teacher, search.layers):
        assert score(teacher) == search.score == max(search.scores.values())
    assert len(set(search.scores.values())) > 1


CLASSES = [torch.tensor([0, 1, 0, 1, 0]), torch.tensor([1, 0, 1])]


@pytest.mark.parametrize(
    "factory", [fidelity_objective, probe_objective, loss_objective], ids=["fidelity", "probe", "loss"]
)
@pytest.mark.parametrize(
    ("held_out", "line"),
    [
        ([], "held-out batches must have at least one text, got none"),
        (
            [{"input": torch.ones(2, 3)}],
            r"input of batch 0 must be int64 \[batch, length\], got torch.float32 \[2, 3\]",
        ),
        ([{"input": torch.ones(3, dtype=torch.int64)}], r"input of batch 0 must be int64 .*, got torch.int64 \[3\]"),
        ([{"input": torch.tensor([[1, 0], [0, 0]])}], "input of batch 0 has a text without tokens, only padding 0"),
    ],
    ids=["no-texts", "not-tokens", "not-texts", "only-padding"],
)
def test_invalid_texts_are_refused(factory, held_out, line):
    with pytest.raises(DataError, match=f"^{line}$"):
        factory(held_out, made("Bert"), pad_id=PAD)


@pytest.mark.parametrize(
    ("factory", "targets", "line"),
    [
        (probe_objective, None, r"probe needs a 'target' in every batch, batch 0 has \['input'\]"),
        (loss_objective, None, r"loss needs a 'target' in every batch, batch 0 has \['input'\]"),
        (
            probe_objective,
            [torch.ones(5, 9, dtype=torch.int64), CLASSES[1]],
            r"probe needs .* shape \[5\], batch 0 has .* \[5, 9\]",
        ),
        (
            loss_objective,
            [CLASSES[0], torch.ones(3)],
            r"loss needs .* \[3\] or \[3, 6\], batch 1 has torch.float32 \[3\]",
        ),
        (
            probe_objective,
            [CLASSES[0] * 0, CLASSES[1] * 0],
            r"probe needs two or more classes .*, got \[8\] texts by class",
        ),
        (probe_objective, [torch.tensor([0, 0, 0, 0, 1]), CLASSES[1]], None),
        (
            probe_objective,
            [torch.zeros(5).long(), CLASSES[1]],
            r"probe needs .* at least 3 texts each, got \[6, 2\] texts by class",
        ),
        (
            loss_objective,
            [CLASSES[0] * 0 - 100, CLASSES[1] * 0 - 100],
            r"loss needs targets, got -100 \(none\) at every position",
        ),
    ],
    ids=[
        *("probe-none", "loss-none", "probe-of-tokens", "loss-of-floats", "one-class", "enough-of-each", "rare-class"),
        "nothing-known",
    ],
)
def test_invalid_targets_are_refused(factory, targets, line):
    held_out = batches() if targets is None else batches(target=targets)
    if line is None:
        teacher = made("Bert")
        vectors, classes = states(teacher, True), torch.cat(targets).numpy()
        expected = cross_val_score(LogisticRegression(max_iter=1000), vectors, classes, cv=3).mean()
        assert factory(held_out, teacher, pad_id=PAD)(teacher) == pytest.approx(expected)
        return
    with pytest.raises(DataError, match=f"^{line}$"):
        factory(held_out, made("Bert"), pad_id=PAD)


@pytest.mark.parametrize(
    ("head", "targets", "line"),
    [
        ("Model", CLASSES, "loss needs a teacher with a head that gives logits, got BertModel"),
        ("ForMaskedLM", CLASSES, r"loss needs targets \[batch, length\] for the head of BertForMaskedLM, got \[5\]"),
        (
            "ForSequenceClassification",
            [torch.tensor([0, 1, 2, 0, 0]), CLASSES[1]],
            r"targets must be in 0\.\.1, the classes of BertForSequenceClassification, got 0\.\.2",
        ),
        (
            "ForSequenceClassification",
            [torch.tensor([0, 1, -1, 0, 0]), CLASSES[1]],
            r"targets must be in 0\.\.1, the classes of BertForSequenceClassification, got -1\.\.1",
        ),
    ],
    ids=["no-head", "head-of-tokens", "too-few-classes", "negative"],
)
def test_a_head_that_does_not_fit_is_refused(head, targets, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        loss_objective(batches(target=targets), made("Bert", head), pad_id=PAD)


@pytest.mark.parametrize(
    "factory", [fidelity_objective, probe_objective, loss_objective], ids=["fidelity", "probe", "loss"]
)
def test_a_model_that_is_not_of_transformers_is_refused(factory):
    objective = factory.__name__.removesuffix("_objective")
    line = f"{objective} needs a model of transformers, got Linear; allowed for other models: your own score function"
    with pytest.raises(ConfigError, match=f"^{line}$"):
        factory(batches(target=CLASSES), nn.Linear(1, 1), pad_id=PAD)


def test_a_padding_id_below_zero_is_refused():
    with pytest.raises(ConfigError, match=r"^pad_id must be an integer >= 0, got -1$"):
        fidelity_objective(batches(), made("Bert"), pad_id=-1)
