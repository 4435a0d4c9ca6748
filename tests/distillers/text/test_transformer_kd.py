"""What the methods for text transformers share: terms on hidden layers, widths, layers, and which models they take."""

import copy
from functools import partial

import pytest
import torch
from matplotlib.colors import to_hex

from kdzoo.errors import ConfigError
from kdzoo.layer_init import LayerSearch
from kdzoo.models import TruncatedTransformer
from kdzoo.plotting.style import ROLE_COLOURS
from tests.distillers.text.cases import METHODS, batch_of, bert, gradient, pair

pytest.importorskip("transformers")

ALL_LAYERS = {"hidden": 1.0, "attention": 1.0, "embedding": 1.0}


@pytest.mark.parametrize("task", METHODS)
def test_every_term_is_zero_between_equal_models(task):
    teacher = bert(task)
    student = TruncatedTransformer(teacher_architecture=teacher.architecture, layers=[0, 1, 2, 3])
    student.init_from_teacher(teacher, None)
    distiller = METHODS[task](student, teacher, loss_weights=ALL_LAYERS)
    terms = distiller.losses(batch_of(task))
    assert terms.keys() == distiller.info.terms.keys()
    for name in terms.keys() - {"hard"}:
        assert terms[name].abs().max() < 1e-6, name


@pytest.mark.parametrize("task", METHODS)
def test_terms_on_hidden_layers_are_those_of_torch(task):
    student, teacher = pair(task, layers=[1, 3], start="teacher")
    student.init_from_teacher(teacher, None)
    torch.manual_seed(2)
    with torch.no_grad():  # the student differs from its start
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    batch = batch_of(task)
    terms = METHODS[task](student, teacher, loss_weights=ALL_LAYERS).losses(batch)
    valid = batch["input"] != 0
    arguments = {"input_ids": batch["input"], "attention_mask": valid.long(), "output_hidden_states": True}
    arguments["output_attentions"] = True  # the distiller has chosen the implementation that returns them
    student_result, teacher_result = student.model(**arguments), teacher.eval().model(**arguments)

    def squared_distance(i, j):
        return (student_result.hidden_states[i] - teacher_result.hidden_states[j]).square().mean(-1)

    def divergence(i, j):
        p, q = teacher_result.attentions[j], student_result.attentions[i]
        return (p * ((p + 1e-30) / (q + 1e-30)).log()).sum(-1).mean(1)

    expected = {
        "embedding": squared_distance(0, 0),
        "hidden": (squared_distance(1, 2) + squared_distance(2, 4)) / 2,
        "attention": (divergence(0, 1) + divergence(1, 3)) / 2,
        "cosine": 1 - torch.cosine_similarity(student_result.hidden_states[-1], teacher_result.hidden_states[-1], -1),
    }
    for name, per_token in expected.items():
        per_text = torch.stack([values[tokens].mean() for values, tokens in zip(per_token, valid, strict=True)])
        values = per_token[valid] if task == "mlm" else per_text
        torch.testing.assert_close(terms[name].float(), values, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("task", "n_texts", "size"), [("mlm", 6, 1), ("classification", 6, 4), ("embedding", 6, 4), ("mlm", 4000, 250)]
)
def test_micro_batches_have_the_gradient_of_the_whole_batch(task, n_texts, size):
    student, teacher = pair(task)
    whole, divided = (
        gradient(
            METHODS[task](
                copy.deepcopy(student).double(),
                copy.deepcopy(teacher).double(),
                loss_weights={"hidden": 0.5, "attention": 0.5, "embedding": 0.5},
                micro_batch_size=micro_batch_size,
                optimizer=partial(torch.optim.SGD, lr=1.0),
            ),
            batch_of(task, n_texts),
        )
        for micro_batch_size in (None, size)
    )
    assert float((divided - whole).norm() / whole.norm()) < 1e-6


@pytest.mark.parametrize("task", METHODS)
def test_a_narrower_student_is_compared_through_a_learned_map(task):
    teacher = bert(task)
    student = bert(task, seed=1, hidden_size=8, layers=2)
    distiller = METHODS[task](student, teacher, loss_weights={"hidden": 1.0})
    assert distiller.project.weight.shape == (16, 8)
    assert any(parameter is distiller.project.weight for parameter in distiller.trainable())
    terms = distiller.losses(batch_of(task))
    terms["cosine"].mean().backward()
    assert distiller.project.weight.grad.abs().sum() > 0


def test_terms_on_hidden_layers_without_weight_are_not_computed():
    student, teacher = pair("classification")
    terms = METHODS["classification"](student, teacher, loss_weights={"cosine": 0.0}).losses(batch_of("classification"))
    assert terms.keys() == {"soft", "hard"}


def test_layers_are_compared_with_those_that_they_started_from():
    student, teacher = pair(layers=[1, 2], start="teacher")
    assert METHODS["mlm"](student, teacher).matched_layers(2, 4) == (1, 2)
    assert METHODS["mlm"](bert(layers=2), teacher).matched_layers(2, 4) == (0, 3)


def test_the_start_of_the_student_is_noted():
    student, teacher = pair(layers=[1, 2], start="teacher")
    assert METHODS["mlm"](student, teacher).notes == {}
    student.init_from_teacher(teacher, None)
    assert METHODS["mlm"](student, teacher).notes == {"start": "layers [1, 2] of 4"}


def test_the_scores_of_a_search_are_drawn(figures, tmp_path):
    student, teacher = pair(layers="auto", depth=2)
    assert METHODS["mlm"](student, teacher).report_extras.figures(tmp_path) == []
    student.search = LayerSearch((0, 2), 0.5, {(0, 2): 0.5, (1, 2): 0.25, (0, 1): float("nan")})
    (path,) = METHODS["mlm"](student, teacher).report_extras.figures(tmp_path)
    assert path.name == "layers.png"
    (axes,) = figures[0].axes
    # From the bottom to the top; the selection without a score is left out.
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1 2", "0 2"]
    assert [bar.get_width() for bar in axes.patches] == [0.25, 0.5]
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert to_hex(colours[1]) == ROLE_COLOURS["student"]
    assert colours[0] != colours[1]


@pytest.mark.parametrize("task", METHODS)
def test_models_of_another_task_are_refused(task):
    other = "embedding" if task == "mlm" else "mlm"
    student, teacher = pair(other)
    with pytest.raises(ConfigError, match=rf"^student must be a text transformer of task '{task}', got task='{other}'"):
        METHODS[task](student, teacher)
    with pytest.raises(ConfigError, match=rf"^student must be a text transformer of task '{task}', got Linear"):
        METHODS[task](torch.nn.Linear(2, 2), bert(task))
    with pytest.raises(ConfigError, match=rf"^teacher must be a text transformer of task '{task}', got Linear"):
        METHODS[task](bert(task), torch.nn.Linear(2, 2))


@pytest.mark.parametrize(("task", "name"), [("embedding", "soft"), ("classification", "sentence"), ("mlm", "sentence")])
def test_the_weight_of_a_term_that_a_method_lacks_is_refused(task, name):
    student, teacher = pair(task)
    with pytest.raises(ConfigError, match=rf"^loss_weights\.{name} is not a term of this distiller; its terms: \["):
        METHODS[task](student, teacher, loss_weights={name: 2.0})
