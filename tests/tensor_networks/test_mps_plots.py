"""Figures of chains: what is drawn is compared with numbers that are computed separately."""

import numpy as np
import pytest
import torch

from kdzoo.errors import ConfigError
from kdzoo.models import MPS
from kdzoo.tensor_networks import mps_plots
from kdzoo.tensor_networks.entanglement import entropies
from kdzoo.tensor_networks.mps_plots import ChainView, Row


def test_channels_are_summed_and_sites_put_back():
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    nothing = torch.empty(0)
    view = ChainView([], nothing, 0, order, (2, 2, 3), nothing, nothing)
    values = torch.arange(12.0, dtype=torch.float64)[None]  # of the flat input
    image = mps_plots.to_image(values[:, order], view)
    assert image.tolist() == values.view(1, 2, 2, 3).sum(1).tolist()


def test_entropies_are_drawn_below_their_limits(drawn, tmp_path):
    spectra = {"student": [torch.tensor([2.0, 1.0]), torch.tensor([1.0, 1.0, 0.5])]}
    mps_plots.bond_entropies(spectra, {"student": 1}, tmp_path / "e.png")
    lines = drawn["e.png"].axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), entropies(spectra["student"]))
    np.testing.assert_allclose(lines[1].get_ydata(), np.log([2, 3]))


def test_spectra_are_logarithms_of_shares_with_gaps_above_small_bonds(drawn, tmp_path):
    spectra = {"student": [torch.tensor([3.0]), torch.tensor([1.0, 3.0])]}
    mps_plots.bond_spectra(spectra, {"student": 1}, tmp_path / "s.png")
    (image,) = drawn["s.png"].axes[0].get_images()
    table = image.get_array().filled(np.nan)  # [singular value, bond]
    np.testing.assert_allclose(table, [[0.0, np.log10(0.9)], [np.nan, np.log10(0.1)]], atol=1e-12)


def test_signed_maps_have_zero_in_the_middle_and_others_begin_at_zero(drawn, tmp_path):
    values = torch.tensor([[[1.0, 3.0]], [[-2.0, 0.0]]])
    rows = {"signed": Row(values, signed=True), "positive": Row(values.abs() + 1), "zero": Row(values * 0)}
    mps_plots.maps(rows, ["a", "b"], tmp_path / "m.png", title="t", caption="c")
    limits = [axes.get_images()[0].get_clim() for axes in drawn["m.png"].axes]
    assert limits == [(-3.0, 3.0)] * 2 + [(0.0, 4.0)] * 2 + [(0.0, 1.0)] * 2


def test_a_graph_names_every_dimension(drawn, tmp_path):
    torch.manual_seed(0)
    model = MPS(4, 7, 3, degree=4)
    mps_plots.graph(model.sites(), model.centre.detach(), model.out_site, tmp_path / "g.png", title="t")
    texts = [text.get_text() for text in drawn["g.png"].axes[0].texts]
    assert sorted(texts) == sorted(["0", "1", "2", "3", *["3"] * 4, *["5"] * 4, "7", "outputs", texts[-1]])


def test_a_long_chain_has_no_graph(tmp_path):
    model = MPS(25, 2, 1)
    with pytest.raises(ConfigError, match=r"^a graph is drawn of at most 24 sites, got 25$"):
        mps_plots.graph(model.sites(), model.centre.detach(), model.out_site, tmp_path / "g.png", title="t")
