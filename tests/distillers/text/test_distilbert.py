"""The triple loss between masked language models, the cache of likely tokens, and whole runs."""

import pytest
import torch
from torch.nn.functional import cosine_embedding_loss, cross_entropy, kl_div

import kdzoo
from kdzoo.core.batch import IGNORE
from kdzoo.distillers import DistilBERT
from kdzoo.errors import ConfigError
from tests.distillers.text.cases import VOCABULARY, batch_of, pair

transformers = pytest.importorskip("transformers")


def test_the_triple_loss_is_that_of_torch():
    student, teacher = pair()
    batch, T = batch_of(), 2.0
    terms = DistilBERT(student, teacher, temperature=T).losses(batch)
    teacher.eval()
    valid = batch["mask"]
    arguments = {"input_ids": batch["input"], "attention_mask": valid.long(), "output_hidden_states": True}
    student_result, teacher_result = student.model(**arguments), teacher.model(**arguments)
    log_q = (student_result.logits[valid] / T).log_softmax(-1)
    soft = kl_div(log_q, (teacher_result.logits[valid] / T).softmax(-1), reduction="batchmean")
    hard = cross_entropy(student_result.logits.flatten(0, 1), batch["target"].flatten(), ignore_index=IGNORE)
    s, t = student_result.hidden_states[-1][valid], teacher_result.hidden_states[-1][valid]
    cosine = cosine_embedding_loss(s, t, torch.ones(len(s)))
    for name, expected in {"soft": soft * T**2, "hard": hard, "cosine": cosine}.items():
        torch.testing.assert_close(terms[name].mean().float(), expected, atol=1e-5, rtol=1e-5)


def test_terms_without_weight_are_not_computed():
    student, teacher = pair()
    terms = DistilBERT(student, teacher, loss_weights={"soft": 0.0, "cosine": 0.0}).losses(batch_of())
    assert terms.keys() == {"hard"}


def test_only_masked_compares_logits_at_the_masked_tokens():
    student, teacher = pair()
    batch = batch_of()
    masked = batch["target"] != IGNORE
    distiller = DistilBERT(student, teacher, only_masked=True)
    soft = distiller.losses(batch)["soft"]
    everywhere = DistilBERT(student, teacher).losses(batch)["soft"]
    torch.testing.assert_close(soft, everywhere[masked[batch["mask"]]])
    assert "soft" in distiller.label_terms
    assert "soft" not in DistilBERT(student, teacher).label_terms


# ---------------------------------------------------------------- top_k and the cache


def test_the_divergence_of_few_tokens_grows_to_that_of_all():
    student, teacher = pair()
    batch = batch_of()
    terms = {k: DistilBERT(student, teacher, top_k=k).losses(batch) for k in (None, 1, 30, VOCABULARY - 1)}
    assert terms[1]["soft"].mean() < terms[30]["soft"].mean() < terms[None]["soft"].mean()
    torch.testing.assert_close(terms[VOCABULARY - 1]["soft"], terms[None]["soft"], rtol=1e-5, atol=1e-8)
    for k in (1, 30):
        # The hidden states are rounded to half precision.
        torch.testing.assert_close(terms[k]["cosine"], terms[None]["cosine"], rtol=0, atol=5e-4)
        assert torch.equal(terms[k]["hard"], terms[None]["hard"])


@pytest.mark.parametrize("weights", [{}, {"cosine": 0.0}, {"soft": 0.0}])
def test_cached_outputs_give_the_same_terms(weights):
    student, teacher = pair()
    distiller, batch = DistilBERT(student, teacher, top_k=5, loss_weights=weights), batch_of()
    assert distiller.frozen_teacher.cache_key is not None
    expected = distiller.losses(batch)
    distiller.frozen_teacher.cache["train"] = distiller.teacher_outputs(batch)  # of texts with their padding
    if "cosine" not in weights:  # of these only the direction is kept, at half of the memory
        states = distiller.frozen_teacher.cache["train"]["last"]
        assert states.dtype == torch.half
        assert float((states.double().norm(dim=-1) - 1).abs().max()) < 5e-3
    order = torch.tensor([4, 0, 5])
    shorter = {name: value[order, :10] if value.dim() == 2 else value[order] for name, value in batch.items()}
    shorter["mask"] = shorter["mask"] & (torch.arange(10) < 9)
    with distiller.frozen_teacher.using_cache("train"):
        teacher.forward = teacher.read = None  # it is not called again
        result = distiller.losses(batch)
        of_shorter = distiller.losses(shorter)
    assert expected.keys() == result.keys() == of_shorter.keys()
    for name in expected:
        torch.testing.assert_close(expected[name], result[name], rtol=1e-5, atol=5e-4 if name == "cosine" else 1e-8)


@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 3, "loss_weights": {"hidden": 1.0}}, {"top_k": 3, "loss_weights": {"soft": 0, "cosine": 0}}],
)
def test_outputs_that_are_large_or_not_needed_are_not_cached(options):
    assert DistilBERT(*pair(), **options).frozen_teacher.cache_key is None


def test_the_cache_key_holds_what_the_outputs_depend_on():
    keys = [
        DistilBERT(*pair(), top_k=3, **options).frozen_teacher.cache_key
        for options in ({}, {"temperature": 3.0}, {"loss_weights": {"cosine": 0.0}}, {"loss_weights": {"soft": 1.0}})
    ]
    assert keys[0] == keys[3]  # the size of a weight changes no output
    assert keys[0] not in keys[1:3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": VOCABULARY}, f"top_k must be less than the {VOCABULARY} tokens of the student, got {VOCABULARY}"),
        ({"top_k": 0}, "top_k must be an integer"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"only_masked": 1}, "only_masked must be"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        DistilBERT(*pair(), **options)


# ---------------------------------------------------------------- whole runs


def test_a_run_on_text_exports_a_student_that_transformers_opens(run, blocks, tmp_path):
    search = ["student.layers=auto", "student.objective=loss", "student.search_size=8"]
    report = run("distiller=distilbert", *blocks, *search, "control=false")
    folder = tmp_path / "run" / "student"
    assert report["student"]["metrics"]["layer_parameters"] * 2 == report["teacher"]["metrics"]["layer_parameters"]
    assert 0 <= report["fidelity"]["student"]["agreement"] <= 1
    student = kdzoo.load_student(folder)
    assert len(student.chosen_layers) == 2
    reloaded = transformers.AutoModelForMaskedLM.from_pretrained(folder / "hf", local_files_only=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "hf", local_files_only=True)
    tokens = tokenizer("the [MASK] sits on a mat", return_tensors="pt")
    torch.testing.assert_close(reloaded(**tokens).logits, student(tokens["input_ids"]), rtol=1e-5, atol=1e-5)
    card = (folder / "hf" / "README.md").read_text()
    assert f"| student | masked_loss | {report['student']['metrics']['masked_loss']:.4g} |" in card


def test_a_run_with_cached_outputs_has_the_result_of_one_without(run, blocks, tmp_path):
    settings = [*blocks, "control=false", "data.copies=2", "distiller.top_k=8", "teacher.dropout=0.0"]
    metrics = {}
    for cached in (True, False):
        folders = (f"output_dir={tmp_path / str(cached)}", f"cache_dir={tmp_path / str(cached) / 'cache'}")
        report = run("distiller=distilbert", *settings, f"teacher_cache={cached}", *folders)
        metrics[cached] = report["student"]["metrics"]
        manifests = list((tmp_path / str(cached) / "cache").glob("teacher_outputs/*/manifest.json"))
        assert bool(manifests) == cached
    assert metrics[True] == pytest.approx(metrics[False], rel=1e-4)
