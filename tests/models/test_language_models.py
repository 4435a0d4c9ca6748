"""What every language model promises, on several of them, and each against its formula in NumPy."""

import itertools
import json
import math
import re
import sys

import numpy as np
import pytest
import torch
from scipy.special import erf, expit, log_softmax, logsumexp, softmax

from kdzoo.core.batch import IGNORE
from kdzoo.errors import CheckpointError, ConfigError
from kdzoo.models import RNNLM, CausalLM, LMEnsemble, TransformerLM
from kdzoo.text.language_model import LanguageModel, sample, sequence_log_probs, stepwise_trace, trace
from kdzoo.text.token_sequences import TokenSequences

V = 5
STRINGS = TokenSequences.of([[0, 3, 1, 1, 2, 0], [], [2], [3, 3, 3]])
INPUT, TARGET = STRINGS.inputs_and_targets(V)
VALID = TARGET != IGNORE


def causal_lm(tmp_path, kind="gpt2", **options):
    transformers = pytest.importorskip("transformers")
    tiny = {"hidden_size": 8, "num_hidden_layers": 2, "vocab_size": V, **options}
    attention = {"num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 32}
    config = {
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=8, n_layer=2, n_head=2, n_positions=32, **{"vocab_size": V, **options}
        ),
        "llama": lambda: transformers.LlamaConfig(num_key_value_heads=1, **attention, **tiny),
        "mamba": lambda: transformers.MambaConfig(state_size=4, **tiny),
    }[kind]()
    path = tmp_path / f"{kind}.json"
    config.to_json_file(path)
    return CausalLM(str(path))


BUILD = {
    "gru": lambda _: RNNLM(vocab_size=V, hidden=12, dropout=0.3),
    "lstm, 3 layers": lambda _: RNNLM(vocab_size=V, hidden=6, layers=3, cell="lstm", dropout=0.3),
    "gru, 2 layers": lambda _: RNNLM(vocab_size=V, embedding=4, hidden=6, layers=2),
    "transformer": lambda _: TransformerLM(vocab_size=V, width=8, heads=2, dropout=0.3, max_length=20),
    "ensemble": lambda _: LMEnsemble(
        [RNNLM(vocab_size=V, cell="lstm"), TransformerLM(vocab_size=V, dropout=0.3)], [1, 3]
    ),
    "gpt2": causal_lm,
    "llama": lambda folder: causal_lm(folder, "llama"),
    "mamba": lambda folder: causal_lm(folder, "mamba"),
}


@pytest.fixture(params=BUILD)
def model(request, tmp_path):
    torch.manual_seed(0)
    built = BUILD[request.param](tmp_path)
    with torch.no_grad():  # far from uniform, so that mistakes show
        for parameter in built.parameters():
            parameter.mul_(1.5)
    return built


def test_it_is_a_language_model_whose_logits_are_its_log_probabilities(model):
    assert isinstance(model, LanguageModel)
    assert model.vocab_size == V
    traced = trace(model, INPUT)
    assert traced.hidden.shape[:2] == INPUT.shape
    torch.testing.assert_close(traced.log_probs.logsumexp(-1), torch.zeros(INPUT.shape), rtol=0, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(INPUT).log_softmax(-1), traced.log_probs)


def test_it_says_the_same_step_by_step(model):
    at_once = trace(model, INPUT)
    model.eval()
    with torch.no_grad():
        in_steps = stepwise_trace(model, INPUT)
    torch.testing.assert_close(in_steps.hidden[VALID], at_once.hidden[VALID], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(in_steps.log_probs[VALID], at_once.log_probs[VALID], rtol=1e-4, atol=1e-5)


def test_neighbours_and_padding_change_nothing(model):
    together = trace(model, INPUT).log_probs
    for row, length in enumerate(STRINGS.lengths.tolist()):
        alone = trace(model, INPUT[row : row + 1, : length + 1]).log_probs[0]
        torch.testing.assert_close(together[row, : length + 1], alone, rtol=1e-4, atol=1e-5)


def test_no_symbol_knows_those_that_follow(model):
    changed = INPUT.clone()
    changed[:, 3:] = (INPUT[:, 3:] + 1) % V
    before, after = trace(model, INPUT).log_probs, trace(model, changed).log_probs
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert (after[0, 3:] - before[0, 3:]).abs().max() > 1e-4


def test_a_step_leaves_the_state_as_it_was(model):
    model.eval()
    with torch.no_grad():
        state = model.step(model.initial_state(2), torch.tensor([0, 3]))
        hidden, log_probs = model.hidden(state).clone(), model.next_log_probs(state).clone()
        first = model.next_log_probs(model.step(state, torch.tensor([1, 1])))
        other = model.next_log_probs(model.step(state, torch.tensor([2, 2])))
        again = model.next_log_probs(model.step(state, torch.tensor([1, 1])))
    assert torch.equal(model.hidden(state), hidden)
    assert torch.equal(model.next_log_probs(state), log_probs)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_the_probabilities_of_all_strings_add_up(model):
    longest = 3
    strings = [list(s) for length in range(longest + 1) for s in itertools.product(range(V - 1), repeat=length)]
    total = float(sequence_log_probs(model, TokenSequences.of(strings)).exp().sum())
    endless = [s for s in strings if len(s) == longest]
    inputs, _ = TokenSequences.of(endless).inputs_and_targets(V)
    says = trace(model, inputs).log_probs.double()
    prefix = says[:, :-1].gather(2, inputs[:, 1:, None])[..., 0].sum(1)
    goes_on = prefix.exp() * (1 - says[:, -1, V - 1].exp())
    assert total + float(goes_on.sum()) == pytest.approx(1, abs=1e-5)


def test_samples_have_the_probabilities_that_the_model_gives_them(model):
    n = 1500
    strings = sample(model, n, max_length=15, seed=0, batch_size=1000)
    assert model.training  # as before
    ends = [float(sequence_log_probs(model, TokenSequences.of([s])).exp()) for s in ([], [0], [3])]
    counts = [sum(one == s for one in strings.to_lists()) for s in ([], [0], [3])]
    for p, count in zip(ends, counts, strict=True):
        assert abs(count - n * p) <= 5 * math.sqrt(n * p * (1 - p))


def test_gradients_reach_every_parameter(model):
    logits = model.train()(INPUT)
    torch.nn.functional.cross_entropy(logits[VALID], TARGET[VALID]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert sum(p.grad.abs().sum() > 0 for p in model.parameters()) >= len(list(model.parameters())) - 1


def test_weights_survive_a_state_dict_and_eval_mode_is_deterministic(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = trace(model, INPUT).log_probs
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert not torch.allclose(trace(model, INPUT).log_probs, expected)
    model.load_state_dict(state)
    assert torch.equal(trace(model, INPUT).log_probs, expected)


@pytest.mark.parametrize("build", [RNNLM, TransformerLM])
@pytest.mark.parametrize("vocab_size", [1, 2.5, True, None])
def test_vocab_size_is_refused(build, vocab_size):
    with pytest.raises(ConfigError, match=f"^vocab_size must be an integer >= 2, got {vocab_size!r}$"):
        build(vocab_size=vocab_size)


class TestRNNLM:
    @pytest.mark.parametrize("cell", ["gru", "lstm"])
    def test_forward_is_the_formula(self, cell):
        model = RNNLM(vocab_size=V, embedding=4, hidden=3, layers=2, cell=cell).double()
        w = {name: value.detach().numpy() for name, value in model.named_parameters()}
        row = INPUT[0].tolist()
        x, tops = w["embedding.weight"][row], []
        for i in range(2):
            h = c = np.zeros(3)
            outputs = []
            for symbol in x:
                a = w[f"layers.{i}.weight_ih_l0"] @ symbol + w[f"layers.{i}.bias_ih_l0"]
                b = w[f"layers.{i}.weight_hh_l0"] @ h + w[f"layers.{i}.bias_hh_l0"]
                if cell == "gru":
                    (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
                    z = expit(az + bz)
                    h = (1 - z) * np.tanh(an + expit(ar + br) * bn) + z * h
                else:
                    gate_i, gate_f, g, o = np.split(a + b, 4)
                    c = expit(gate_f) * c + expit(gate_i) * np.tanh(g)
                    h = expit(o) * np.tanh(c)
                outputs.append(h)
            x = np.array(outputs)
            tops.append(x)
        found = trace(model, INPUT)
        np.testing.assert_allclose(found.hidden[0], np.concatenate(tops, 1), rtol=1e-12)
        expected = log_softmax(x @ w["head.weight"].T + w["head.bias"], axis=1)
        np.testing.assert_allclose(found.log_probs[0], expected, rtol=1e-12)

    def test_dropout_acts_between_layers_and_before_the_head(self):
        model = RNNLM(vocab_size=V, hidden=200, layers=2, dropout=0.4)
        seen = []
        model.dropout.register_forward_hook(lambda _m, _i, out: seen.append((out == 0).double().mean().item()))
        torch.manual_seed(0)
        model(INPUT)
        assert len(seen) >= 2
        assert all(0.3 < share < 0.5 for share in seen)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"cell": "elman"}, "cell must be one of gru, lstm, got 'elman'"),
            ({"hidden": 0}, "hidden must be an integer >= 1, got 0"),
            ({"embedding": 0}, "embedding must be an integer >= 1, got 0"),
            ({"layers": 0}, "layers must be an integer >= 1, got 0"),
            ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
        ],
    )
    def test_bad_arguments_are_refused(self, options, message):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            RNNLM(**{"vocab_size": V, **options})


class TestTransformerLM:
    def test_forward_is_the_formula(self):
        model = TransformerLM(vocab_size=V, width=6, layers=2, heads=2, max_length=8).double()
        w = {name: value.detach().numpy() for name, value in model.named_parameters()}

        def norm(x, name):
            centred = x - x.mean(1, keepdims=True)
            scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
            return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

        def linear(x, name):
            return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

        T = INPUT.shape[1]
        x = w["embedding.weight"][INPUT[0]] + w["position"][:T]
        for i in range(2):
            query, key, value = np.split(linear(norm(x, f"blocks.{i}.before_attention"), f"blocks.{i}.project"), 3, 1)
            heads = []
            for head in (slice(0, 3), slice(3, 6)):
                scores = query[:, head] @ key[:, head].T / math.sqrt(3)
                scores[np.triu_indices(T, 1)] = -np.inf
                heads.append(softmax(scores, axis=1) @ value[:, head])
            x = x + linear(np.concatenate(heads, 1), f"blocks.{i}.merge")
            inner = linear(norm(x, f"blocks.{i}.before_network"), f"blocks.{i}.network.0")
            x = x + linear(inner * (1 + erf(inner / math.sqrt(2))) / 2, f"blocks.{i}.network.2")
        hidden = norm(x, "norm")
        found = trace(model, INPUT)
        np.testing.assert_allclose(found.hidden[0], hidden, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.log_probs[0], log_softmax(linear(hidden, "head"), axis=1), rtol=1e-9)

    def test_strings_longer_than_allowed_are_refused(self):
        model = TransformerLM(vocab_size=V, max_length=4)
        assert trace(model, INPUT[:, :5]).hidden.shape[1] == 5
        message = "^max_length=4 tokens is too short for a string of 5$"
        with pytest.raises(ConfigError, match=message):
            model(INPUT[:, :6])
        with torch.no_grad():
            model.head.bias[-1] = -100.0  # never ends
        assert sample(model, 2, max_length=4, seed=0).lengths.tolist() == [4, 4]
        with pytest.raises(ConfigError, match=message):
            sample(model, 2, max_length=6, seed=0)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"width": 9, "heads": 2}, "width must be a multiple of heads=2, got 9"),
            ({"heads": 0}, "heads must be an integer >= 1, got 0"),
            ({"layers": 0}, "layers must be an integer >= 1, got 0"),
            ({"max_length": 0}, "max_length must be an integer >= 1, got 0"),
            ({"dropout": -0.5}, "dropout must be in [0, 1), got -0.5"),
        ],
    )
    def test_bad_arguments_are_refused(self, options, message):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            TransformerLM(**{"vocab_size": V, **options})


class Letters(torch.nn.Module):
    """Draws every symbol from one distribution, whatever came before."""

    def __init__(self, p):
        super().__init__()
        self.vocab_size, self.p = len(p), torch.tensor(p, dtype=torch.float64)

    def forward(self, input):
        return self.p.log().expand(*input.shape, -1)

    def initial_state(self, n):
        return torch.zeros(n, 1)

    def step(self, state, token):
        return state + 1

    def next_log_probs(self, state):
        return self.p.log().expand(len(state), -1)

    def hidden(self, state):
        return state


class TestCommittee:
    def test_a_string_has_the_mean_of_its_probabilities(self):
        torch.manual_seed(0)
        members = [RNNLM(vocab_size=V).double() for _ in range(3)]
        weights = [0.2, 0.5, 0.3]
        found = sequence_log_probs(LMEnsemble(members, weights), STRINGS)
        each = np.stack([sequence_log_probs(member, STRINGS).numpy() for member in members])
        np.testing.assert_allclose(found, logsumexp(each, axis=0, b=np.array(weights)[:, None]), rtol=1e-9)

    def test_one_member_and_members_of_weight_zero(self):
        torch.manual_seed(0)
        first, other = (RNNLM(vocab_size=V, cell=cell) for cell in ("gru", "lstm"))
        expected = trace(first, INPUT)
        torch.testing.assert_close(trace(LMEnsemble([first]), INPUT), expected)
        torch.testing.assert_close(trace(LMEnsemble([first, other], [2, 0]), INPUT).log_probs, expected.log_probs)

    def test_a_member_that_cannot_have_written_the_prefix_is_silent(self):
        only_0, only_1 = Letters([0.9, 0.0, 0.1]), Letters([0.0, 0.5, 0.5])
        model = LMEnsemble([only_0, only_1])
        inputs, _ = TokenSequences.of([[0, 0], [1, 1], [0, 1]]).inputs_and_targets(3)
        for traced in (trace(model, inputs), stepwise_trace(model, inputs)):
            said = traced.log_probs.exp()
            np.testing.assert_allclose(said[:, 0], [[0.45, 0.25, 0.3]] * 3, rtol=1e-12)
            np.testing.assert_allclose(said[0, 1:], [[0.9, 0.0, 0.1]] * 2, rtol=1e-12)
            np.testing.assert_allclose(said[1, 1:], [[0.0, 0.5, 0.5]] * 2, rtol=1e-12)
            assert said[2, 2].tolist() == [0.0, 0.0, 0.0]  # nobody writes 0 1

    def test_hidden_vectors_stand_side_by_side(self):
        model = LMEnsemble([RNNLM(vocab_size=V, hidden=3), RNNLM(vocab_size=V, hidden=4, layers=2)])
        found = trace(model, INPUT).hidden
        torch.testing.assert_close(found[..., :3], trace(model.members[0], INPUT).hidden)
        torch.testing.assert_close(found[..., 3:], trace(model.members[1], INPUT).hidden)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([],), "members must be a list of at least one module, got an empty list"),
            (
                ([RNNLM(vocab_size=3), RNNLM(vocab_size=4)],),
                "members must be language models of one vocab_size, got [3, 4]",
            ),
            (([torch.nn.ReLU()],), "members must be language models of one vocab_size, got [None]"),
            (
                ([RNNLM(vocab_size=3)] * 2, [0, 0]),
                "weights must be 2 finite numbers >= 0, not all zero, got [0, 0]",
            ),
        ],
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            LMEnsemble(*arguments)


class TestCausalLM:
    @pytest.fixture
    def saved(self, tmp_path):
        """Return a folder with a model whose begin is 1 and whose end is 2."""
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            n_embd=8, n_layer=1, n_head=2, n_positions=16, vocab_size=6, bos_token_id=1, eos_token_id=2
        )
        transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    def test_its_end_is_the_last_symbol_and_its_begin_is_put_first(self, saved):
        model = CausalLM(str(saved), vocab_size=6).eval()
        assert model.new_parameters == ()
        # 5 is the end here and 2 there, and the other way round
        ours, theirs = torch.tensor([[5, 0, 2, 4, 3]]), torch.tensor([[1, 0, 5, 4, 3]])
        with torch.no_grad():
            expected = model.model(input_ids=theirs).logits[..., [0, 1, 5, 3, 4, 2]]
            assert torch.equal(model(ours), expected)
            assert torch.equal(trace(model, ours).hidden, model.model.transformer(theirs).last_hidden_state)

    def test_a_configuration_alone_makes_a_new_model(self, saved, tmp_path):
        model = CausalLM(str(saved / "config.json"), vocab_size=9)
        assert model.vocab_size == 9
        assert model.begin == 8
        assert set(model.new_parameters) == {name for name, _ in model.model.named_parameters()}
        assert all(module.training for module in model.modules())

    def test_sampling_goes_as_far_as_there_are_positions(self, saved):
        model = CausalLM(str(saved))
        with pytest.raises(ConfigError, match=r"^17 symbols are more than the 16 positions of the model$"):
            model(torch.zeros(1, 17, dtype=torch.long))
        assert sample(model, 5, max_length=15, seed=0).lengths.max() <= 15

    def test_another_number_of_symbols_is_refused(self, saved):
        with pytest.raises(ConfigError, match=r"^vocab_size does not fit .*model: it has 6 symbols, wanted 7$"):
            CausalLM(str(saved), vocab_size=7)

    def test_half_precision(self, saved):
        model = CausalLM(str(saved), dtype="bfloat16")
        assert model(torch.tensor([[5, 0]])).dtype == torch.bfloat16
        assert len(sample(model, 3, max_length=5, seed=0)) == 3

    def test_without_the_extra_the_error_names_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ConfigError, match=r"^CausalLM needs transformers: pip install 'kdzoo\[text\]'$"):
            CausalLM("anything")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"path": "https://example.org/gpt2"}, "path must be a local folder, a config.json or a cached name, got"),
            ({"path": "x", "vocab_size": 1}, "vocab_size must be an integer >= 2, got 1"),
            ({"path": "x", "dtype": "int8"}, "dtype must be one of float32, float16, bfloat16, got 'int8'"),
        ],
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        with pytest.raises(ConfigError, match=f"^{message}"):
            CausalLM(**arguments)

    def test_damaged_folders_are_refused_in_one_line(self, saved, tmp_path):
        for name, files in {
            "empty": {},
            "no_weights": {"config.json": (saved / "config.json").read_text()},
            "no_model": {"config.json": json.dumps({"model_type": "vit"})},
            "code": {"config.json": json.dumps({"auto_map": {"AutoConfig": "evil.C"}, "model_type": "evil"})},
        }.items():
            (tmp_path / name).mkdir()
            for file, text in files.items():
                (tmp_path / name / file).write_text(text)
        (tmp_path / "broken.json").write_text("{")
        for path in ("empty", "no_weights", "no_model", "code", "missing", "broken.json"):
            with pytest.raises(CheckpointError, match=r"^.* cannot be loaded as a causal language model: ") as caught:
                CausalLM(str(tmp_path / path))
            assert "\n" not in str(caught.value)
