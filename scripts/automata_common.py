"""Functions that the studies of automata share: cached teachers, sampled strings with traces, cached JSON values."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule

from kdzoo.automata import TracedSequences
from kdzoo.core.randomness import mix_seed
from kdzoo.distillers import Supervised
from kdzoo.runs.training import Training, fit
from kdzoo.storage.checkpoint import load_student, save_model
from kdzoo.text.language_model import LanguageModel, sample, trace_token_sequences

CACHE = Path("outputs/cache/studies")


def load_or_train_teacher(
    data: LightningDataModule, model_config: dict[str, Any], *, name: str, epochs: int, lr: float = 5e-3, seed: int = 0
) -> LanguageModel:
    """Return a language model trained on the data, which is loaded from the cache if it was trained before."""
    folder = CACHE / f"{name}-{epochs}-{lr:g}-{seed}"
    if not (folder / "config.json").exists():
        from kdzoo import config

        torch.manual_seed(mix_seed(seed, 1))
        model = config.instantiate(model_config, allow=config.packaged_targets())
        distiller = Supervised(
            model,
            optimizer=partial(torch.optim.Adam, lr=lr),
            scheduler=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs),
        )
        trainer_settings = {
            "accelerator": "cpu",
            "max_epochs": epochs,
            "gradient_clip_val": 1.0,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
        }
        fit(distiller, data, Training(trainer_settings, folder / "training", seed, name))
        save_model(model, model_config, folder)
    language_model: Any = load_student(folder)
    return language_model


def sample_and_trace(teacher: LanguageModel, n: int, *, seed: int, max_length: int = 250) -> TracedSequences:
    """Return n strings sampled from the teacher, with hidden states and next-token probabilities at every prefix."""
    strings = sample(teacher, n, max_length=max_length, seed=mix_seed(seed, 2))
    trace_output = trace_token_sequences(teacher, strings)
    return TracedSequences(strings, teacher.vocab_size, trace_output.hidden, trace_output.log_probs.double().exp())


def load_or_compute(path: Path, key: str, compute: Any) -> Any:
    """Return the JSON value under a key of a file; a missing value is computed and written to the file."""
    cached = json.loads(path.read_text()) if path.exists() else {}
    if key not in cached:
        value = compute()
        cached = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**cached, key: value}, indent=1))
        return value
    return cached[key]
