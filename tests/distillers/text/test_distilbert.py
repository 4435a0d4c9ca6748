import copy
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch.nn.functional import cosine_embedding_loss, cross_entropy, kl_div
from torch.utils.data import DataLoader

from kdzoo.core.batch import IGNORE
from kdzoo.distillers import DistilBERT
from kdzoo.distillers.text.distilbert import without_padding
from kdzoo.errors import ConfigError
from kdzoo.layer_init import LayerSearch
from kdzoo.models import Bert, TruncatedTransformer

pytest.importorskip("transformers")

V = 40


def bert(task="mlm", seed=0, **options):
    torch.manual_seed(seed)
    settings = {"hidden_size": 16, "layers": 4, "heads": 2, "max_length": 24, "dropout": 0.0, "num_classes": 3}
    return Bert(vocab_size=V, task=task, **{**settings, **options})


def pair(task="mlm", **options):
    teacher = bert(task)
    torch.manual_seed(1)
    student = TruncatedTransformer(teacher_architecture=teacher.architecture, **{"start": "random", **options})
    return student, teacher


def batch_of(task="mlm", rows=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, V, (rows, 12), generator=generator)
    mask = torch.arange(12) < torch.randint(4, 13, (rows, 1), generator=generator)
    ids = ids * mask
    if task != "mlm":
        return {"input": ids, "target": torch.arange(rows) % 3, "index": torch.arange(rows)}
    masked = (torch.rand(rows, 12, generator=generator) < 0.3) & mask
    masked[0, 0] = True
    return {
        "input": ids.masked_fill(masked, 4),
        "target": torch.where(masked, ids, IGNORE),
        "index": torch.arange(rows),
        "mask": mask,
    }


def test_the_triple_loss_is_that_of_torch():
    student, teacher = pair()
    batch, T = batch_of(), 2.0
    terms = DistilBERT(student, teacher, temperature=T).losses(batch)
    teacher.eval()
    named = {"input_ids": batch["input"], "attention_mask": batch["mask"].long(), "output_hidden_states": True}
    ours, theirs = student.model(**named), teacher.model(**named)
    valid = batch["mask"]
    soft = kl_div(
        (ours.logits[valid] / T).log_softmax(-1), (theirs.logits[valid] / T).softmax(-1), reduction="batchmean"
    )
    hard = cross_entropy(ours.logits.flatten(0, 1), batch["target"].flatten(), ignore_index=IGNORE)
    s, t = ours.hidden_states[-1][valid], theirs.hidden_states[-1][valid]
    cosine = cosine_embedding_loss(s, t, torch.ones(len(s)))
    for name, expected in {"soft": soft * T**2, "hard": hard, "cosine": cosine}.items():
        torch.testing.assert_close(terms[name].mean().float(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("task", ["mlm", "classification", "embedding"])
def test_every_term_is_zero_between_equal_models(task):
    teacher = bert(task)
    student = TruncatedTransformer(teacher_architecture=teacher.architecture, layers=[0, 1, 2, 3])
    student.init_from_teacher(teacher, None)
    distiller = DistilBERT(
        student, teacher, task=task, loss_weights={"hidden": 1.0, "attention": 1.0, "embedding": 1.0}
    )
    terms = distiller.losses(batch_of(task))
    expected = {"cosine", "hidden", "attention", "embedding"} | (
        {"sentence"} if task == "embedding" else {"soft", "hard"}
    )
    assert terms.keys() == expected
    for name in expected - {"hard"}:
        assert terms[name].abs().max() < 1e-6, name


def gradient(distiller, batch):
    """Return the gradient of the first optimizer step, by the weights before and after a step of size 1."""
    before = [parameter.detach().clone() for parameter in distiller.trainable()]
    run = pl.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        precision="64-true",
    )
    run.fit(distiller, DataLoader([batch], batch_size=None))
    return torch.cat([(a - b.detach()).flatten() for a, b in zip(before, distiller.trainable(), strict=True)])


@pytest.mark.parametrize(
    ("task", "rows", "size"), [("mlm", 6, 1), ("classification", 6, 4), ("embedding", 6, 4), ("mlm", 4000, 250)]
)
def test_micro_batches_have_the_gradient_of_the_whole(task, rows, size):
    student, teacher = pair(task)
    weights = {"hidden": 0.5, "attention": 0.5, "embedding": 0.5}
    whole, pieces = (
        gradient(
            DistilBERT(
                copy.deepcopy(student).double(),
                copy.deepcopy(teacher).double(),
                task=task,
                loss_weights=weights,
                micro_batch_size=one,
                optimizer=partial(torch.optim.SGD, lr=1.0),
            ),
            batch_of(task, rows),
        )
        for one in (None, size)
    )
    assert float((pieces - whole).norm() / whole.norm()) < 1e-6


def test_only_masked_compares_logits_there_alone():
    student, teacher = pair()
    batch = batch_of()
    some = DistilBERT(student, teacher, only_masked=True)
    assert len(some.losses(batch)["soft"]) == int((batch["target"] != IGNORE).sum())
    assert "soft" in some.label_terms
    assert "soft" not in DistilBERT(student, teacher).label_terms


def test_few_tokens_and_the_rest_are_nearly_all_of_the_loss():
    student, teacher = pair()
    batch, parts = batch_of(), {}
    for k in (None, 1, 30, V - 1):
        parts[k] = DistilBERT(student, teacher, top_k=k).losses(batch)
    assert float(parts[1]["soft"].mean()) < float(parts[30]["soft"].mean()) < float(parts[None]["soft"].mean())
    torch.testing.assert_close(parts[V - 1]["soft"], parts[None]["soft"], rtol=1e-5, atol=1e-8)
    for k in (1, 30):
        torch.testing.assert_close(parts[k]["cosine"], parts[None]["cosine"], rtol=0, atol=5e-4)  # of half precision
        assert torch.equal(parts[k]["hard"], parts[None]["hard"])


@pytest.mark.parametrize("weights", [{}, {"cosine": 0.0}, {"soft": 0.0}])
def test_answers_that_are_kept_are_those_of_the_teacher(weights):
    student, teacher = pair()
    distiller, batch = DistilBERT(student, teacher, top_k=5, loss_weights=weights), batch_of()
    assert distiller.uses_teacher_output
    live = distiller.losses(batch)
    distiller.teacher_cache["train"] = distiller.teacher_outputs(batch)  # of rows with their padding
    order = torch.tensor([4, 0, 5])
    some = {name: one[order, :10] if one.dim() == 2 else one[order] for name, one in batch.items()}
    some["mask"] = some["mask"] & (torch.arange(10) < 9)
    with distiller.about("train"):
        teacher.forward = teacher.read = None  # it is not asked again
        kept = distiller.losses(batch)
        distiller.losses(some)
    assert live.keys() == kept.keys()
    for name in live:
        torch.testing.assert_close(live[name], kept[name], rtol=1e-5, atol=5e-4 if name == "cosine" else 1e-8)


def test_terms_of_other_layers_need_the_teacher_itself():
    student, teacher = pair()
    assert not DistilBERT(student, teacher).uses_teacher_output
    assert not DistilBERT(student, teacher, top_k=3, loss_weights={"hidden": 1.0}).uses_teacher_output
    assert not DistilBERT(student, teacher, top_k=3, loss_weights={"soft": 0.0, "cosine": 0.0}).uses_teacher_output
    with pytest.raises(ConfigError, match=rf"^top_k must be less than the {V} tokens of the student, got {V}"):
        DistilBERT(student, teacher, top_k=V)
    student, teacher = pair("classification")
    with pytest.raises(ConfigError, match=r"top_k=3 names tokens of a masked language model; allowed for task="):
        DistilBERT(student, teacher, task="classification", top_k=3)


def test_a_narrower_student_is_compared_through_a_learned_map():
    torch.manual_seed(0)
    teacher = bert()
    student = bert(seed=1, hidden_size=8, layers=2)
    distiller = DistilBERT(student, teacher, loss_weights={"hidden": 1.0})
    assert any(parameter is distiller.project.weight for parameter in distiller.trainable())
    terms = distiller.losses(batch_of())
    terms["cosine"].mean().backward()
    assert distiller.project.weight.grad.abs().sum() > 0


def test_terms_without_weight_are_not_computed():
    student, teacher = pair()
    terms = DistilBERT(student, teacher, loss_weights={"soft": 0.0, "cosine": 0.0}).losses(batch_of())
    assert terms.keys() == {"hard"}


def test_layers_are_compared_with_those_that_they_began_as():
    student, teacher = pair(layers=[1, 2], start="teacher")
    assert DistilBERT(student, teacher).partners(2, 4) == (1, 2)
    assert DistilBERT(bert(layers=2), teacher).partners(2, 4) == (0, 3)


def test_padding_at_the_end_is_cut():
    batch = batch_of()
    long = {
        key: torch.cat([value, torch.full((6, 5), {"target": IGNORE}.get(key, 0)).to(value.dtype)], 1)
        if value.ndim == 2
        else value
        for key, value in batch.items()
    }
    cut = without_padding(long, 0)
    length = int(batch["mask"].sum(1).max())
    assert cut["input"].shape == cut["target"].shape == cut["mask"].shape == (6, length)
    assert torch.equal(cut["input"], batch["input"][:, :length])


@pytest.mark.parametrize(
    ("task", "weights", "terms"),
    [("embedding", {"soft": 3.0}, "sentence, cosine"), ("mlm", {"sentence": 2.0}, "soft, hard, cosine")],
)
def test_a_weight_of_a_term_that_the_task_lacks_is_refused(task, weights, terms):
    student, teacher = pair(task)
    ((name, weight),) = weights.items()
    with pytest.raises(
        ConfigError, match=rf"^loss_weights\.{name}={weight:g} is of no use for task='{task}'; terms: {terms}"
    ):
        DistilBERT(student, teacher, task=task, loss_weights=weights)
    DistilBERT(student, teacher, task=task, loss_weights={name: 0.0})


def test_the_scores_of_a_search_are_drawn(tmp_path):
    student, teacher = pair(layers="auto", depth=2)
    assert DistilBERT(student, teacher).figures(tmp_path) == []
    student.search = LayerSearch((0, 2), 0.5, {(0, 2): 0.5, (1, 2): 0.25, (0, 1): float("nan")})
    (path,) = DistilBERT(student, teacher).figures(tmp_path)
    assert path.name == "layers.png"
    assert path.stat().st_size > 1000


def test_a_model_of_another_task_is_refused():
    student, teacher = pair("classification")
    with pytest.raises(ConfigError, match=r"^student must be a transformer of text of task 'mlm', got task='classific"):
        DistilBERT(student, teacher)
    with pytest.raises(ConfigError, match=r"^student must be a transformer of text of task 'mlm', got Linear"):
        DistilBERT(torch.nn.Linear(2, 2), bert())


def test_the_kinds_follow_from_the_task():
    assert DistilBERT.kinds({"task": "embedding"}) == ("encoder", "encoder")
    assert DistilBERT.kinds({}) == ("masked_lm", "masked_lm")
    with pytest.raises(ConfigError, match=r"^distiller\.task must be one of mlm, classification, embedding, got 'clm'"):
        DistilBERT.kinds({"task": "clm"})
