"""What the tests of figures share."""

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were written, by file name."""
    figures = {}
    save = Figure.savefig

    def watched(self, path, **kwargs):
        figures[path.name] = self
        save(self, path, **kwargs)

    monkeypatch.setattr(Figure, "savefig", watched)
    return figures
