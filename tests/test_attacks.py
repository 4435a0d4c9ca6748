"""Files that come from elsewhere and try to run code, to read secrets or to write where they should not."""

import io
import json
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import save_file

import kdzoo
from kdzoo.automata import exchange
from kdzoo.data import Digits, NpzData
from kdzoo.data.files.download import unpack_members
from kdzoo.dataset_distillation import files as synthetic_files
from kdzoo.errors import KdzooError
from kdzoo.metrics.extractors import ScriptedExtractor
from kdzoo.models import MLP
from kdzoo.models.pretrained import read_weights
from kdzoo.runs.evaluation import evaluate_folder
from kdzoo.runs.written_settings import with_data_of_run
from kdzoo.storage import checked_json
from kdzoo.storage.checkpoint import load_student, read_checkpoint, save_model

NODE = {"_target_": "kdzoo.models.MLP", "in_shape": [1, 8, 8], "num_classes": 10, "hidden": [4]}
SECRET = "a-secret-of-the-environment"


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that exists as soon as something was executed."""
    monkeypatch.setenv("KDZOO_SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "executed"
    yield path
    assert not path.exists(), "something was executed"


@pytest.fixture
def folder(tmp_path):
    """An exported model."""
    torch.manual_seed(0)
    save_model(MLP(in_shape=(1, 8, 8), num_classes=10, hidden=(4,)), NODE, tmp_path / "run" / "student")
    return tmp_path / "run" / "student"


def poisoned_pickle(canary):
    class Poison:
        def __reduce__(self):
            return os.mkdir, (str(canary),)

    return pickle.dumps(Poison())


# ---------------------------------------------------------------- what may be built


# Functions that read, write, run or download something when they are called with the arguments of a file.
TARGETS = (
    "os.system", "posix.system", "os.mkdir", "os._exit", "os.getenv", "os.remove", "os.popen", "os.execv",
    "subprocess.run", "subprocess.Popen", "subprocess.check_output", "shutil.rmtree", "shutil.copyfile", "shutil.move",
    "builtins.eval", "builtins.exec", "builtins.open", "builtins.compile", "builtins.__import__", "builtins.getattr",
    "pickle.loads", "pickle.load", "marshal.loads", "shelve.open", "yaml.load", "yaml.unsafe_load", "joblib.load",
    "torch.load", "torch.save", "torch.hub.load", "torch.jit.load", "torch.utils.cpp_extension.load_inline",
    "torch.package.PackageImporter", "numpy.load", "numpy.save", "numpy.f2py.compile", "pandas.read_pickle",
    "urllib.request.urlopen", "urllib.request.urlretrieve", "socket.create_connection", "http.client.HTTPConnection",
    "importlib.import_module", "importlib.reload", "runpy.run_path", "code.interact", "pdb.set_trace", "ctypes.CDLL",
    "asyncio.create_subprocess_shell", "multiprocessing.Process", "threading.Thread", "logging.os.system",
    "pathlib.Path.write_text", "pathlib.Path.unlink", "tempfile.mkdtemp", "zipfile.ZipFile", "tarfile.open",
    "hydra.utils.instantiate", "hydra.utils.get_method", "hydra.utils.call", "omegaconf.OmegaConf.load",
    "pytorch_lightning.LightningModule.load_from_checkpoint", "transformers.AutoModel.from_pretrained",
    "kdzoo.cli.main.main", "kdzoo.storage.atomic.write_text", "kdzoo.config.instantiate", "webbrowser.open",
    # Packaged, but not models: their place is elsewhere in a configuration.
    "kdzoo.data.Digits", "kdzoo.runs.loggers.WandbLogger", "pytorch_lightning.Trainer", "torch.optim.Adam",
    "kdzoo.distillers.LogitKD", "pytorch_lightning.loggers.CSVLogger", "kdzoo.kinds.ClassifierKind",
)  # fmt: skip
PLACES = {
    "direct": lambda target: {"_target_": target, "path": "executed", "args": ["touch executed"]},
    "nested": lambda target: {**NODE, "hidden": [{"_target_": target, "_args_": ["executed"]}]},
    "deep": lambda target: {**NODE, "x": [[{"y": {"_target_": target, "_partial_": True}}]]},
    "recursive": lambda target: {**NODE, "_recursive_": False, "x": {"_target_": target}},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_description_of_a_model_builds_nothing_else(target, place, folder, canary):
    describe(folder, PLACES[place](target))
    with pytest.raises(KdzooError, match="is not in any config folder of this run"):
        load_student(folder)


RESOLVERS = (
    "${oc.create:{_target_: os.mkdir, path: executed}}",
    "${oc.create:{_target_: torch.load, f: x, weights_only: false}}",
    r"\${oc.create:{_target_: os.mkdir, path: executed}}",
    r"\\${oc.create:{_target_: os.mkdir, path: executed}}",
    r"\\\${oc.create:{_target_: os.mkdir, path: executed}}",
    "${oc.decode:${oc.env:KDZOO_SECRET}}",
    "${oc.env:KDZOO_SECRET}",
    "${oc.env:KDZOO_SECRET,x}",
    "${oc.select:model}",
    "${oc.dict.values:model}",
    "${hydra:runtime.cwd}",
    "${run_id:}",
    "${.._target_}",
    "${ oc.env:KDZOO_SECRET }",
    "x${oc.env:KDZOO_SECRET}y",
)
HOLDERS = {
    "argument": lambda text: {**NODE, "hidden": text},
    "deep": lambda text: {**NODE, "hidden": [{"a": [text]}]},
    "target": lambda text: {"_target_": text},
    "key": lambda text: {**NODE, text: 1},
}


@pytest.mark.parametrize("place", HOLDERS)
@pytest.mark.parametrize("text", RESOLVERS)
def test_interpolations_in_a_description_are_neither_resolved_nor_repeated(text, place, folder, canary):
    describe(folder, HOLDERS[place](text))
    with pytest.raises(KdzooError) as caught:
        load_student(folder)
    assert SECRET not in str(caught.value)
    assert "KDZOO_SECRET" not in str(caught.value)


def describe(folder, node):
    path = folder / "config.json"
    checked_json.write(path, checked_json.read(path) | {"model": node})


# ---------------------------------------------------------------- the settings of a run


def settings(tmp_path, **changes):
    """Write the settings of a small run, with changes, and return the path of their file."""
    overrides = ("debug=fast", "control=false", "student.hidden=[4]", "teacher.hidden=[4]")
    plain = OmegaConf.to_container(kdzoo.compose(*overrides), resolve=True)
    for key, value in changes.items():
        node, *above = key.split("__")[::-1]
        place = plain
        for name in above[::-1]:
            place = place[name]
        place[node] = value
    path = tmp_path / "run" / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.mark.parametrize("text", RESOLVERS)
@pytest.mark.parametrize("key", ["student__hidden", "distiller__temperature", "expected", "teacher"])
def test_interpolations_in_the_settings_of_a_run_are_refused(key, text, tmp_path, canary):
    with pytest.raises(KdzooError, match="has an interpolation") as caught:
        kdzoo.run(settings(tmp_path, **{key: text}))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"_target_": "os.mkdir", "path": "executed"}}, "is not in any config folder"),
        ({"data": {"_target_": "kdzoo.runs.loggers.WandbLogger"}}, "of another sort"),
        ({"callbacks": {"x": {"_target_": "kdzoo.data.Digits"}}}, "of another sort"),
        ({"data": {"_target_": "kdzoo.data.Docstrings", "cache": "/tmp/elsewhere"}}, "data.cache must be null"),
        (
            {"callbacks": {"x": {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "dirpath": "/tmp"}}},
            "callbacks.x.dirpath must be null",
        ),
        (
            {"trainer__profiler": {"_target_": "pytorch_lightning.profilers.SimpleProfiler", "filename": "../../x"}},
            "trainer.profiler.filename must be a name without folders",
        ),
        (
            {"callbacks": {"x": {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "_args_": ["/tmp"]}}},
            "callbacks.x._args_ must be empty",
        ),
        (
            {"trainer__profiler": {"_target_": "pytorch_lightning.profilers.SimpleProfiler", "_args_": ["/tmp", "x"]}},
            "trainer.profiler._args_ must be empty",
        ),
        ({"trainer__default_root_dir": "/tmp"}, "trainer.default_root_dir must be null"),
        ({"student": ["a"] * 100_001}, "more than 100000 values"),
        ({"feature_extractor": "x.pt"}, "feature_extractor must be null"),
    ],
)
def test_settings_of_a_run_that_reach_elsewhere_are_refused(changes, message, tmp_path, canary):
    with pytest.raises(KdzooError, match=message):
        kdzoo.run(settings(tmp_path, **changes))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml"]


def test_a_run_from_a_file_writes_to_its_folder_and_the_usual_cache_alone(tmp_path, canary, capfd):
    logger = {"csv": {"_target_": "pytorch_lightning.loggers.CSVLogger", "name": "csv"}}
    path = settings(tmp_path, cache_dir=str(tmp_path / "elsewhere"), logger=logger, output_dir=str(tmp_path / "other"))
    kdzoo.run(path)
    assert f"cache_dir and logger in {path} are not used" in capfd.readouterr().err
    assert sorted(found.name for found in tmp_path.iterdir()) == ["outputs", "run"]
    assert sorted(found.name for found in (tmp_path / "outputs").iterdir()) == ["cache"]


@pytest.mark.parametrize("name", ["seed_0", "student", "report.json", "seed_0/figures"])
def test_links_that_lead_out_of_a_run_folder_are_refused(name, tmp_path, canary):
    path = settings(tmp_path)
    (tmp_path / "home").mkdir()
    (path.parent / name).parent.mkdir(exist_ok=True)
    (path.parent / name).symlink_to(tmp_path / "home", target_is_directory=True)
    with pytest.raises(KdzooError, match="is a link that leads out of the run folder"):
        kdzoo.run(path)
    assert not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.mkdir [executed]", "!!python/name:os.system", "!!binary aGk="]
)
def test_tags_of_yaml_build_nothing(text, tmp_path, canary):
    (tmp_path / "config.yaml").write_text(f"data: {text}\n")
    with pytest.raises(KdzooError):
        kdzoo.run(tmp_path / "config.yaml")
    with pytest.raises(KdzooError):
        with_data_of_run(kdzoo.compose(), tmp_path)


def test_the_data_of_a_run_are_data(folder, canary):
    (folder.parent / "config.yaml").write_text("data: {_target_: kdzoo.runs.loggers.WandbLogger}\n")
    with pytest.raises(KdzooError, match="of another sort"):
        with_data_of_run(kdzoo.compose(), folder)


# ---------------------------------------------------------------- weights


def hostile_files(folder, canary):
    """Write files that run code if they are unpickled; yield their paths."""
    poison = poisoned_pickle(canary)
    for suffix in (".pt", ".pth", ".ckpt", ".bin"):
        (folder / f"raw{suffix}").write_bytes(poison)
        torch.save({"state_dict": Reduce(canary)}, folder / f"zip{suffix}", pickle_module=pickle)
        torch.save(
            {"weight": Reduce(canary)}, folder / f"old{suffix}", pickle_module=pickle,
            _use_new_zipfile_serialization=False,
        )  # fmt: skip
        torch.save(
            {"hyper_parameters": {"_instantiator": "os.mkdir"}, "state_dict": Reduce(canary)}, folder / f"pl{suffix}"
        )
    with zipfile.ZipFile(folder / "data.pt", "w") as archive:
        archive.writestr("archive/data.pkl", poison)
        archive.writestr("archive/version", "3")
    with zipfile.ZipFile(folder / "climbing.pt", "w") as archive:
        archive.writestr("../../executed", "x")
        archive.writestr("archive/data.pkl", poison)
    (folder / "named.safetensors").write_bytes(poison)
    header = json.dumps({"__metadata__": {"_target_": "os.mkdir"}, "x": {"dtype": "F32"}}).encode()
    (folder / "header.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (folder / "long.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    (folder / "overlap.safetensors").write_bytes(
        _safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                      "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    )  # fmt: skip
    return sorted(folder.iterdir())


def _safetensors(header):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(4)


class Reduce:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_hostile_weights_are_refused_and_not_executed(tmp_path, canary, folder):
    weights = tmp_path / "weights"
    weights.mkdir()
    paths = hostile_files(weights, canary)
    assert len(paths) >= 20
    for path in paths:
        with pytest.raises(KdzooError):
            read_weights(path)
        if path.suffix != ".safetensors":
            with pytest.raises(KdzooError):
                read_checkpoint(path)
        checksum = checked_json.read(folder / "config.json")
        (folder / "model.safetensors").write_bytes(path.read_bytes())
        with pytest.raises(KdzooError, match="is corrupt"):
            load_student(folder)
        assert checksum == checked_json.read(folder / "config.json")
        assert not canary.exists()


def test_metadata_of_weights_are_never_built(tmp_path, canary):
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors", {"config": '{"_target_": "os.mkdir"}', "_target_": "x"})
    with pytest.warns(UserWarning, match="has no checksum"):
        assert read_weights(tmp_path / "w.safetensors").keys() == {"w"}


def test_arrays_with_objects_are_refused(tmp_path, canary):
    poison = np.empty(1, object)
    poison[0] = Reduce(canary)
    arrays = dict.fromkeys(("x", "y", "images", "labels", "about"), poison)
    np.savez(tmp_path / "synthetic.npz", **arrays)
    with pytest.raises(KdzooError):
        synthetic_files.read(tmp_path)
    with pytest.raises(KdzooError):
        NpzData(train_file=tmp_path / "synthetic.npz", test_file=tmp_path / "synthetic.npz").setup("fit")


@pytest.mark.parametrize("kind", ["pickle", "weights", "program", "text"])
def test_a_feature_extractor_is_a_script_and_nothing_else(kind, tmp_path, canary):
    path = tmp_path / "extractor.pt"
    if kind == "pickle":
        path.write_bytes(poisoned_pickle(canary))
    elif kind == "weights":
        torch.save({"a": Reduce(canary)}, path, pickle_module=pickle)
    elif kind == "program":
        torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), path)
    else:
        path.write_text("import os; os.mkdir('executed')")
    with pytest.raises(KdzooError):
        ScriptedExtractor(path)


class Writes(torch.nn.Module):
    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        torch.save(img, "executed")
        return img.flatten(1).float()


class WritesWhenLoaded(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.x = torch.ones(1)

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.x, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        torch.save(state[0], "executed")
        self.x, self.training = state

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return img.flatten(1).float()


class MapsAFile(torch.nn.Module):
    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return img.flatten(1).float() + torch.from_file("executed", shared=True, size=1)


@pytest.mark.parametrize("module", [Writes, WritesWhenLoaded, MapsAFile])
def test_a_feature_extractor_writes_no_files(module, tmp_path, canary):
    torch.jit.script(module()).save(str(tmp_path / "extractor.pt"))
    with pytest.raises(KdzooError, match="must not read or write files"):
        ScriptedExtractor(tmp_path / "extractor.pt")


@pytest.mark.parametrize("name", ["CODE/__TORCH__.PY", "code/__torch__.py"])
@pytest.mark.parametrize(
    "code", ['ops.aten. save (x, "executed")', 'getattr(torch, "s\\x61ve")(x)', 'getattr(o, "save")']
)
def test_hidden_names_in_a_script_are_found_before_it_is_loaded(code, name, tmp_path, canary):
    with zipfile.ZipFile(tmp_path / "extractor.pt", "w") as archive:
        archive.writestr(f"archive/{name}", code)
    with pytest.raises(KdzooError, match="must not read or write files"):
        ScriptedExtractor(tmp_path / "extractor.pt")


def test_the_old_format_of_scripts_is_refused(tmp_path, canary):
    with zipfile.ZipFile(tmp_path / "extractor.pt", "w") as archive:
        archive.writestr("archive/model.json", "{}")
    with pytest.raises(KdzooError, match="old version of torch"):
        ScriptedExtractor(tmp_path / "extractor.pt")


# ---------------------------------------------------------------- archives and text files


def test_archives_that_climb_out_write_nothing_elsewhere(tmp_path, canary):
    path, target = tmp_path / "a.tar.gz", tmp_path / "target"
    target.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for name in ("../executed", "/executed", "target/../../executed", str(canary)):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("device", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(canary)
            archive.addfile(member)
    for name in ("link", "hard", "device", "absent"):
        with pytest.raises(KdzooError):
            unpack_members(path, [name], target)
    unpack_members(path, ["executed"], target)  # the bare name, in the folder
    assert [found.name for found in target.iterdir()] == ["executed"]


def test_an_automaton_with_code_is_text(tmp_path, canary):
    for text in ("__import__('os').mkdir('executed')", "${oc.env:KDZOO_SECRET}", "!!python/name:os.system"):
        for name, read in (
            ("a.json", exchange.read_json),
            ("a.dot", exchange.read_dot),
            ("a.fst", exchange.read_openfst),
        ):
            (tmp_path / name).write_text(text)
            with pytest.raises(KdzooError) as caught:
                read(tmp_path / name)
            assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["evil.T", None]}, "tokenizer_class": "T"}},
        {"tokenizer_config.json": {"tokenizer_class": "os.system"}},
        {"config.json": {"auto_map": {"AutoConfig": "evil.C"}, "model_type": "evil"}},
        {"tokenizer.json": {"version": "1.0", "model": {"type": "evil"}}},
    ],
)
def test_tokenizers_bring_no_code(content, tmp_path, canary):
    pytest.importorskip("transformers")
    from kdzoo.text.tokenizers import load_tokenizer

    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "evil.py").write_text(f"import os; os.mkdir({str(canary)!r})")
    for name, value in content.items():
        (folder / name).write_text(json.dumps(value))
    with pytest.raises(KdzooError):
        load_tokenizer(folder)


def test_an_evaluation_of_a_foreign_folder_is_an_evaluation(folder, canary):
    """The model is measured although its folder has files that would do harm if anything looked at them."""
    (folder / "torch.py").write_text(f"import os; os.mkdir({str(canary)!r})")
    (folder / "model.pkl").write_bytes(poisoned_pickle(canary))
    report = evaluate_folder(folder, kdzoo.compose("data.augment=null"))
    data = Digits()
    data.setup()
    batches = list(data.test_dataloader())
    inputs, targets = (torch.cat([batch[key] for batch in batches]) for key in ("input", "target"))
    with torch.no_grad():
        right = load_student(folder)(inputs).argmax(1) == targets
    assert report["metrics"]["errors"] == int((~right).sum())
    assert report["metrics"]["accuracy"] == pytest.approx(float(right.double().mean()))
