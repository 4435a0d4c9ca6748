"""A subject of any registered distiller, and of a class that a test defines."""

import pytest

import kdzoo
from kdzoo.contracts.subject import Subject


@pytest.fixture
def subject_of(tmp_path):
    """Return a function that makes a subject of a registered name, or of a distiller class on logits."""

    def make(method, **changes):
        if isinstance(method, str):
            return Subject(kdzoo.compose(f"distiller={method}"), tmp_path, changes=changes)
        cfg = kdzoo.compose("distiller=logit_kd")
        cfg.distiller._target_ = f"{method.__module__}.{method.__name__}"
        return Subject(cfg, tmp_path, allow={cfg.distiller._target_}, changes=changes)

    return make
