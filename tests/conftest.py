"""Settings of every test: no property fails because a machine was slow; our errors come before a type checker's."""

import hypothesis
import jaxtyping
import pytest

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def unchecked_types(monkeypatch):
    """Switch off the run-time type checks of ``--jaxtyping-packages``, whose wrappers torch cannot compile."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(autouse=True)
def _own_errors(request):
    """Switch the run-time type checks off for tests of our errors, which the type checker's would come before."""
    if any(word in request.node.name for word in ("refuse", "raises")):
        request.getfixturevalue("unchecked_types")


@pytest.fixture
def figures(monkeypatch):
    """The matplotlib figures that were saved, in order."""
    from matplotlib.figure import Figure  # most tests draw nothing and need not wait for this import

    saved = []
    savefig = Figure.savefig

    def record(figure, *args, **kwargs):
        saved.append(figure)
        return savefig(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", record)
    return saved
