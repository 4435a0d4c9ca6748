"""The kind of language models against NumPy and strings that are counted by hand, and whole trainings."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from kdzoo.core.batch import IGNORE
from kdzoo.data import OracleStrings, Reber
from kdzoo.data.sequences.token_sequence_data import Corpus, TokenSequenceData
from kdzoo.distillers import LogitKD, Supervised
from kdzoo.errors import ConfigError
from kdzoo.kinds import LanguageModelKind, get
from kdzoo.kinds.language_model import Predictions, distinct_strings, mean_kl, sequence_log_probs
from kdzoo.models import MLP, RNNLM
from kdzoo.runs.training import Training, fit
from kdzoo.text.language_model import sequence_log_probs as of_strings
from kdzoo.text.token_sequences import TokenSequences

KIND = LanguageModelKind()
SIZES = {"num_classes": 4, "vocab_size": 4}
LISTS = [[0, 1, 2], [], [2, 2], [0, 1, 2], [1]]
STRINGS = TokenSequences.of(LISTS)
N = STRINGS.n_prefixes
EPS = np.finfo(np.float64).tiny


def batches(strings=STRINGS, size=2, **extra):
    """Yield batches as data modules do, each padded to its own longest string."""
    for start in range(0, len(strings), size):
        index = torch.arange(start, min(start + size, len(strings)))
        inputs, targets = strings.select(index).inputs_and_targets(4)
        yield {"input": inputs, "target": targets, "mask": targets != IGNORE, "index": index} | {
            key: value(inputs) for key, value in extra.items()
        }


class LastSymbolModel(nn.Module):
    """A language model whose logits depend on the last symbol alone."""

    def __init__(self, logits):
        super().__init__()
        self.vocab_size, self.logits = 4, torch.as_tensor(logits)

    def forward(self, inputs):
        return self.logits[inputs]

    def initial_state(self, n):
        return torch.full((n,), 3)

    def step(self, state, token):
        return token

    def next_log_probs(self, state):
        return self.logits[state].log_softmax(-1)

    def hidden(self, state):
        return nn.functional.one_hot(state, 4).float()


def random_logits(seed, dtype=torch.float64):
    return 2 * torch.randn(4, 4, dtype=dtype, generator=torch.Generator().manual_seed(seed))


MODEL, TRUTH = LastSymbolModel(random_logits(0)), LastSymbolModel(random_logits(1))
LASTS = np.array([symbol for tokens in LISTS for symbol in (3, *tokens)])
NEXTS = np.array([symbol for tokens in LISTS for symbol in (*tokens, 3)])


def table(model):
    """Return the log-probabilities of the next symbol at each point [N, V], in NumPy."""
    return log_softmax(model.logits.double().numpy(), axis=1)[LASTS]


def with_truth(truth=TRUTH):
    return batches(truth=lambda inputs: truth.logits.log_softmax(-1)[inputs])


class TestPredict:
    def test_all_positions_in_the_order_of_the_data(self):
        predictions = KIND.predict(MODEL, batches())
        np.testing.assert_allclose(predictions.log_probs, table(MODEL), rtol=1e-12)
        assert predictions.target.tolist() == NEXTS.tolist()
        assert predictions.string.tolist() == [0] * 4 + [1] + [2] * 3 + [3] * 4 + [4] * 2
        assert predictions.truth is None
        np.testing.assert_allclose(KIND.predict(MODEL, with_truth()).truth, table(TRUTH), rtol=1e-12)

    def test_predictions_do_not_depend_on_the_batch_size(self):
        small, large = (KIND.predict(MODEL, batches(size=size)) for size in (1, 5))
        assert torch.equal(small.log_probs, large.log_probs)
        assert torch.equal(small.string, large.string)

    def test_logits_become_log_probabilities_at_least_in_single_precision(self):
        predictions = KIND.predict(LastSymbolModel(random_logits(0, torch.bfloat16) + 7), batches())
        assert predictions.log_probs.dtype == torch.float32
        torch.testing.assert_close(predictions.log_probs.logsumexp(1), torch.zeros(N), rtol=0, atol=1e-6)

    def test_probability_zero_stays_so_and_an_impossible_prefix_is_not_nan(self):
        logits = random_logits(0)
        logits[0, 2], logits[1] = -math.inf, -math.inf
        predictions = KIND.predict(LastSymbolModel(logits), batches()).log_probs
        assert not predictions.isnan().any()
        assert torch.equal(predictions.isneginf(), logits.isneginf()[LASTS])

    def test_is_in_eval_mode_and_without_gradients(self):
        model = RNNLM(vocab_size=4, dropout=0.9).train()
        first, second = KIND.predict(model, batches()), KIND.predict(model, batches())
        assert torch.equal(first.log_probs, second.log_probs)
        assert not first.log_probs.requires_grad


class TestMetrics:
    def test_agree_with_numpy(self):
        scores = KIND.metrics(KIND.predict(MODEL, batches()))
        log_probs = table(MODEL)
        mean = log_probs[np.arange(N), NEXTS].mean()
        assert scores == {
            "log_prob": pytest.approx(mean, rel=1e-12),
            "perplexity": pytest.approx(math.exp(-mean), rel=1e-12),
            "accuracy": pytest.approx((log_probs.argmax(1) == NEXTS).mean(), rel=1e-12),
        }
        assert scores["log_prob"] == pytest.approx(float(of_strings(MODEL, STRINGS).sum()) / N, rel=1e-12)

    def test_the_divergence_from_the_truth(self):
        scores = KIND.metrics(KIND.predict(MODEL, with_truth()))
        p, q = table(TRUTH), table(MODEL)
        assert scores["kl_from_truth"] == pytest.approx((np.exp(p) * (p - q)).sum(1).mean(), rel=1e-9)

    def test_the_competitions_score_is_over_distinct_strings(self):
        scores = KIND.metrics(KIND.predict(MODEL, with_truth()))
        distinct = TokenSequences.of([LISTS[i] for i in (0, 1, 2, 4)])
        truth = softmax(of_strings(TRUTH, distinct).numpy())
        model = softmax(of_strings(MODEL, distinct).numpy())
        assert scores["pautomac_score"] == pytest.approx(2 ** -(truth * np.log2(model)).sum(), rel=1e-12)

    def test_the_truth_has_no_divergence_from_itself(self):
        scores = KIND.metrics(KIND.predict(TRUTH, with_truth()))
        assert scores["kl_from_truth"] == pytest.approx(0, abs=1e-12)
        assert scores["pautomac_score"] < KIND.metrics(KIND.predict(MODEL, with_truth()))["pautomac_score"]

    def test_a_model_that_gives_probability_zero_to_the_data_has_infinite_scores(self):
        logits = random_logits(0)
        logits[:, 3] = -math.inf  # never ends
        scores = KIND.metrics(KIND.predict(LastSymbolModel(logits), with_truth()))
        assert scores["log_prob"] == -math.inf
        assert scores["perplexity"] == scores["kl_from_truth"] == scores["pautomac_score"] == math.inf
        assert scores["accuracy"] == pytest.approx((logits.argmax(1)[LASTS].numpy() == NEXTS).mean())

    def test_the_score_is_one_of_the_metrics(self):
        assert KIND.score in KIND.metrics(KIND.predict(MODEL, batches()))

    def test_of_equal_strings_the_first_one_counts(self):
        predictions = KIND.predict(MODEL, batches())
        assert distinct_strings(predictions).tolist() == [0, 1, 2, 4]
        summed = sequence_log_probs(predictions, predictions.log_probs)
        np.testing.assert_allclose(summed, of_strings(MODEL, STRINGS), rtol=1e-12)


class TestOracle:
    def test_generated_strings_are_scored_by_the_oracle_of_the_data(self, tmp_path):
        data = OracleStrings(tokens=4, length=5, n_train=8, batch_size=8, n_test=40, n_scored=200)
        data.setup()
        kind = LanguageModelKind().bind(data, tmp_path)
        model = LastSymbolModel(random_logits(0)[:, [0, 1, 2, 2, 3]][[0, 1, 2, 2, 3]])
        scores = kind.metrics(kind.predict(model, data.test_dataloader()))
        assert scores["oracle_nll"] == data.oracle_nll(model)
        assert scores["test_nll"] == -scores["log_prob"]

    def test_the_oracle_is_a_reference(self, tmp_path):
        data = OracleStrings(tokens=4, length=5, n_train=8, batch_size=8, n_test=400, n_scored=400)
        data.setup()
        kind = LanguageModelKind().bind(data, tmp_path)
        references = kind.reference_models({}, data)
        assert references == {"oracle": data.oracle}
        scores = kind.metrics(kind.predict(data.oracle, data.test_dataloader()))
        assert scores["oracle_nll"] == pytest.approx(scores["test_nll"], abs=0.1)

    def test_other_data_have_none(self, tmp_path):
        data = Reber(n_train=8, n_val=2, n_test=4, batch_size=8)
        data.setup()
        kind = LanguageModelKind().bind(data, tmp_path)
        assert kind.reference_models({}, data) == {}
        assert "oracle_nll" not in kind.metrics(kind.predict(RNNLM(vocab_size=8), data.test_dataloader()))


class TestFidelity:
    def test_agrees_with_numpy(self):
        fidelity = KIND.fidelity(KIND.predict(MODEL, batches()), KIND.predict(TRUTH, batches()))
        p, q = table(TRUTH), table(MODEL)
        assert fidelity["kl"] == pytest.approx((np.exp(p) * (p - q)).sum(1).mean(), rel=1e-9)
        assert fidelity["agreement"] == pytest.approx((p.argmax(1) == q.argmax(1)).mean())

    def test_a_model_agrees_with_itself(self):
        predictions = KIND.predict(MODEL, batches())
        assert KIND.fidelity(predictions, predictions) == {"agreement": 1.0, "kl": 0.0}

    def test_divergence_is_infinite_only_where_the_student_alone_gives_probability_zero(self):
        inf = math.inf
        sure, even = torch.tensor([[0.0, -inf]]), torch.tensor([[0.5, 0.5]]).log()
        assert mean_kl(sure, even) == inf
        assert mean_kl(even, sure) == pytest.approx(math.log(2))
        assert mean_kl(sure, sure) == 0.0
        assert mean_kl(torch.full((1, 2), -inf), even) == inf

    def test_positions_after_an_impossible_prefix_are_left_out(self):
        nothing, even = torch.full((1, 2), -math.inf), torch.tensor([[0.5, 0.5]]).log()
        skew = torch.tensor([[0.25, 0.75]]).log()
        student, teacher = torch.cat([skew, skew]), torch.cat([nothing, even])
        assert mean_kl(student, teacher) == pytest.approx(mean_kl(skew, even), rel=1e-6)


class TestCheck:
    batch = next(iter(batches()))

    def test_accepts_a_language_model_and_leaves_its_mode(self):
        model = RNNLM(vocab_size=4).train()
        get("language_model").check("teacher", model, self.batch, SIZES)
        assert model.training

    def test_a_classifier_lacks_the_functions_of_a_language_model(self):
        missing = "vocab_size, initial_state, step, next_log_probs, hidden"
        message = rf"^student MLP is not a language model .*: it lacks {missing}$"
        with pytest.raises(ConfigError, match=message):
            KIND.check("student", MLP(in_shape=(3,), num_classes=4), self.batch, SIZES)

    def test_the_missing_method_is_named(self):
        model = nn.Sequential()
        model.vocab_size, model.initial_state, model.step = 4, len, max
        with pytest.raises(ConfigError, match=r": it lacks next_log_probs, hidden$"):
            KIND.check("student", model, self.batch, SIZES)

    def test_another_number_of_symbols(self):
        message = r"^teacher RNNLM does not fit the data: its logits have shape \(2, 4, 5\), the data need \(2, 4, 4\)"
        with pytest.raises(ConfigError, match=message + r" \(vocab_size=4\)$"):
            KIND.check("teacher", RNNLM(vocab_size=5), self.batch, SIZES)
        with pytest.raises(ConfigError, match=r"^teacher RNNLM cannot take an input of shape \(2, 4\): "):
            KIND.check("teacher", RNNLM(vocab_size=3), self.batch, SIZES)

    def test_data_without_strings(self):
        with pytest.raises(ConfigError, match=r"^teacher RNNLM needs data of strings, which have a vocab_size$"):
            KIND.check("teacher", RNNLM(vocab_size=4), self.batch, {"in_shape": (4,), "num_classes": 4})

    def test_no_tensor_of_logits(self):
        model = LastSymbolModel(random_logits(0))
        model.forward = lambda inputs: (inputs,)
        message = r"^student LastSymbolModel is not a language model: it must return a tensor of logits, got tuple$"
        with pytest.raises(ConfigError, match=message):
            KIND.check("student", model, self.batch, SIZES)


class TestFigures:
    def drawn(self, tmp_path, monkeypatch, predictions):
        calls = []

        def draw(*args, **options):
            calls.append((args, options))
            return tmp_path

        monkeypatch.setattr("kdzoo.plotting.log_prob_scatter", draw)
        KIND.plot_predictions(predictions, tmp_path)
        return calls

    def test_every_string_under_student_and_control_against_the_teacher(self, tmp_path, monkeypatch):
        roles = {
            role: KIND.predict(LastSymbolModel(random_logits(i)), batches())
            for i, role in enumerate(("student", "control"))
        }
        roles = {"teacher": KIND.predict(TRUTH, batches()), **roles, "k-means": roles["student"]}
        [((x, y, _), options)] = self.drawn(tmp_path, monkeypatch, roles)
        assert options == {"reference": "teacher"}
        np.testing.assert_allclose(x, of_strings(TRUTH, STRINGS), rtol=1e-12)
        assert set(y) == {"student", "control"}
        np.testing.assert_allclose(y["student"], of_strings(LastSymbolModel(random_logits(0)), STRINGS), rtol=1e-12)

    def test_against_the_truth_where_there_is_no_teacher(self, tmp_path, monkeypatch):
        [((x, _, _), options)] = self.drawn(tmp_path, monkeypatch, {"student": KIND.predict(MODEL, with_truth())})
        assert options == {"reference": "truth"}
        np.testing.assert_allclose(x, of_strings(TRUTH, STRINGS), rtol=1e-12)
        assert self.drawn(tmp_path, monkeypatch, {"student": KIND.predict(MODEL, batches())}) == []

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("shift", [0.0, -math.inf])
    def test_impossible_strings_can_be_plotted(self, tmp_path, shift):
        student = random_logits(0)
        student[2] += torch.tensor([0.0, 0.0, 0.0, shift])
        roles = {
            "teacher": KIND.predict(TRUTH, batches()),
            "student": KIND.predict(LastSymbolModel(student), batches()),
        }
        [path] = KIND.plot_predictions(roles, tmp_path / "figures")
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


# all strings of up to three tokens in which tokens never fall
RISING = TokenSequences.of([s for m in range(4) for s in itertools.product(range(3), repeat=m) if list(s) == sorted(s)])


class RisingStrings(TokenSequenceData):
    def load(self):
        return Corpus(RISING, RISING, RISING, ("a", "b", "c"))


class TestTraining:
    def train(self, folder, distiller, epochs=40):
        data = RisingStrings(batch_size=8)
        data.setup()
        settings = {"max_epochs": epochs, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1}
        history = fit(distiller, data, Training(settings, folder, 0, "test"))
        return history, KIND.metrics(KIND.predict(distiller.student, data.test_dataloader()))

    def test_a_language_model_learns_strings_from_labels(self, tmp_path):
        torch.manual_seed(0)
        model = RNNLM(vocab_size=4, hidden=16)
        adam = lambda parameters: torch.optim.Adam(parameters, lr=0.02)  # noqa: E731
        before = KIND.metrics(KIND.predict(model, batches(RISING)))
        history, after = self.train(tmp_path, Supervised(model, optimizer=adam))
        assert before["log_prob"] < -1.2
        assert after["log_prob"] == pytest.approx(history.validation[-1]["val/hard"] * -1, rel=1e-5)
        # 20 equally likely strings have log 20 nats each
        assert after["log_prob"] > -1.1 * math.log(20) * 20 / RISING.n_prefixes
        falling = TokenSequences.of([[1, 0], [2, 1], [2, 0]])
        assert of_strings(model, falling).exp().sum() < 0.05

    def test_micro_batches_of_strings_have_the_gradient_of_the_whole(self, tmp_path):
        weights = []
        for size in (None, 3):
            torch.manual_seed(0)
            model = RNNLM(vocab_size=4, hidden=8).double()
            sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.5)  # noqa: E731
            distiller = Supervised(model, optimizer=sgd, micro_batch_size=size)
            self.train(tmp_path / str(size), distiller, epochs=2)
            weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        torch.testing.assert_close(*weights, rtol=1e-9, atol=1e-12)

    def test_a_language_model_learns_from_another(self, tmp_path):
        torch.manual_seed(0)
        teacher, student = RNNLM(vocab_size=4, hidden=16), RNNLM(vocab_size=4, hidden=8)
        with torch.no_grad():
            teacher.head.weight.mul_(6)
        test = list(batches(RISING))
        teacher_predictions = KIND.predict(teacher, test)
        before = KIND.fidelity(KIND.predict(student, test), teacher_predictions)
        adam = lambda parameters: torch.optim.Adam(parameters, lr=0.02)  # noqa: E731
        self.train(tmp_path, LogitKD(student, teacher, optimizer=adam, loss_weights={"soft": 1.0, "hard": 0.0}))
        after = KIND.fidelity(KIND.predict(student, test), teacher_predictions)
        assert after["kl"] < 0.1 * before["kl"]


def test_a_uniform_model_of_many_positions_has_the_perplexity_of_its_vocabulary():
    n, V = 100_000, 66
    log_probs = torch.zeros(n, V).log_softmax(1)
    predictions = Predictions(log_probs, torch.zeros(n, dtype=torch.long), torch.arange(n) // 100)
    assert KIND.metrics(predictions)["perplexity"] == pytest.approx(66, rel=1e-6)
    assert KIND.fidelity(predictions, predictions)["kl"] == 0.0
