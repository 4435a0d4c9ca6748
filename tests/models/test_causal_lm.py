"""Causal language models of transformers: what every language model promises, exchanged symbols, and refusals."""

import json
import sys

import pytest
import torch

from kdzoo.errors import CheckpointError, ConfigError
from kdzoo.models import CausalLM
from kdzoo.text.language_model import sample, trace
from tests.models.language_model_cases import LanguageModelTests, V


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


class TestCausalLM(LanguageModelTests):
    build = {
        "gpt2": causal_lm,
        "llama": lambda folder: causal_lm(folder, "llama"),
        "mamba": lambda folder: causal_lm(folder, "mamba"),  # without a key-value cache
    }


@pytest.fixture
def saved(tmp_path):
    """Return a folder with a model whose begin is 1 and whose end is 2."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=8, n_layer=1, n_head=2, n_positions=16, vocab_size=6, bos_token_id=1, eos_token_id=2
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_end_and_begin_are_translated_into_the_wrapped_models_ids(saved):
    model = CausalLM(str(saved), vocab_size=6).eval()
    assert model.new_parameters == ()
    # The ids 5 and 2 are exchanged: the end of a sequence is 5 here and 2 in the wrapped model.
    symbols, wrapped_ids = torch.tensor([[5, 0, 2, 4, 3]]), torch.tensor([[1, 0, 5, 4, 3]])
    with torch.no_grad():
        expected = model.model(input_ids=wrapped_ids).logits[..., [0, 1, 5, 3, 4, 2]]
        assert torch.equal(model(symbols), expected)
        assert torch.equal(trace(model, symbols).hidden, model.model.transformer(wrapped_ids).last_hidden_state)


def test_a_configuration_alone_makes_a_new_model(saved, tmp_path):
    model = CausalLM(str(saved / "config.json"), vocab_size=9)
    assert model.vocab_size == 9
    assert model.begin == 8
    assert set(model.new_parameters) == {name for name, _ in model.model.named_parameters()}
    assert all(module.training for module in model.modules())


def test_the_number_of_positions_limits_the_length(saved):
    model = CausalLM(str(saved))
    with pytest.raises(ConfigError, match=r"^17 symbols are more than the 16 positions of the model$"):
        model(torch.zeros(1, 17, dtype=torch.long))
    assert sample(model, 5, max_length=15, seed=0).lengths.max() <= 15


def test_another_number_of_symbols_is_refused(saved):
    with pytest.raises(ConfigError, match=r"^vocab_size does not fit .*model: it has 6 symbols, wanted 7$"):
        CausalLM(str(saved), vocab_size=7)


def test_half_precision(saved):
    model = CausalLM(str(saved), dtype="bfloat16")
    assert model(torch.tensor([[5, 0]])).dtype == torch.bfloat16
    assert len(sample(model, 3, max_length=5, seed=0)) == 3


def test_without_the_extra_the_error_names_it(monkeypatch):
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
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        CausalLM(**arguments)


def test_damaged_folders_are_refused_in_one_line(saved, tmp_path):
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
