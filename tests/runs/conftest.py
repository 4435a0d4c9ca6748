"""The settings of a run that takes about a second."""

import pytest

import kdzoo

QUICK = (
    "seed=0",
    "control=false",
    "data.train_size=40",
    "data.batch_size=16",
    "data.labels_per_class=null",
    "student.hidden=[8]",
    "teacher.hidden=[8]",
    "trainer.max_epochs=2",
)


@pytest.fixture
def settings(tmp_path):
    """Return a function that composes a small run in a folder of the test, with further overrides."""

    def make(*overrides):
        return kdzoo.compose(*QUICK, *overrides, f"output_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}")

    return make
