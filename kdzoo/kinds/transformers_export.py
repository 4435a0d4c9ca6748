"""Text transformers as a folder that Hugging Face's transformers opens, and as a program of ``torch.export``."""

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
from kdzoo.errors import CheckpointError, ConfigError, KdzooWarning, in_one_line
from kdzoo.models.transformer import Transformer
from kdzoo.storage import atomic

FOLDER, PROGRAM = "hf", "program.pt2"
# Largest difference between the outputs of a model and of what was exported, relative to 1 + their size. Sums of
# float32 in another order differ in the seventh digit; a wrong weight or mask changes far more.
TOLERANCE = 1e-5
# A few texts show whether an export works; each costs a forward pass of the model and of both exports.
COMPARED_TEXTS = 4
# Longest text of a program if the model has no limit: ``torch.export`` asks for some bound.
MAX_LENGTH = 2**16
POOLED = (
    "The vector of a text is the mean of the last hidden states of its tokens, scaled to norm 1; the pooler that "
    "`AutoModel` adds has no effect on it."
)
# Names of the tasks on the Hugging Face hub.
PIPELINES = {"mlm": "fill-mask", "classification": "text-classification", "embedding": "feature-extraction"}


def layer_sizes(model: nn.Module) -> dict[str, int | float]:
    """Return ``layer_parameters``, the number of parameters of a transformer's layers, without embeddings and head.

    Returns:
        Empty if the model is not a transformer or its list of layers is not known.
    """
    with suppress(ConfigError):  # raised where the list of layers is not known
        if isinstance(model, Transformer):
            return {"layer_parameters": sum(parameter.numel() for parameter in model.layers.parameters())}
    return {}


def export(model: nn.Module, folder: Path, data: Any = None) -> list[Path]:
    """Write a text transformer as ``hf/``, which ``AutoModel.from_pretrained`` opens, and as ``program.pt2``.

    Both are loaded again and called with a few texts. A format that cannot be written, or whose outputs differ, is
    removed, and a warning gives the reason.

    Args:
        model: Any model; nothing is written if it is not a text transformer.
        folder: Where ``hf/`` and ``program.pt2`` are written.
        data: The data module: its tokenizer is written into ``hf/``, and its test texts are compared. Nothing is
            written without it.

    Returns:
        The paths that were written.
    """
    if not isinstance(model, Transformer) or model.takes_images or data is None:
        return []
    if model.task == "classification" and isinstance(data, HasClassNames):
        model.model.config.id2label = dict(enumerate(map(str, data.classes)))
        model.model.config.label2id = {str(name): number for number, name in enumerate(data.classes)}
    texts = as_batch(next(iter(data.test_dataloader())))["input"][:COMPARED_TEXTS]
    tokenizer = data.tokenizer if isinstance(data, HasTokenizer) else None
    paths = []
    with inference(model):
        expected = model.cpu()(texts)
        for path, write in ((folder / FOLDER, _write_folder), (folder / PROGRAM, _write_program)):
            try:
                reloaded = write(model, texts, path, tokenizer)
                _compare(reloaded(texts), expected)
                paths.append(path)
            except Exception as error:  # a trained student is not lost because a format does not support it
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                reason = in_one_line(error)
                warnings.warn(
                    f"{type(model).__name__} is not exported as {path.name}: {reason}", KdzooWarning, stacklevel=2
                )
    return paths


def write_model_card(folder: Path, result: Mapping[str, Any], task: str) -> None:
    """Write the model card of an exported transformer, ``hf/README.md``, from the report of its run.

    Args:
        folder: Folder of the exported student; nothing is written if it has no ``hf/``.
        result: The report.
        task: ``mlm``, ``classification`` or ``embedding``.
    """
    if not (folder / FOLDER).is_dir():
        return
    metrics = [
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
        "| model | measure on the test split | value |",
        "|---|---|---:|",
        *metrics,
        "",
        *([POOLED, ""] if task == "embedding" else []),
        *(["| student against teacher | value |", "|---|---:|", *fidelity, ""] if fidelity else []),
        f"Parameters: {_number((result['student'] or {}).get('parameters'))}. "
        f"Versions: {', '.join(f'{name} {version}' for name, version in result['versions'].items())}.",
    ]
    atomic.write_text(folder / FOLDER / "README.md", "\n".join(lines) + "\n")


def _write_folder(model: Transformer, _: Tensor, folder: Path, tokenizer: Any) -> Transformer:
    """Write the folder and return the model that it holds."""
    model.model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer = copy.copy(tokenizer)  # the data module keeps its own
        tokenizer.model_max_length = min(tokenizer.model_max_length, model.max_length or tokenizer.model_max_length)
        tokenizer.save_pretrained(folder)
    reloaded = type(model.model).from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return Transformer(reloaded, model.task).eval()


def _write_program(model: Transformer, texts: Tensor, path: Path, _: Any) -> nn.Module:
    """Write the program, for any number of texts of any length, and return the one that the file holds."""
    # torch.export takes a dimension of size 1 as fixed.
    texts = texts if texts.shape[0] > 1 else texts.repeat(2, 1)
    batch = torch.export.Dim("batch", max=2**16)
    length = torch.export.Dim("length", min=2, max=model.max_length or MAX_LENGTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside of torch and transformers, which a user cannot act on
        program = torch.export.export(model, (texts,), dynamic_shapes={"input": {0: batch, 1: length}}, strict=False)
        torch.export.save(program, path)
        return torch.export.load(path).module()


def _compare(outputs: Tensor, expected: Tensor) -> None:
    """Raise a CheckpointError if the outputs of an export differ from those of the model."""
    difference = float(((outputs - expected).abs() / (1 + expected.abs())).max())
    if not difference <= TOLERANCE:  # also for NaN
        raise CheckpointError(f"it does not give the outputs of the model (difference {difference:.2g})")


def _number(value: Any) -> str:
    """Return a value of the report as a cell of a table; over several seeds it is a mapping with their mean."""
    if isinstance(value, Mapping):
        return f"{_number(value.get('mean'))} (mean over seeds)"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
