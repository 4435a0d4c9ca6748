"""Where real data may lie, and a home folder and network that tests cannot leave."""

import os
import urllib.request
from pathlib import Path

import pytest


@pytest.fixture
def real_root():
    """The folder of the real data sets; the test is skipped where there is none."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    root = Path(os.environ.get("KDZOO_DATA", beside))
    if not root.is_dir():
        pytest.skip("no real data: set KDZOO_DATA")
    return root


@pytest.fixture
def offline_home(monkeypatch, tmp_path):
    """An empty home folder, no KDZOO_DATA, and a network that fails unless a test replaces it."""

    def refuse(url, timeout):
        raise OSError(f"no network for {url}")

    monkeypatch.delenv("KDZOO_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path / "home"
