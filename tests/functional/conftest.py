"""Shared by the tests of the pure functions."""

import jaxtyping
import pytest


@pytest.fixture
def unchecked_shapes(monkeypatch):
    """Switch jaxtyping's own checks off, so that the function's own errors are what is tested."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
