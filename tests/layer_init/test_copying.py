"""Copies of layers: exact where they can be, only the selected ones, tied as before, and every refusal."""

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.layer_init import copy_layers, find_layers
from tests.layer_init.cases import CONFIGS, Tagger, architecture, made, needs_transformers, outputs_of, texts


def assert_same(actual, expected, atol: float = 0.0) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def hidden(model, ids):
    """Return the last hidden states of tokens."""
    return outputs_of(model.base_model, ids).last_hidden_state[ids != 0]


def distilled(teacher, depth: int, seed: int = 1):
    from kdzoo.layer_init import architecture_of, build_model, distilbert_architecture
    from tests.layer_init.cases import randomised

    return randomised(build_model(distilbert_architecture(architecture_of(teacher), depth)), seed)


@needs_transformers
@pytest.mark.parametrize("head", ["ForMaskedLM", "Model"])
def test_a_full_depth_distilbert_equals_its_bert_with_the_token_type_and_only_with_it(head):
    teacher, ids = made("Bert", head), texts()
    student = distilled(teacher, 4)
    assert copy_layers(student, teacher, range(4)) == ()
    assert_same(hidden(student, ids), hidden(teacher, ids), atol=1e-5)
    if head == "ForMaskedLM":
        assert_same(outputs_of(student, ids).logits[ids != 0], outputs_of(teacher, ids).logits[ids != 0], atol=1e-5)
    with torch.no_grad():
        folded = student.base_model.embeddings.position_embeddings.weight
        folded -= teacher.base_model.embeddings.token_type_embeddings.weight[0]
    assert (hidden(student, ids) - hidden(teacher, ids)).abs().max() > 0.02


@needs_transformers
def test_untied_heads_are_copied_into_a_distilbert():
    teacher, ids = made("Bert", tie_word_embeddings=False), texts()
    student = distilled(teacher, 4)
    copy_layers(student, teacher, range(4))
    assert student.vocab_projector.weight is not student.base_model.embeddings.word_embeddings.weight
    assert_same(outputs_of(student, ids).logits[ids != 0], outputs_of(teacher, ids).logits[ids != 0], atol=1e-5)


@needs_transformers
def test_a_classification_head_is_not_copied_into_a_distilbert():
    teacher = made("Bert", "ForSequenceClassification")
    student = distilled(teacher, 2)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    unmatched = copy_layers(student, teacher, [0, 3])
    assert unmatched == ("classifier.bias", "classifier.weight", "pre_classifier.bias", "pre_classifier.weight")
    for name, value in student.state_dict().items():
        assert torch.equal(value, before[name]) == (name in unmatched), name


@needs_transformers
@pytest.mark.parametrize("family", CONFIGS)
def test_a_full_depth_copy_of_the_same_class_is_bit_equal(family):
    teacher, student, ids = made(family), made(family, seed=1), texts()
    assert not torch.equal(outputs_of(student, ids).logits, outputs_of(teacher, ids).logits)
    assert copy_layers(student, teacher, range(4)) == ()
    assert_same(student.state_dict(), teacher.state_dict())
    assert_same(outputs_of(student, ids).logits, outputs_of(teacher, ids).logits)


@needs_transformers
@pytest.mark.parametrize("family", [name for name in CONFIGS if name != "DistilBert"])
def test_a_shallow_copy_holds_exactly_the_chosen_layers(family):
    depth = "n_layer" if family == "GPT2" else "num_hidden_layers"
    config = {depth: 2} if family != "Qwen2" else {depth: 2, "layer_types": ["full_attention", "sliding_attention"]}
    teacher, student = made(family), made(family, seed=1, **config)
    assert copy_layers(student, teacher, [1, 3]) == ()
    (_, shallow), (_, deep) = find_layers(student), find_layers(teacher)
    for index, source in ((0, 1), (1, 3)):
        assert_same(shallow[index].state_dict(), deep[source].state_dict())
    rest = {name: value for name, value in student.state_dict().items() if f"{find_layers(student)[0]}." not in name}
    assert rest
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in rest.items())


@needs_transformers
def test_distilbert_layers_are_the_chosen_ones_of_the_bert():
    teacher, ids = made("Bert"), texts()
    student = distilled(teacher, 2)
    assert copy_layers(student, teacher, "every_other") == ()
    middle = made("Bert", num_hidden_layers=2)
    copy_layers(middle, teacher, [0, 3])
    assert_same(hidden(student, ids), hidden(middle, ids), atol=1e-5)


@needs_transformers
@pytest.mark.parametrize("family", ["Bert", "Roberta", "GPT2"])
def test_tied_weights_stay_tied_and_the_teacher_stays_as_it_was(family):
    teacher, student = made(family), made(family, seed=1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    copy_layers(student, teacher, range(4))
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight
    assert student.get_input_embeddings().weight is not teacher.get_input_embeddings().weight
    assert all(parameter.requires_grad and parameter.grad_fn is None for parameter in student.parameters())
    assert_same(dict(teacher.state_dict()), before)


@needs_transformers
def test_models_with_and_without_a_head_share_their_encoder():
    with_head, encoder, ids = made("Bert"), made("Bert", "Model", seed=1), texts()
    assert copy_layers(encoder, with_head, range(4)) == ("pooler.dense.bias", "pooler.dense.weight")
    assert_same(hidden(encoder, ids), hidden(with_head, ids))
    classifier = made("Bert", "ForSequenceClassification", seed=2)
    unmatched = copy_layers(classifier, encoder, range(4))
    assert unmatched == ("classifier.bias", "classifier.weight")
    assert_same(hidden(classifier, ids), hidden(with_head, ids))


def test_precision_stays_that_of_the_student():
    teacher, student = Tagger(3).to(torch.bfloat16), Tagger(2).double()
    copy_layers(student, teacher, [0, 2], path="encoder.layers")
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float64}
    assert_same(student.embedding.weight, teacher.embedding.weight.double())


def test_any_module_with_named_layers():
    teacher, student = Tagger(4), Tagger(2)
    with torch.no_grad():
        teacher.steps += 7
    assert copy_layers(student, teacher, [1, 2], path="encoder.layers") == ()
    assert_same(student.steps, teacher.steps)
    teacher.encoder.layers = teacher.encoder.layers[1:3]
    ids = torch.arange(6).reshape(2, 3)
    assert_same(student(ids), teacher(ids))


def test_tensors_without_a_counterpart_are_named_and_unchanged():
    teacher, student = Tagger(4), Tagger(2)
    student.extra = nn.Linear(2, 2)
    student.twice = student.extra
    student.head[0].register_buffer("count", torch.tensor(5))
    before = student.extra.weight.clone()
    unmatched = copy_layers(student, teacher, [0, 1], path="encoder.layers")
    assert unmatched == ("extra.bias", "extra.weight", "head.0.count")
    assert_same(student.extra.weight, before)


def test_a_tied_weight_is_copied_by_any_of_its_names():
    teacher, student = Tagger(2), Tagger(2)
    embedding = student.embedding
    del student.embedding
    student.alias = student.embedding = embedding
    assert "alias.weight" in dict(student.named_parameters())  # the first name, without a counterpart
    assert copy_layers(student, teacher, [0, 1], path="encoder.layers") == ()
    assert_same(student.alias.weight, teacher.embedding.weight)


def test_nothing_is_copied_where_a_size_differs():
    teacher, student = Tagger(4), Tagger(2)
    student.head[2] = nn.Linear(8, 4)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    line = r"student and teacher must have the same sizes: head\.2\.weight is \[4, 8\], head\.2\.weight is \[3, 8\]"
    with pytest.raises(ConfigError, match=f"^{line}$"):
        copy_layers(student, teacher, [0, 1], path="encoder.layers")
    assert_same(dict(student.state_dict()), before)


@needs_transformers
@pytest.mark.parametrize(
    ("student", "teacher", "line"),
    [
        (
            "Roberta",
            "Bert",
            "student must be of the teacher's type 'bert' or distilbert to take its layers, got 'roberta'",
        ),
        (
            "DistilBert",
            "Roberta",
            "student must be of the teacher's type 'roberta' to take its layers, got 'distilbert'",
        ),
    ],
    ids=["roberta-from-bert", "distilbert-from-roberta"],
)
def test_models_of_different_types_are_refused(student, teacher, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        copy_layers(made(student), made(teacher), range(4))


@needs_transformers
def test_a_width_that_differs_is_refused_with_both_names():
    student = made("DistilBert", dim=8, max_position_embeddings=20)
    line = r".*: distilbert\.\S+ is \[.*\], bert\.\S+ is \[.*\]"
    with pytest.raises(ConfigError, match=f"^student and teacher must have the same sizes{line}$"):
        copy_layers(student, made("Bert"), range(4))


@needs_transformers
def test_layers_that_do_not_fit_are_refused():
    assert architecture("Bert")["config"]["num_hidden_layers"] == 4
    with pytest.raises(ConfigError, match=r"^layers must be 4 numbers, .*, got \[0, 1\]$"):
        copy_layers(made("Bert"), made("Bert"), [0, 1])
    with pytest.raises(ConfigError, match=r"^layers\[3\] must be an integer in 0\.\.3, got 4$"):
        copy_layers(made("Bert"), made("Bert"), [0, 1, 2, 4])


def test_layers_without_a_common_name_are_refused():
    student, teacher = nn.Module(), nn.Module()
    student.layers = nn.ModuleList([nn.Linear(2, 2)])
    teacher.layers = nn.ModuleList([nn.ModuleDict({"inner": nn.Linear(2, 2)})])
    line = "layers 'layers' of the student have no name in common with 'layers' of the teacher"
    with pytest.raises(ConfigError, match=f"^{line}$"):
        copy_layers(student, teacher, [0], path="layers")
