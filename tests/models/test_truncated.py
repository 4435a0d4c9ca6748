"""Shallow students that start from their teacher's layers."""

import pytest
import torch

from kdzoo.core.abilities import InitialisesFromTeacher, StartsFromLayers
from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError
from kdzoo.models import Bert, TruncatedTransformer
from kdzoo.models.truncated import validation_texts
from kdzoo.storage import checkpoint

pytest.importorskip("transformers")

V = 50


def bert(task="mlm", **options):
    torch.manual_seed(0)
    return Bert(
        vocab_size=V,
        task=task,
        **{"num_classes": 3, "hidden_size": 16, "layers": 6, "heads": 2, "max_length": 20, **options},
    )


IDS = torch.tensor([[2, 7, 9, 11, 3], [2, 8, 3, 0, 0]])


@pytest.mark.parametrize("family", ["same", "distilbert"])
@pytest.mark.parametrize("task", ["mlm", "embedding"])
def test_a_student_of_full_depth_equals_its_teacher(task, family):
    teacher = bert(task).eval()
    student = TruncatedTransformer(teacher_architecture=teacher.architecture, layers=[0, 1, 2, 3, 4, 5], family=family)
    student.init_from_teacher(teacher, None)
    gap = (student.eval()(IDS) - teacher(IDS)).abs()
    assert gap[IDS != 0 if task == "mlm" else ...].max() < 1e-5


def test_half_of_the_layers_by_default():
    teacher = bert()
    student = TruncatedTransformer(teacher_architecture=teacher.architecture)
    student.init_from_teacher(teacher, None)
    assert student.chosen_layers == (0, 2, 5)
    for layer, source in zip(student.layers, (0, 2, 5), strict=True):
        for copy, original in zip(layer.parameters(), teacher.layers[source].parameters(), strict=True):
            assert torch.equal(copy, original)
            assert copy is not original
    assert student.learned_sizes == {"layers": [0, 2, 5]}


def test_a_random_start_copies_nothing():
    teacher = bert()
    student = TruncatedTransformer(teacher_architecture=teacher.architecture, start="random")
    before = {name: value.clone() for name, value in student.state_dict().items()}
    student.init_from_teacher(teacher, None)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


class Texts:
    """Validation texts of a masked language model."""

    def val_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(5, V, (32, 8), generator=generator)
        target = ids.masked_fill(torch.rand(32, 8, generator=generator) < 0.8, IGNORE)
        return [{"input": ids, "target": target, "index": torch.arange(32), "mask": ids > 0}]


@pytest.mark.parametrize("objective", ["fidelity", "loss"])
def test_auto_chooses_layers_by_the_objective(objective):
    teacher = bert()
    student = TruncatedTransformer(
        teacher_architecture=teacher.architecture, layers="auto", depth=2, objective=objective
    )
    assert student.chosen_layers is None
    student.init_from_teacher(teacher, Texts())
    assert len(student.chosen_layers) == 2
    assert len(teacher.layers) == 6
    assert student.learned_sizes == {"layers": list(student.chosen_layers)}
    assert len(student.search.scores) == 15
    assert student.search.score == max(student.search.scores.values())
    assert f"layers {list(student.chosen_layers)} of 6, best of 15 by {objective} (" in student.init_note


def test_auto_tries_no_more_than_search_tries():
    teacher = bert()
    student = TruncatedTransformer(teacher_architecture=teacher.architecture, layers="auto", depth=3, search_tries=7)
    student.init_from_teacher(teacher, Texts())
    assert len(student.search.scores) == 7


def test_auto_needs_validation_texts():
    teacher = bert()
    student = TruncatedTransformer(teacher_architecture=teacher.architecture, layers="auto")

    class Empty:
        def val_dataloader(self):
            return []

    with pytest.raises(ConfigError, match=r"^student\.layers='auto' chooses on validation texts"):
        student.init_from_teacher(teacher, Empty())


def test_an_exported_student_needs_no_teacher(tmp_path):
    teacher = bert("classification")
    node = {
        "_target_": "kdzoo.models.TruncatedTransformer",
        "teacher_architecture": teacher.architecture,
        "layers": "auto",
    }
    student = TruncatedTransformer(**{key: value for key, value in node.items() if key != "_target_"})
    student.chosen_layers = (1, 3, 4)
    checkpoint.save_model(student, {**node, **student.learned_sizes}, tmp_path)
    again = checkpoint.load_student(tmp_path)
    assert again.chosen_layers == (1, 3, 4)
    torch.testing.assert_close(again(IDS), student.eval()(IDS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [0, 6]}, "layers"),
        ({"layers": "every_third"}, "layers"),
        ({"depth": 9}, r"depth must be an integer in 1\.\.6, got 9"),
        ({"family": "gpt"}, "family must be one of same, distilbert, got 'gpt'"),
        ({"start": "half"}, "start must be one of teacher, random, got 'half'"),
        ({"objective": "speed"}, "objective must be one of fidelity, probe, loss, got 'speed'"),
        ({"search_size": 2}, "search_size must be an integer >= 8, got 2"),
        ({"search_tries": 0}, "search_tries must be an integer >= 1, got 0"),
    ],
)
def test_invalid_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=rf"^{message}"):
        TruncatedTransformer(teacher_architecture=bert().architecture, **options)


def test_gradient_checkpointing_of_a_class_without_it_is_refused():
    config = {
        "model_type": "mpnet",
        "vocab_size": V,
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
    }
    architecture = {"model_class": "MPNetForMaskedLM", "config": {**config, "intermediate_size": 32}}
    with pytest.raises(
        ConfigError, match="gradient_checkpointing=true cannot be used: MPNetForMaskedLM does not support it"
    ):
        TruncatedTransformer(teacher_architecture=architecture, gradient_checkpointing=True)


def test_gradient_checkpointing_changes_no_gradient():
    teacher = bert(dropout=0.0)
    gradients = []
    for recompute in (False, True):
        student = TruncatedTransformer(teacher_architecture=teacher.architecture, gradient_checkpointing=recompute)
        student.init_from_teacher(teacher, None)
        student(IDS).square().sum().backward()
        assert student.model.is_activation_checkpointing is recompute
        gradients.append(torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients)


def test_it_starts_from_layers_of_its_teacher():
    student = TruncatedTransformer(teacher_architecture=bert().architecture)
    assert isinstance(student, StartsFromLayers)
    assert isinstance(student, InitialisesFromTeacher)
    assert (student.chosen_layers, student.search, student.init_note) == ((0, 2, 5), None, "")
    student.init_from_teacher(bert(), None)
    assert student.init_note == "layers [0, 2, 5] of 6"


def test_a_probe_of_masked_texts_is_refused_before_the_teacher_is_trained():
    teacher = bert()
    student = TruncatedTransformer(teacher_architecture=teacher.architecture, layers="auto", objective="probe")
    message = r"^student\.objective='probe' cannot be used here: probe needs targets"
    with pytest.raises(ConfigError, match=message):
        student.check_init_from_teacher(teacher, Texts())


def test_the_validation_texts_are_the_first_ones():
    batches = validation_texts(Texts(), 5)
    assert [len(batch["input"]) for batch in batches] == [5]
    assert batches[0]["index"].tolist() == [0, 1, 2, 3, 4]
    assert sum(len(batch["input"]) for batch in validation_texts(Texts(), 100)) == 32
