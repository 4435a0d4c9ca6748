import sys

import pytest
import torch

from kdzoo.errors import CheckpointError, ConfigError
from kdzoo.models import HFModel, load_weights


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"^HFModel needs transformers: pip install 'kdzoo\[text\]'$"):
        HFModel("anything")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "https://example.org/bert"}, "path must be a local folder or a cached name, got the URL"),
        ({"path": "x", "num_classes": 0}, "num_classes must be an integer >= 1, got 0"),
        ({"path": "x", "dtype": "int8"}, "dtype must be one of float32, float16, bfloat16, got 'int8'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        HFModel(**arguments)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Untrained models of a few hundred parameters, saved as their authors would."""
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("hf")
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    bert = transformers.BertConfig(vocab_size=20, num_labels=3, max_position_embeddings=16, **tiny)
    vit = transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=3, **tiny)
    torch.manual_seed(0)
    for name, model in {
        "text": transformers.BertForSequenceClassification(bert),
        "base": transformers.BertModel(bert),
        "image": transformers.ViTForImageClassification(vit),
        "neither": transformers.TimesformerModel(transformers.TimesformerConfig(image_size=8, patch_size=4, **tiny)),
    }.items():
        model.save_pretrained(root / name)
    return root


IDS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])  # 0 is the padding token


def test_text_by_ids_and_by_mapping(folders):
    model = HFModel(str(folders / "text"), num_classes=3).eval()
    named = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}
    assert model(IDS).shape == (2, 3)
    assert torch.equal(model(IDS), model(named))
    torch.testing.assert_close(model(IDS)[1:], model(IDS[1:, :3]))  # padding changes nothing
    assert torch.equal(model(named), model.model(**named).logits)
    assert model.new_parameters == ()


def test_images(folders):
    model = HFModel(str(folders / "image"))
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    assert model.eval()({"pixel_values": torch.randn(2, 1, 8, 8)}).shape == (2, 3)
    assert model(torch.randn(2, 1, 8, 8, dtype=torch.float64)).dtype == torch.float32


def test_dtype_mode_and_gradients(folders):
    assert HFModel(str(folders / "text"), dtype="bfloat16")(IDS).dtype == torch.bfloat16
    model = HFModel(str(folders / "text"))
    assert all(module.training for module in model.modules())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model(IDS).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_folder_without_a_head_gets_a_new_one(folders):
    model = HFModel(str(folders / "base"), num_classes=5)
    assert model(IDS).shape == (2, 5)
    assert model.new_parameters == ("classifier.bias", "classifier.weight")


def test_another_number_of_classes_is_refused(folders):
    with pytest.raises(
        ConfigError, match=r"^num_classes does not fit .*: classifier.bias is \[3\] there, wanted \[5\]$"
    ):
        HFModel(str(folders / "text"), num_classes=5)


def test_its_own_weights_load_again(folders, tmp_path):
    source, target = (HFModel(str(folders / "base"), num_classes=2).eval() for _ in range(2))
    path = tmp_path / "weights.pt"
    torch.save(source.state_dict(), path)
    assert torch.equal(load_weights(target, path)(IDS), source(IDS))


def test_the_wrong_kind_of_tensor_is_refused(folders):
    with pytest.raises(ConfigError, match=r"^input must be 2-D int token ids, got torch.float32 \[2, 1, 8, 8\]$"):
        HFModel(str(folders / "text"))(torch.randn(2, 1, 8, 8))
    with pytest.raises(ConfigError, match=r"^input must be 4-D float images, got torch.int64 \[2, 4\]$"):
        HFModel(str(folders / "image"))(IDS)


def test_damaged_folders_are_refused_in_one_line(folders, tmp_path):
    text = (folders / "text" / "config.json").read_text()
    weights = (folders / "text" / "model.safetensors").read_bytes()
    cases = {
        "empty": {},
        "truncated": {"config.json": text.encode(), "model.safetensors": weights[:500]},
        "no_weights": {"config.json": text.encode()},
        "no_config": {"model.safetensors": weights},
        "broken_config": {"config.json": text[:50].encode(), "model.safetensors": weights},
        "code": {
            "config.json": b'{"auto_map": {"AutoConfig": "evil.C"}, "model_type": "evil"}',
            "evil.py": b"1/0",
        },
    }
    for name, files in cases.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_bytes(content)
    for folder in [*(tmp_path / name for name in cases), tmp_path / "missing", folders / "neither"]:
        with pytest.raises(CheckpointError, match=r"^.* cannot be loaded for task ") as caught:
            HFModel(str(folder))
        assert "\n" not in str(caught.value)
