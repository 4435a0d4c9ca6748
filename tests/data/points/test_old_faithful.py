import numpy as np
import pytest
import torch

from kdzoo.data import OldFaithful
from kdzoo.errors import ConfigError, DataError


def ready(data):
    data.setup()
    return data


def table(n=272):
    rng = np.random.default_rng(0)
    return np.column_stack([1 + np.arange(n), rng.uniform(1.6, 5.1, n).round(3), rng.integers(43, 97, n)])


def write(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "OF.txt").write_text("".join(f"{int(i)}       {x:.3f}      {y:.0f}\n" for i, x, y in rows))


def inputs_of(data):
    return [part.inputs for part in (data.splits.train, data.splits.val, data.splits.test)]


def minutes(inputs, data):
    return inputs * torch.tensor(data.minutes["std"]) + torch.tensor(data.minutes["mean"])


@pytest.mark.parametrize("folder", ["", "old_faithful"], ids=["root", "own_folder"])
def test_all_rows_are_for_train_and_for_test(tmp_path, folder):
    write(tmp_path / folder, table())
    data = ready(OldFaithful(root=tmp_path))
    assert data.sizes == {"in_shape": (2,)}
    assert data.summary() == {"n_train": 272, "n_labelled": 0, "n_val": 0, "n_test": 272, "num_classes": 0}
    assert data.val_dataloader() == []
    expected = torch.from_numpy(table()[:, 1:]).float()
    for loader in (data.train_eval_dataloader(), data.test_dataloader()):
        found = torch.cat([batch["input"] for batch in loader])
        torch.testing.assert_close(minutes(found, data), expected, rtol=0, atol=1e-4)
    (batch,) = data.train_dataloader()
    assert sorted(batch["index"].tolist()) == list(range(272))


def test_parts_are_disjoint_and_the_same_for_every_seed(tmp_path):
    write(tmp_path, table())
    options = {"root": tmp_path, "val_size": 0.25, "test_size": 50, "batch_size": 32}
    first, second = (ready(OldFaithful(**options, seed=seed)) for seed in (0, 1))
    assert [len(one) for one in inputs_of(first)] == [154, 68, 50]
    assert all(torch.equal(a, b) for a, b in zip(inputs_of(first), inputs_of(second), strict=True))
    together = torch.cat(inputs_of(first))
    assert len(together.unique(dim=0)) == len(ready(OldFaithful(root=tmp_path)).splits.train.inputs.unique(dim=0))
    val_only = ready(OldFaithful(**{**options, "test_size": 0}))
    assert [len(one) for one in inputs_of(val_only)] == [204, 68, 272]


def test_bad_files_and_options(tmp_path):
    with pytest.raises(DataError, match=r"old_faithful: not all of OF\.txt are in"):
        OldFaithful(root=tmp_path).setup()
    write(tmp_path, table(271))
    with pytest.raises(DataError, match=r"OF.txt is a table \[271, 3\]; allowed: \[272, 3\]"):
        OldFaithful(root=tmp_path).setup()
    (tmp_path / "OF.txt").write_text("1 two 3\n")
    with pytest.raises(DataError, match=r"OF.txt cannot be read as a table of numbers") as caught:
        OldFaithful(root=tmp_path).setup()
    assert "\n" not in str(caught.value)
    write(tmp_path, table())
    with pytest.raises(
        ConfigError, match=r"val_size=200 and test_size=0.5 take 200 \+ 136 of 272; allowed: at most 271"
    ):
        OldFaithful(root=tmp_path, val_size=200, test_size=0.5).setup()
    with pytest.raises(ConfigError, match=r"batch_size=272 is larger than the 262 training samples; allowed: 1\.\.262"):
        OldFaithful(root=tmp_path, val_size=10).setup()
    with pytest.raises(ConfigError, match=r"test_size=-0.5 is not allowed; allowed: a fraction in \[0, 1\) or a count"):
        OldFaithful(test_size=-0.5)


def test_real_rows(real_root):
    if not (real_root / "old_faithful").is_dir():
        pytest.skip("no Old Faithful")
    data = ready(OldFaithful(root=real_root))
    inputs = data.splits.train.inputs.double()
    assert inputs.mean(0).abs().max() < 1e-7
    assert (inputs.std(0, correction=0) - 1).abs().max() < 1e-7
    assert minutes(inputs[:2], data).tolist() == pytest.approx(np.array([[3.6, 79], [1.8, 54]]), abs=1e-5)
