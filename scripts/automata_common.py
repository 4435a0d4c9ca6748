"""What the studies of automata share: teachers, trained once and kept, and what a model loses to the truth."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import nn

from kdzoo.automata import TracedSequences
from kdzoo.core.randomness import mix_seed
from kdzoo.distillers import Supervised
from kdzoo.runs.training import Training, fit
from kdzoo.storage.checkpoint import load_student, save_model
from kdzoo.text.language_model import LanguageModel, sample, trace_token_sequences

CACHE = Path("outputs/cache/studies")


def teacher_of(
    data: LightningDataModule, node: dict[str, Any], *, name: str, epochs: int, lr: float = 5e-3, seed: int = 0
) -> nn.Module:
    """Return the language model of that configuration trained on the data; a second call reads it from the cache."""
    folder = CACHE / f"{name}-{epochs}-{lr:g}-{seed}"
    if not (folder / "config.json").exists():
        from kdzoo import config

        torch.manual_seed(mix_seed(seed, 1))
        model = config.instantiate(node, allow=config.packaged_targets())
        distiller = Supervised(
            model,
            optimizer=partial(torch.optim.Adam, lr=lr),
            scheduler=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs),
        )
        settings = {
            "accelerator": "cpu",
            "max_epochs": epochs,
            "gradient_clip_val": 1.0,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
        }
        fit(distiller, data, Training(settings, folder / "training", seed, name))
        save_model(model, node, folder)
    return load_student(folder)


def sample_and_trace(teacher: LanguageModel, n: int, *, seed: int, max_length: int = 250) -> TracedSequences:
    """Return n strings of the teacher, with what it holds at their points."""
    strings = sample(teacher, n, max_length=max_length, seed=mix_seed(seed, 2))
    seen = trace_token_sequences(teacher, strings)
    return TracedSequences(strings, teacher.vocab_size, seen.hidden, seen.log_probs.double().exp())


def remember(path: Path, key: str, compute: Any) -> Any:
    """Return the JSON value under a key of a file, computed and written at once if it is missing."""
    known = json.loads(path.read_text()) if path.exists() else {}
    if key not in known:
        value = compute()
        known = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**known, key: value}, indent=1))
        return value
    return known[key]
