"""The store of teacher outputs returns what the teacher returns, or rejects what it finds."""

import itertools
import json
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from kdzoo.core.samplers import EpochBatches
from kdzoo.data.loading.batch_loader import BatchDataset, batch_loader
from kdzoo.errors import CacheError, ConfigError, RunFolderError
from kdzoo.storage import checked_json, sharded_rows, teacher_outputs


def batches(inputs, size=600):
    return [{"input": part} for part in inputs.split(size)]


def computation(teacher):
    """Return a function from a batch to the teacher's output, and its largest value with its place."""

    def compute(batch):
        output = teacher(batch["input"])
        return {"output": output, **dict(zip(("largest", "place"), output.max(1), strict=True))}

    return compute


def all_rows(rows):
    return rows[torch.arange(len(rows))]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(all_rows(one[name]), all_rows(other[name])) for name in one)


def never(batch):
    raise AssertionError("the teacher is run again")


def test_runs_at_the_same_time_compute_once_and_the_others_wait(tmp_path):
    """Threads instead of processes: a lock belongs to an open file, not to a process."""
    n_computed, inputs = [], torch.randn(3, 2)

    def compute(batch):
        n_computed.append(len(batch["input"]))
        time.sleep(0.1)
        return {"output": batch["input"]}

    def run(_):
        return teacher_outputs.load_or_compute(tmp_path, {}, compute, batches(inputs, 1))

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(run, range(3)))
    assert n_computed == [1, 1, 1]
    assert all(equal(result, {"output": inputs}) for result in results)


def make_teacher():
    torch.manual_seed(0)
    return nn.Linear(4, 3).eval()


def make_inputs():
    torch.manual_seed(1)
    return torch.randn(2500, 4)


@pytest.fixture
def store(tmp_path):
    inputs = make_inputs()
    fingerprint = {"teacher": "a", "inputs and their order": "b", "dtype": "c"}
    compute = computation(make_teacher())
    folder = tmp_path / "store"
    outputs = teacher_outputs.load_or_compute(folder, fingerprint, compute, batches(inputs))
    return folder, fingerprint, compute, inputs, outputs


FIRST_SHARD, LAST_SHARD = "rows_000000000-000001199.safetensors", "rows_000002400-000002499.safetensors"


def test_the_second_time_nothing_is_computed(store):
    folder, fingerprint, compute, inputs, outputs = store
    names = sorted(path.name for path in folder.iterdir())
    assert names == [".lock", "manifest.json", FIRST_SHARD, "rows_000001200-000002399.safetensors", LAST_SHARD]
    assert equal(teacher_outputs.load_or_compute(folder, fingerprint, never, []), outputs)
    (folder / ".lock").unlink()
    assert equal(teacher_outputs.load_or_compute(folder, fingerprint, never, []), outputs)
    assert not (folder / ".lock").exists()  # what is complete can be read where nothing can be written
    live = compute({"input": inputs})
    assert torch.allclose(all_rows(outputs["output"]), live["output"], atol=1e-6)
    assert torch.equal(all_rows(outputs["place"]), live["place"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool])
def test_every_dtype_and_shape_comes_back(dtype, tmp_path):
    torch.manual_seed(0)
    values = (torch.randn(50, 2, 3) * 3).to(dtype)
    outputs = teacher_outputs.load_or_compute(
        tmp_path, {}, lambda batch: {"a": batch["input"], "b": batch["input"][:, 0, 0]}, batches(values, 7)
    )
    assert torch.equal(all_rows(outputs["a"]), values)
    assert torch.equal(all_rows(outputs["b"]), values[:, 0, 0])


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def fill_slowly(folder, fingerprint, kill_after=None):
    """Fill a store as a process of its own would; end by a kill after so many batches."""
    n_batches = itertools.count(1)

    def compute(batch):
        time.sleep(0.01)
        if next(n_batches) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return computation(make_teacher())(batch)

    torch.set_num_threads(1)
    teacher_outputs.fill(folder, fingerprint, compute, batches(make_inputs(), 50))


def start(*arguments):
    """Start a process that runs :func:`fill_slowly`."""
    # A process of this test session must not be forked, since it has threads; this server has none, and imports once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=fill_slowly, args=arguments, daemon=True)
    process.start()
    return process


def test_killed_processes_and_other_numbers_of_them_leave_the_same_bytes(tmp_path):
    alone, shared, fingerprint = tmp_path / "alone", tmp_path / "shared", {"teacher": "a"}
    teacher_outputs.fill(alone, fingerprint, computation(make_teacher()), batches(make_inputs(), 50))
    killed = start(shared, fingerprint, 30)  # in its second block
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert len(contents(shared)) == 2  # a shard, and the lock of the block that it was at
    others = [start(shared, fingerprint, kill_after) for kill_after in (None, 5, None)]
    for process in others:
        process.join(60)
    assert [process.exitcode for process in others] == [0, -signal.SIGKILL, 0]
    assert len(contents(alone)) == 4  # three shards and the manifest
    assert contents(shared) == contents(alone)


def test_only_the_missing_blocks_are_computed_and_loaded(tmp_path):
    """The loader of packaged data, whose keys tell the sizes of the batches."""
    loaded = []

    class Inputs(BatchDataset):
        def __len__(self):
            return 2500

        def get_batch(self, epoch, index):
            loaded.append(int(index[0]))
            return {"input": index.double()[:, None]}

    loader = batch_loader(Inputs(), EpochBatches(2500, 600, seed=0, shuffle=False))
    outputs = teacher_outputs.load_or_compute(tmp_path, {}, lambda batch: {"output": batch["input"]}, loader)
    assert loaded == [0, 600, 1200, 1800, 2400]
    (tmp_path / "manifest.json").unlink(), (tmp_path / LAST_SHARD).unlink()
    again = teacher_outputs.load_or_compute(tmp_path, {}, lambda batch: {"output": batch["input"]}, loader)
    assert loaded[5:] == [2400]
    assert equal(again, outputs)
    assert torch.equal(all_rows(again["output"])[:, 0], torch.arange(2500.0).double())


def test_what_is_read_does_not_stay_in_memory(tmp_path):
    """64 MiB are read in batches; what the process holds for itself grows by less than 4 MiB."""

    def own_memory():
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("RssAnon:")[1].split()[0]) / 1024

    inputs = [{"input": torch.empty(512, 0)}] * 16
    teacher_outputs.fill(tmp_path, {}, lambda batch: {"output": torch.ones(512, 2048)}, inputs)
    before, total = own_memory(), 0.0
    rows = teacher_outputs.read(tmp_path, {})["output"]
    for index in torch.arange(8192).split(128):
        total += float(rows[index].sum())
    assert total == 8192 * 2048
    assert own_memory() - before < 4


def test_outputs_that_are_not_one_for_each_sample_are_rejected(tmp_path):
    with pytest.raises(ConfigError, match="'output' has 1 rows for 3 samples"):
        teacher_outputs.fill(tmp_path, {}, lambda batch: {"output": batch["input"][:1]}, batches(torch.ones(3, 2)))


def test_a_training_cannot_change_the_file(store):
    folder, fingerprint, _, _, outputs = store
    before = contents(folder)
    all_rows(outputs["output"]).add_(1.0)
    for tensor in sharded_rows.read(folder / FIRST_SHARD).values():
        tensor.add_(1)
    assert contents(folder) == before
    assert equal(teacher_outputs.read(folder, fingerprint), outputs)


@pytest.mark.parametrize("name", ["teacher", "inputs and their order", "dtype"])
def test_outputs_of_something_else_are_rejected(store, name):
    folder, fingerprint, compute, inputs, _ = store
    with pytest.raises(CacheError, match=f"made with another {name}; delete"):
        teacher_outputs.load_or_compute(folder, {**fingerprint, name: "z"}, compute, batches(inputs))


def damage_flip(folder):
    path = folder / FIRST_SHARD
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def damage_swap(folder):
    """Exchange two parts of the rows; the size stays the same."""
    path = folder / FIRST_SHARD
    content = path.read_bytes()
    path.write_bytes(content[:-2400] + content[-1200:] + content[-2400:-1200])


def damage_truncate(folder):
    path = folder / FIRST_SHARD
    path.write_bytes(path.read_bytes()[:-1])


def damage_missing(folder):
    (folder / FIRST_SHARD).unlink()


@pytest.mark.parametrize("damage", [damage_flip, damage_swap, damage_truncate, damage_missing])
def test_a_damaged_file_is_rejected(store, damage):
    folder, fingerprint, compute, inputs, _ = store
    damage(folder)
    with pytest.raises(CacheError, match=rf"{FIRST_SHARD} are missing or corrupt; delete"):
        teacher_outputs.load_or_compute(folder, fingerprint, compute, batches(inputs))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fingerprint": {}, "outputs": {}}'])
def test_a_damaged_manifest_is_rejected(store, text):
    folder, fingerprint, compute, inputs, _ = store
    (folder / "manifest.json").write_text(text)
    with pytest.raises(
        CacheError, match=r"manifest\.json is (not valid JSON|damaged).*; delete .* to compute it again"
    ):
        teacher_outputs.load_or_compute(folder, fingerprint, compute, batches(inputs))


def test_the_dtype_of_weights_counts_where_their_bytes_are_the_same():
    def fingerprint_with(dtype):
        model = nn.Linear(2, 1)
        nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
        model.register_buffer("shift", torch.zeros(2, dtype=dtype))
        return teacher_outputs.weights_fingerprint(model)

    assert fingerprint_with(torch.float32) == fingerprint_with(torch.float32)
    assert fingerprint_with(torch.float32) != fingerprint_with(torch.int32)


@pytest.mark.parametrize(
    "manifest",
    [
        {"fingerprint": {}},
        {"fingerprint": 3, "shards": []},
        {"fingerprint": {}, "shards": []},
        {"fingerprint": {}, "shards": [{"file": FIRST_SHARD}]},
        {"fingerprint": {}, "shards": [{"file": "../" + FIRST_SHARD, "sha256": ""}]},
    ],
)
def test_another_manifest_is_rejected(store, manifest):
    folder, fingerprint, compute, inputs, _ = store
    checked_json.write(folder / "manifest.json", manifest)
    with pytest.raises(CacheError, match="is not a manifest of teacher outputs"):
        teacher_outputs.load_or_compute(folder, fingerprint, compute, batches(inputs))


def test_without_a_manifest_everything_is_computed_again(store):
    """A kill between the outputs and the manifest leaves this."""
    folder, fingerprint, compute, inputs, outputs = store
    (folder / "manifest.json").unlink()
    assert equal(teacher_outputs.load_or_compute(folder, fingerprint, compute, batches(inputs)), outputs)
    assert json.loads((folder / "manifest.json").read_text())["fingerprint"] == fingerprint


def test_shards_that_do_not_fit_together_are_rejected(tmp_path):
    sizes = iter([2, 3])
    teacher_outputs.fill(
        tmp_path,
        {},
        lambda batch: {"output": torch.ones(len(batch["input"]), next(sizes))},
        batches(torch.ones(2048, 1), 1024),
    )
    with pytest.raises(CacheError, match="do not fit together: parts must have rows of one shape"):
        teacher_outputs.read(tmp_path, {})


def test_a_teacher_that_fails_midway_leaves_what_is_done(tmp_path):
    def compute(batch):
        if batch["input"][0, 0] > 0:
            raise RuntimeError("out of memory")
        return {"output": batch["input"]}

    inputs = torch.arange(2.0).repeat_interleave(1024)[:, None]
    with pytest.raises(RuntimeError, match="out of memory"):
        teacher_outputs.load_or_compute(tmp_path, {}, compute, batches(inputs, 1024))
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["rows_000000000-000001023.safetensors"]
    with pytest.raises(CacheError, match=r"cannot read .*manifest\.json"):
        teacher_outputs.read(tmp_path, {})


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write to .*file/store"):
        teacher_outputs.fill(
            tmp_path / "file" / "store", {}, lambda batch: {"output": batch["input"]}, batches(torch.ones(1, 1))
        )


def test_the_fingerprint_of_weights_sees_every_part():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    seen = {teacher_outputs.weights_fingerprint(model)}
    model[0].bias.data[0] += 1e-6
    seen.add(teacher_outputs.weights_fingerprint(model))
    model[1].running_mean += 1
    seen.add(teacher_outputs.weights_fingerprint(model))
    seen.add(teacher_outputs.weights_fingerprint(model.double()))
    seen.add(teacher_outputs.weights_fingerprint(nn.Sequential(*model, nn.ReLU())))
    assert len(seen) == 5
