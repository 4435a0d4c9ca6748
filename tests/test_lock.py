"""The locked packages are those of the constraints, and every one has checksums."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKED = re.compile(r"^([\w.-]+)==([\w.+]+)(?: ;[^\\]*)? \\$", re.MULTILINE)


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_has_the_version_of_the_constraints_and_checksums():
    text = (ROOT / "requirements.lock").read_text()
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    pinned = {normalised(name): version for name, version in pinned.items()}
    locked = {normalised(name): version for name, version in LOCKED.findall(text)}
    assert {name for name, version in locked.items() if pinned.get(name, version) != version} == set()
    assert {"torch", "pytorch-lightning", "hydra-core", "omegaconf", "transformers", "safetensors"} <= locked.keys()
    requirements = [line for line in text.splitlines() if line and line[0].isalnum()]
    assert len(requirements) == len(LOCKED.findall(text))
    assert all("--hash=sha256:" in part for part in re.split(r"\n(?=[\w.-]+==)", text.strip()))


def test_no_package_is_a_release_candidate():
    text = (ROOT / "requirements.lock").read_text()
    # hydra's launchers ask for "1.1.0.dev7 or later", for which pip would take a release candidate of hydra-core.
    assert not [version for _, version in LOCKED.findall(text) if re.search(r"(a|b|rc|dev)\d+$", version)]
