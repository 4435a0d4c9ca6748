import pytest


@pytest.fixture(scope="session")
def transformers():
    return pytest.importorskip("transformers")
