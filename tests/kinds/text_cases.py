"""Small BERTs, texts with masked tokens and with labels, and a data module of one batch."""

import torch

from kdzoo.core.batch import IGNORE
from kdzoo.models import Bert

VOCABULARY = 40
CLASSES = 3
LENGTH = 8
MASK_TOKEN = 4  # ids 0..4 are special tokens
SIZES = {"vocab_size": VOCABULARY, "num_classes": VOCABULARY, "pad_id": 0}
KIND_OF_TASK = {"mlm": "masked_lm", "classification": "classifier", "embedding": "encoder"}


def bert(task, seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "layers": 2, "heads": 2, "max_length": 16}
    return Bert(vocab_size=VOCABULARY, task=task, num_classes=CLASSES, **sizes)


def masked_texts(n_texts=12, seed=0):
    """Return texts of which 40 % of the tokens are masked."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (n_texts, LENGTH), generator=generator)
    masked = torch.rand(n_texts, LENGTH, generator=generator) < 0.4
    target = ids.masked_fill(~masked, IGNORE)
    return {
        "input": ids.masked_fill(masked, MASK_TOKEN),
        "target": target,
        "index": torch.arange(n_texts),
        "mask": ids > 0,
    }


def labelled_texts(n_texts=30, seed=0):
    """Return texts labelled by whether their first token is in the upper half of the vocabulary."""
    ids = torch.randint(5, VOCABULARY, (n_texts, LENGTH), generator=torch.Generator().manual_seed(seed))
    return {"input": ids, "target": (ids[:, 0] > VOCABULARY // 2).long(), "index": torch.arange(n_texts)}


def texts_of(task):
    return masked_texts() if task == "mlm" else labelled_texts()


class OneBatch:
    """Stands for a data module with one batch."""

    tokenizer = None

    def __init__(self, batch):
        self.batch = batch

    def test_dataloader(self):
        return [self.batch]

    train_eval_dataloader = test_dataloader
