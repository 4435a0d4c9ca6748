"""A plain Lightning trainer validates, tests and predicts with a distiller."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kdzoo.distillers import LogitKD
from kdzoo.functional import soft_target_kl


@pytest.fixture
def distiller():
    torch.manual_seed(0)
    return LogitKD(nn.Linear(4, 3), nn.Linear(4, 3), loss_weights={"soft": 2.0, "hard": 0.5})


@pytest.fixture
def loader():
    torch.manual_seed(1)
    # The last batch is smaller: means are over samples, not over batches.
    return DataLoader(TensorDataset(torch.randn(10, 4), torch.randint(3, (10,))), batch_size=4)


def trainer_of(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", enable_model_summary=False, **{**quiet, **options})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("method", "split"), [("validate", "val"), ("test", "test")])
def test_a_trainer_measures_the_terms_on_a_split(method, split, distiller, loader):
    (measured,) = getattr(trainer_of(), method)(distiller, loader, verbose=False)
    inputs, targets = loader.dataset.tensors
    with torch.no_grad():
        terms = distiller.losses({"input": inputs, "target": targets})
    expected = {f"{split}/{name}": float(values.mean()) for name, values in terms.items()}
    expected[f"{split}/loss"] = 2.0 * expected[f"{split}/soft"] + 0.5 * expected[f"{split}/hard"]
    assert measured == pytest.approx(expected, rel=1e-6)


class Indexed(torch.utils.data.Dataset):
    """Samples with their rows in the cache of teacher outputs."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        inputs, target = self.samples[index]
        return {"input": inputs, "target": target, "index": index}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("method", "cached"), [("validate", "val"), ("test", None)])
def test_a_split_reads_its_own_cached_outputs(method, cached, distiller, loader):
    """Training and validation samples have the same indices, so only the split tells their outputs apart."""
    torch.manual_seed(2)
    outputs = {split: torch.randn(10, 3) for split in ("train", "val")}
    distiller.frozen_teacher.cache = {split: {"output": values} for split, values in outputs.items()}
    indexed = DataLoader(Indexed(loader.dataset), batch_size=4)
    (measured,) = getattr(trainer_of(), method)(distiller, indexed, verbose=False)
    inputs, _ = loader.dataset.tensors
    with torch.no_grad():
        teacher_logits = outputs[cached] if cached else distiller.teacher(inputs)
        expected = soft_target_kl(distiller.student(inputs), teacher_logits, temperature=distiller.temperature)
    assert measured[f"{'val' if cached else 'test'}/soft"] == pytest.approx(float(expected.mean()), rel=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_predicts_with_the_student(distiller, loader):
    outputs = torch.cat(trainer_of().predict(distiller, loader))
    with torch.no_grad():
        assert torch.equal(outputs, distiller.student(loader.dataset.tensors[0]))


@pytest.mark.filterwarnings("ignore")
def test_the_progress_bar_shows_the_terms(distiller, loader):
    trainer = trainer_of(max_epochs=1, log_every_n_steps=1)
    trainer.fit(distiller, loader)
    assert {"train/soft", "train/hard"} <= trainer.progress_bar_metrics.keys()
