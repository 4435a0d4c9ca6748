"""Data that the tests of methods into automata share."""

import pytest

from kdzoo.data import Tomita


@pytest.fixture(scope="session")
def tomita4() -> Tomita:
    """Strings over two letters without three zeros in a row."""
    data = Tomita(language=4, n_train=300, n_val=50, n_test=200, batch_size=100)
    data.setup("fit")
    return data
