"""Small text transformers and batches of every task, and the gradient of a whole training step."""

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from kdzoo.core.batch import IGNORE
from kdzoo.distillers import DistilBERT, DistilBERTClassifier, DistilBERTEncoder
from kdzoo.models import Bert, TruncatedTransformer

METHODS = {"mlm": DistilBERT, "classification": DistilBERTClassifier, "embedding": DistilBERTEncoder}
VOCABULARY = 40
LENGTH = 12
MASK_TOKEN = 4  # ids 0..4 are special tokens
CLASSES = 3


def bert(task="mlm", seed=0, **options):
    """Return a BERT of four layers without dropout."""
    torch.manual_seed(seed)
    settings = {"hidden_size": 16, "layers": 4, "heads": 2, "max_length": 24, "dropout": 0.0, "num_classes": CLASSES}
    return Bert(vocab_size=VOCABULARY, task=task, **{**settings, **options})


def pair(task="mlm", **options):
    """Return a student of two layers, at random unless ``options`` say otherwise, and its teacher."""
    teacher = bert(task)
    torch.manual_seed(1)
    student = TruncatedTransformer(teacher_architecture=teacher.architecture, **{"start": "random", **options})
    return student, teacher


def batch_of(task="mlm", n_texts=6, seed=0):
    """Return texts of 4 to 12 tokens; of ``mlm`` with masked tokens, else with one label per text."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (n_texts, LENGTH), generator=generator)
    mask = torch.arange(LENGTH) < torch.randint(4, LENGTH + 1, (n_texts, 1), generator=generator)
    ids = ids * mask
    if task != "mlm":
        return {"input": ids, "target": torch.arange(n_texts) % CLASSES, "index": torch.arange(n_texts)}
    masked = (torch.rand(n_texts, LENGTH, generator=generator) < 0.3) & mask
    masked[0, 0] = True
    return {
        "input": ids.masked_fill(masked, MASK_TOKEN),
        "target": torch.where(masked, ids, IGNORE),
        "index": torch.arange(n_texts),
        "mask": mask,
    }


def gradient(distiller, batch):
    """Return the gradient of the first optimizer step, by the weights before and after a step of size 1."""
    before = [parameter.detach().clone() for parameter in distiller.trainable()]
    trainer = pl.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        precision="64-true",
    )
    trainer.fit(distiller, DataLoader([batch], batch_size=None))
    after = distiller.trainable()
    return torch.cat([(old - new.detach()).flatten() for old, new in zip(before, after, strict=True)])
