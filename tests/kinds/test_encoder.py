"""Encoders: the linear probe, the comparison with a teacher, the figure, and the check."""

from itertools import combinations
from pathlib import Path

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from kdzoo import kinds
from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError
from kdzoo.kinds import encoder
from kdzoo.kinds.encoder import Predictions
from tests.kinds.text_cases import SIZES, VOCABULARY, OneBatch, bert, labelled_texts, masked_texts

pytest.importorskip("transformers")

KIND = kinds.get("encoder")


def test_the_probe_is_logistic_regression_on_the_labelled_vectors():
    batch, test = labelled_texts(60), labelled_texts(seed=2)
    test["target"][3] = IGNORE
    kind, model = KIND.bind(OneBatch(batch), cache=Path()), bert("embedding").eval()
    vectors, test_vectors = (model(texts["input"]).detach().double() for texts in (batch, test))
    mean, deviation = vectors.mean(0), vectors.std(0, correction=0)
    probe = LogisticRegression(max_iter=200).fit((vectors - mean) / deviation, batch["target"])
    labelled = test["target"] != IGNORE
    expected = probe.score((test_vectors[labelled] - mean) / deviation, test["target"][labelled])
    assert kind.metrics(kind.predict(model, [test])) == {"probe_accuracy": pytest.approx(expected)}


def test_the_probe_learns_from_the_first_texts(monkeypatch):
    monkeypatch.setattr(encoder, "PROBE_TEXTS", 40)
    data = OneBatch(labelled_texts())
    data.train_eval_dataloader = lambda: [labelled_texts(seed=seed) for seed in range(3)]
    bound = KIND.bind(data, cache=Path())
    assert [len(batch["input"]) for batch in bound.train_batches] == [30, 10]
    assert KIND.train_batches == []  # the registered kind is shared between runs


def test_an_encoder_agrees_with_itself_and_less_with_another():
    kind = KIND.bind(OneBatch(labelled_texts()), cache=Path())
    first, other = (kind.predict(bert("embedding", seed), [labelled_texts(seed=2)]) for seed in (0, 1))
    fidelity = kind.fidelity(first, first)
    assert fidelity == {"cosine": pytest.approx(1.0), "similarity_correlation": pytest.approx(1.0)}
    assert kind.fidelity(first, other)["cosine"] < 0.999


def test_vectors_of_another_width_have_no_cosine_but_similarities():
    vectors = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    empty = torch.empty(0)
    narrow = Predictions(vectors, empty, empty, empty)
    # Zeros change no similarity.
    wide = Predictions(torch.cat([vectors, torch.zeros(20, 3)], 1), empty, empty, empty)
    assert KIND.fidelity(narrow, wide) == {"similarity_correlation": pytest.approx(1.0)}


def test_similarities_are_drawn_against_the_teacher(figures, tmp_path):
    kind = KIND.bind(OneBatch(labelled_texts()), cache=Path())
    models = {role: bert("embedding", seed).eval() for seed, role in enumerate(("teacher", "student"))}
    predictions = {role: kind.predict(model, [labelled_texts()]) for role, model in models.items()}
    assert kind.plot_predictions(predictions, tmp_path) == [tmp_path / "similarities.png"]
    expected = []
    for role in ("teacher", "student"):
        vectors = models[role](labelled_texts()["input"]).detach()
        pairs = list(combinations(vectors, 2))
        expected.append(torch.stack([torch.cosine_similarity(first, second, dim=0) for first, second in pairs]))
    (points,) = figures[0].axes[0].collections
    torch.testing.assert_close(torch.tensor(points.get_offsets()).float(), torch.stack(expected, 1), atol=1e-5, rtol=0)
    assert kind.plot_predictions({"student": predictions["student"]}, tmp_path) == []


class ReturnsList(torch.nn.Module):
    def forward(self, input):
        return [input]


@pytest.mark.parametrize(
    ("model", "batch", "message"),
    [
        (
            lambda: torch.nn.Embedding(VOCABULARY, 4),
            labelled_texts(),
            r"teacher Embedding is not an encoder: it must return vectors \[batch, width\], got \(30, 8, 4\)",
        ),
        (ReturnsList, labelled_texts(), r"teacher ReturnsList is not an encoder: .* got list"),
        (lambda: bert("embedding"), masked_texts(), "teacher Bert needs data with one label per text"),
        (lambda: torch.nn.Linear(3, 3), labelled_texts(), r"teacher Linear cannot take an input of shape \(30, 8\)"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(model, batch, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        KIND.check("teacher", model(), batch, SIZES)
