"""Classes of pretrained classifiers in the order of the data."""

import json

import pytest
import torch

from kdzoo.errors import ConfigError, KdzooWarning
from kdzoo.models import HFModel

IDS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
NAMES = ["bad", "good", "fair"]


def named(names):
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Untrained classifiers with named classes, saved as their authors would."""
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("named")
    text = {"vocab_size": 20, "max_position_embeddings": 16, **TINY}
    sizes = {"vocab_size": 20, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2, "pad_token_id": 0}
    image = {"image_size": 8, "patch_size": 4, "num_channels": 1, **TINY}
    torch.manual_seed(0)
    for name, model in {
        "bert": transformers.BertForSequenceClassification(transformers.BertConfig(**text, **named(NAMES))),
        # Its head is a module of two layers, of which the last has as many outputs as there are classes.
        "roberta": transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**text, **named(NAMES))),
        "gpt2": transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**sizes, **named(NAMES))),
        "vit": transformers.ViTForImageClassification(transformers.ViTConfig(**image, **named(NAMES))),
        "numbered": transformers.BertForSequenceClassification(transformers.BertConfig(**text, num_labels=3)),
    }.items():
        model.save_pretrained(root / name)
    return root


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "vit"])
def test_the_same_names_in_another_order_permute_the_logits(folders, name):
    path = str(folders / name)
    x = torch.randn(2, 1, 8, 8) if name == "vit" else IDS
    plain = HFModel(path).eval()
    with pytest.warns(KdzooWarning, match=r"\['bad', 'good', 'fair'\], are put into the order of the data, \['fair'"):
        aligned = HFModel(path, num_classes=3, classes=["fair", "bad", "good"]).eval()
    torch.testing.assert_close(aligned(x), plain(x)[:, [2, 0, 1]])
    assert aligned.model.config.id2label == {0: "fair", 1: "bad", 2: "good"}
    assert all(parameter.requires_grad for parameter in aligned.parameters())


@pytest.mark.parametrize(
    ("name", "classes"), [("bert", NAMES), ("bert", ["0", "1", "2"]), ("numbered", ["fair", "bad", "good"])]
)
@pytest.mark.filterwarnings("error")
def test_equal_orders_and_mere_numbers_change_nothing(folders, name, classes):
    path = str(folders / name)
    assert torch.equal(HFModel(path, classes=classes).eval()(IDS), HFModel(path).eval()(IDS))


def test_other_names_are_refused(folders):
    message = r"the classes of .*bert are \['bad', 'good', 'fair'\], those of the data are \['neg', 'pos', 'fair'\];"
    with pytest.raises(ConfigError, match=message):
        HFModel(str(folders / "bert"), classes=["neg", "pos", "fair"])


def test_a_teacher_of_several_labels_at_once_is_refused(folders, tmp_path):
    copy = tmp_path / "several"
    copy.mkdir()
    for file in (folders / "bert").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(settings | {"problem_type": "multi_label_classification"}))
    with pytest.raises(ConfigError, match=r"gives each class a probability of its own \(multi-label\)"):
        HFModel(str(copy), classes=NAMES)
