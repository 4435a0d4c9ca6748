"""Levels of densities bound the mass that they state."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdzoo import plotting


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.floats(0.01, 0.99))
def test_a_level_bounds_the_smallest_region_of_a_mass(density, mass):
    density = np.array(density)
    levels = plotting.mass_levels(density, [mass])
    if not density.sum():
        assert not len(levels)
        return
    (level,) = levels
    assert density[density >= level].sum() >= mass * density.sum() * (1 - 1e-9)
    assert density[density > level].sum() <= mass * density.sum() * (1 + 1e-9)


def test_shares_with_one_level_give_it_once():
    assert plotting.mass_levels(np.array([[1.0, np.nan], [1.0, 0.0]]), [0.6, 0.7, 0.9]).tolist() == [1.0]


def test_levels_of_a_normal_density(figures, tmp_path):
    x = np.linspace(-5, 5, 201)
    normal = np.exp(-(x[:, None] ** 2 + x**2) / 2)
    level = plotting.mass_levels(normal, [0.95])
    assert level == pytest.approx([0.05], rel=0.02)  # 1 - exp(-r^2 / 2) = 0.95
    nothing = np.full_like(normal, np.nan)
    points = np.array([[0.5, -1.5]])
    plotting.density_panels({"teacher": normal, "student": nothing}, x, x, points, tmp_path / "a.png")
    first, second = figures[0].axes
    assert (first.get_title(), second.get_title()) == ("teacher", "student: no density here")
    points, lines = first.collections
    assert points.get_offsets().tolist() == [[0.5, -1.5]]
    outer = lines.get_paths()[0].vertices
    assert np.hypot(*outer.T) == pytest.approx(np.sqrt(2 * np.log(20)), rel=0.02)
    assert len(second.collections) == 1
