"""Transformers of text in the formats of their field: a Hugging Face folder, and a program of torch.export."""

import copy
import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.core.abilities import HasClassNames, HasTokenizer
from kdzoo.core.batch import as_batch
from kdzoo.core.inference import inference
from kdzoo.errors import CheckpointError, ConfigError
from kdzoo.models.transformer import Transformer
from kdzoo.storage import atomic

FOLDER, PROGRAM = "hf", "program.pt2"
TOLERANCE = 1e-5
"""Largest difference of outputs, relative to 1 + their size, between a model and what was exported of it."""
POOLED = (
    "A vector of a text is the mean of the last hidden states of its tokens, divided by its length; the pooler that "
    "`AutoModel` adds is of no use."
)
PIPELINES = {"mlm": "fill-mask", "classification": "text-classification", "embedding": "feature-extraction"}


def sizes(model: nn.Module) -> dict[str, int | float]:
    """Return the number of parameters of a transformer's layers, without embeddings and head, if it has such layers."""
    with suppress(ConfigError):
        if isinstance(model, Transformer):
            return {"layer_parameters": sum(parameter.numel() for parameter in model.layers.parameters())}
    return {}


def export(model: nn.Module, folder: Path, data: Any = None) -> list[Path]:
    """Write a transformer as ``hf/``, which ``AutoModel.from_pretrained`` opens, and as ``program.pt2``.

    Both are read again and asked a few texts. What cannot be written, or answers otherwise, is not left, and a warning
    says why.

    Args:
        model: nothing is written of one that is no transformer of text.
        folder: for both.
        data: whose ``tokenizer`` goes into the folder, and whose test part has the texts.
    """
    if not isinstance(model, Transformer) or model.takes_images or data is None:
        return []
    if model.task == "classification" and isinstance(data, HasClassNames):
        model.model.config.id2label = dict(enumerate(map(str, data.classes)))
        model.model.config.label2id = {str(name): number for number, name in enumerate(data.classes)}
    texts = as_batch(next(iter(data.test_dataloader())))["input"][:4]
    found = []
    with inference(model):
        expected = model.cpu()(texts)
        for path, write in ((folder / FOLDER, _hugging_face), (folder / PROGRAM, _program)):
            try:
                again = write(model, texts, path, data.tokenizer if isinstance(data, HasTokenizer) else None)
                _compare(again(texts), expected)
                found.append(path)
            except Exception as error:  # a trained student is not lost because a format does not take it
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                reason = " ".join(str(error).split())[:200]
                warnings.warn(f"{type(model).__name__} is not exported as {path.name}: {reason}", stacklevel=2)
    return found


def model_card(folder: Path, result: Mapping[str, Any], task: str) -> None:
    """Write the model card of an exported folder from the report of its run."""
    if not (folder / FOLDER).is_dir():
        return
    rows = [
        f"| {role} | {name} | {_number(value)} |"
        for role in ("student", "teacher", "control")
        for name, value in ((result.get(role) or {}).get("metrics") or {}).items()
    ]
    fidelity = [f"| {name} | {_number(value)} |" for name, value in (result["fidelity"].get("student") or {}).items()]
    lines = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {PIPELINES[task]}",
        "tags: [knowledge-distillation, kdzoo]",
        "---",
        f"# Distilled by `{result['distiller']}` on `{result['data']}`",
        "",
        f"Made by `{result['command']}`, seed {result['seed']}.",
        "",
        "| model | measure on the test part | value |",
        "|---|---|---:|",
        *rows,
        "",
        *([POOLED, ""] if task == "embedding" else []),
        *(["| student against teacher | value |", "|---|---:|", *fidelity, ""] if fidelity else []),
        f"Parameters: {_number((result['student'] or {}).get('parameters'))}. "
        f"Versions: {', '.join(f'{name} {version}' for name, version in result['versions'].items())}.",
    ]
    atomic.write_text(folder / FOLDER / "README.md", "\n".join(lines) + "\n")


def _hugging_face(model: Transformer, _: Tensor, folder: Path, tokenizer: Any) -> Any:
    """Write the folder and return the model that it holds."""
    model.model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer = copy.copy(tokenizer)
        tokenizer.model_max_length = min(tokenizer.model_max_length, model.max_length or tokenizer.model_max_length)
        tokenizer.save_pretrained(folder)
    again = type(model.model).from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return Transformer(again, model.task).eval()


def _program(model: Transformer, texts: Tensor, path: Path, _: Any) -> Any:
    """Write the program, for any number of texts of any length, and return what it holds."""
    longest = model.max_length or 2**16
    texts = texts if texts.shape[0] > 1 else texts.repeat(2, 1)
    shapes = {"input": {0: torch.export.Dim("batch", max=2**16), 1: torch.export.Dim("length", min=2, max=longest)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model, (texts,), dynamic_shapes=shapes, strict=False), path)
        return torch.export.load(path).module()


def _compare(found: Tensor, expected: Tensor) -> None:
    gap = float(((found - expected).abs() / (1 + expected.abs())).max())
    if not gap <= TOLERANCE:
        raise CheckpointError(f"it does not give the outputs of the model (difference {gap:.2g})")


def _number(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{_number(value.get('mean'))} (mean over seeds)"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
