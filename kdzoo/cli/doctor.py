"""Checks of the installation: one line for each finding, with the status ``ok``, ``warn`` or ``fail``."""

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kdzoo.errors import KdzooError

Finding = tuple[str, str]
"""A status and a sentence about what was found."""
# The lowest versions that the tests have passed with, as in pyproject.toml. Lightning below 2.6.6 includes the two
# malicious releases; Hydra below 1.3.8 lets launcher plug-ins install a pre-release.
MINIMUM_VERSIONS = {
    "torch": (2, 10),
    "pytorch-lightning": (2, 6, 6),
    "hydra-core": (1, 3, 8),
    "omegaconf": (2, 3),
    "torchmetrics": (1, 6),
    "numpy": (1, 26),
    "safetensors": (0, 5),
}
# Major versions that change what is used here; Hydra 1.4, for example, builds only classes on an allow list.
FIRST_UNSUPPORTED_VERSIONS = {"pytorch-lightning": (3,), "hydra-core": (1, 4), "omegaconf": (2, 4)}
# Releases that were published by an attacker and withdrawn.
MALWARE = {"pytorch-lightning": ("2.6.2", "2.6.3"), "lightning": ("2.6.2", "2.6.3")}
# Data sets that are downloaded on first use, so that it is worth knowing where they are.
DATA_SETS = ("mnist", "fashion_mnist", "cifar10")


def diagnose() -> bool:
    """Print every finding; return whether none of them is a failure."""
    failed = False
    for check in CHECKS:
        for status, text in _findings(check):
            print(f"{status:<4}  {text}")
            failed |= status == "fail"
    return not failed


def _findings(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a check; an exception in it becomes a finding, so that the other checks still run."""
    try:
        yield from check()
    except Exception as error:
        yield "fail", f"{check.__name__}: {type(error).__name__}: {error}"


def versions(installed: Callable[[str], str] = version) -> Iterator[Finding]:
    """Compare the installed versions with the supported range, and warn of malicious releases.

    Args:
        installed: Returns the version of a package; raises PackageNotFoundError if it is not installed.
    """
    for name, minimum in MINIMUM_VERSIONS.items():
        try:
            present = installed(name)
        except PackageNotFoundError:
            yield "fail", f"{name} is not installed; it must be >= {_dotted(minimum)}"
            continue
        unsupported = FIRST_UNSUPPORTED_VERSIONS.get(name)
        if present in MALWARE.get(name, ()):
            yield "fail", f"{name} {present} is malware: uninstall it and change every password that this machine knew"
        # The local part, as in 2.13.0+cpu, may contain any letter.
        elif any(letter in present.split("+")[0] for letter in ("dev", "rc", "a", "b")):
            yield "fail", f"{name} {present} is a pre-release; install with -c constraints.txt"
        elif numbers(present) < minimum:
            yield "fail", f"{name} {present} is older than {_dotted(minimum)}"
        elif unsupported and numbers(present) >= unsupported:
            yield "fail", f"{name} {present} is not supported; it must be < {_dotted(unsupported)}"
        else:
            yield "ok", f"{name} {present}"


def second_lightning(installed: Callable[[str], str] = version) -> Iterator[Finding]:
    """Warn of the package ``lightning``, whose classes are not those of ``pytorch_lightning``."""
    try:
        present = installed("lightning")
    except PackageNotFoundError:
        yield "ok", "lightning is not installed beside pytorch-lightning"
        return
    if present in MALWARE["lightning"]:
        yield "fail", f"lightning {present} is malware: uninstall it and change every password that this machine knew"
    else:
        yield "warn", f"lightning {present} is installed too; import pytorch_lightning, the two have different classes"


def devices() -> Iterator[Finding]:
    """List the devices, and warn of more threads than cores, which slow training down."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield "ok", f"devices: CPU{''.join(f', {name}' for name in gpus)}"
    threads = torch.get_num_threads()
    try:
        # The cores that this process may use; in a container or under SLURM these are fewer than the machine has.
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no such limit
        cores = os.cpu_count() or 1
    status = "warn" if threads > cores else "ok"
    remedy = "; set OMP_NUM_THREADS" if threads > cores else ""
    yield status, f"{threads} threads on {cores} cores{remedy}"


def compiler() -> Iterator[Finding]:
    """Look for a C++ compiler, which ``compile=true`` needs."""
    names = filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++"))
    path = next(filter(None, map(shutil.which, names)), None)
    yield ("ok", f"C++ compiler {path}") if path else ("warn", "no C++ compiler; compile=true will not work")


def data_folders() -> Iterator[Finding]:
    """List which data sets are found, and where."""
    from kdzoo.data.files.folders import roots

    folders = roots(None)
    chosen = os.environ.get("KDZOO_DATA")
    if chosen and not Path(chosen).expanduser().is_dir():
        yield "warn", f"KDZOO_DATA={chosen} is not a folder"
    for name in DATA_SETS:
        places = [str(root / name) for root in folders if (root / name).is_dir()]
        yield "ok", f"{name}: {places[0] if places else 'not found; downloaded when it is first used'}"


def writable_folders() -> Iterator[Finding]:
    """Try to write where runs and downloads go."""
    from kdzoo.data.files.folders import cache_root

    for folder in (Path.cwd(), cache_root()):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                yield "ok", f"{folder} can be written"
        except OSError as error:
            yield "fail", f"{folder} cannot be written: {error.strerror}"


def smoke_training() -> Iterator[Finding]:
    """Distil a few steps on the embedded digits."""
    from kdzoo import compose
    from kdzoo.runs.pipeline import run

    with tempfile.TemporaryDirectory() as folder:
        sizes = ("student.hidden=[8]", "teacher.hidden=[8]", "data.train_size=64", "data.labels_per_class=null")
        cfg = compose("debug=fast", *sizes, f"output_dir={folder}/run", f"cache_dir={folder}/cache")
        try:
            with redirect_stderr(io.StringIO()):  # the progress of the training is not a finding
                seconds = run(cfg)["seconds"]
        except KdzooError as error:
            yield "fail", f"smoke training: {error}"
        else:
            yield "ok", f"smoke training: teacher, control and student in {sum(seconds.values()):.1f} s"


def numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``2.13.0+cpu`` is (2, 13, 0)."""
    parts = text.split("+")[0].split(".")
    return tuple(int(part) for part in parts if part.isdigit())


def _dotted(parts: Sequence[int]) -> str:
    return ".".join(map(str, parts))


CHECKS = (versions, second_lightning, devices, compiler, data_folders, writable_folders, smoke_training)
