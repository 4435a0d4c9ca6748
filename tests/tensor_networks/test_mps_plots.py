"""Figures of chains: what is drawn is compared; files are where they are said to be, for every model that fits."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from kdzoo.errors import ConfigError
from kdzoo.kinds import Classifier, classifier
from kdzoo.kinds.classifier import as_chain, inputs_of, one_of_each_class
from kdzoo.models import MLP, MPS, MPSClassifier, PatchMPS
from kdzoo.tensor_networks import mps_plots
from kdzoo.tensor_networks.entanglement import entropies
from kdzoo.tensor_networks.relevance import saliency
from kdzoo.tensor_networks.sobol import feature_moments, pairwise_indices, sobol_indices

MAPS, PAIRS = {"sobol_maps.png", "relevance_maps.png"}, {"sobol_pairs.png"}
BONDS = {"bond_spectra.png", "bond_entropies.png"}


class Data:
    """Batches of labelled inputs."""

    def __init__(self, *in_shape, classes=3, n=40):
        generator = torch.Generator().manual_seed(0)
        self.batch = {"input": torch.rand(n, *in_shape, generator=generator), "target": torch.arange(n) % classes}

    def test_dataloader(self):
        return [self.batch]

    def train_eval_dataloader(self):
        return [self.batch, self.batch]


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were written, by file name."""
    seen = {}
    save = Figure.savefig

    def watched(self, path, **kwargs):
        seen[path.name] = self
        save(self, path, **kwargs)

    monkeypatch.setattr(Figure, "savefig", watched)
    return seen


def image_model(in_shape=(1, 4, 5), seed=0, **options):
    torch.manual_seed(seed)
    return MPSClassifier(**({"in_shape": in_shape, "num_classes": 3, "bond_dim": 3, "noise": 3.0} | options))


def images_of(figure):
    return [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]


def test_portraits_of_images(drawn, tmp_path):
    torch.manual_seed(0)
    models = {
        "student": image_model(),
        "control": image_model(seed=1),
        "teacher": MLP(in_shape=(1, 4, 5), num_classes=3),
        "periodic": image_model(boundary="periodic"),
    }
    data = Data(1, 4, 5)
    found = Classifier().plot_model(models, tmp_path / "figures", data)
    chains = {"chain_student.png", "chain_control.png"}
    assert {path.name for path in found} == MAPS | BONDS | PAIRS | chains
    assert all(imread(path).std() > 0 for path in found)
    assert {axes.get_title() for axes in drawn["bond_spectra.png"].axes} == {"student", "control", ""}
    inputs = data.batch["input"]
    measure = feature_moments(as_chain(models["student"], inputs, inputs[:3]).phi)
    model = models["student"]
    indices = sobol_indices(model.sites(), model.centre.detach(), model.out_site, measure)
    pixels = torch.empty(3, 20, dtype=torch.float64)
    pixels[:, model.order] = indices.first
    maps = images_of(drawn["sobol_maps.png"])
    assert len(maps) == 4 * 3
    np.testing.assert_allclose(maps[0], pixels[0].view(4, 5))
    shown = images_of(drawn["relevance_maps.png"])
    assert len(shown) == 4 * 3
    np.testing.assert_allclose(shown[0], inputs[0, 0])
    np.testing.assert_allclose(shown[-1], saliency(models["teacher"], inputs[2:3])[0, 2, 0], rtol=1e-5)


def test_portraits_of_patches(drawn, tmp_path):
    torch.manual_seed(0)
    model = PatchMPS(in_shape=(2, 4, 6), num_classes=3, patch=2, bond_dim=3)
    Classifier().plot_model({"student": model}, tmp_path, Data(2, 4, 6))
    assert {one.shape for one in images_of(drawn["sobol_maps.png"])} == {(2, 3)}
    assert {one.shape for one in images_of(drawn["relevance_maps.png"])} == {(2, 3), (4, 6)}


def test_portraits_of_vectors_have_no_maps(tmp_path):
    found = Classifier().plot_model({"student": image_model((30,))}, tmp_path, Data(30))
    assert {path.name for path in found} == BONDS | PAIRS


def pairs_of_model(model, inputs):
    """Second-order indices of the flat inputs."""
    measure = feature_moments(as_chain(model, inputs, inputs[:1]).phi)
    indices = pairwise_indices(model.sites(), model.centre.detach(), model.out_site, measure)
    back = model.order.argsort()
    return indices[:, back][:, :, back]


@pytest.mark.parametrize("in_shape", [(1, 4, 5), (2, 4, 5)], ids=["grey", "colour"])
def test_lines_join_the_strongest_pairs(drawn, tmp_path, in_shape):
    model, data = image_model(in_shape), Data(*in_shape)
    Classifier().plot_model({"student": model}, tmp_path, data)
    found = pairs_of_model(model, data.batch["input"])
    panels = drawn["sobol_pairs.png"].axes
    assert len(panels) == 3
    for axes, indices in zip(panels, found, strict=True):
        first, second = np.unravel_index(int(indices.triu(1).argmax()), indices.shape)
        lines = axes.get_lines()
        assert len(lines) == 12
        ends = np.array([[at % 20 // 5, at % 5] for at in (first, second)])  # row, column, whatever the channel
        np.testing.assert_allclose(np.array(lines[0].get_data())[::-1].T, ends)
        assert lines[0].get_linewidth() == max(line.get_linewidth() for line in lines)
        assert axes.get_xlabel() == f"{float(indices.max()):.2g}"


def test_lines_between_patches_join_their_middles(drawn, tmp_path):
    torch.manual_seed(0)
    model, data = PatchMPS(in_shape=(1, 4, 8), num_classes=3, patch=4, bond_dim=3, noise=3.0), Data(1, 4, 8)
    Classifier().plot_model({"student": model}, tmp_path, data)
    (line,) = drawn["sobol_pairs.png"].axes[0].get_lines()
    np.testing.assert_allclose(line.get_data(), [[1.5, 5.5], [1.5, 1.5]])


def test_overlapping_patches_have_maps_of_their_places(drawn, tmp_path):
    torch.manual_seed(0)
    model = PatchMPS(in_shape=(1, 4, 6), num_classes=3, patch=2, stride=1, bond_dim=3)
    Classifier().plot_model({"student": model}, tmp_path, Data(1, 4, 6))
    assert {one.shape for one in images_of(drawn["sobol_maps.png"])} == {(3, 5)}


def test_pairs_of_vectors_are_a_table(drawn, tmp_path):
    model, data = image_model((30,)), Data(30)
    Classifier().plot_model({"student": model}, tmp_path, data)
    (shown,) = images_of(drawn["sobol_pairs.png"])[:1]
    np.testing.assert_allclose(shown, pairs_of_model(model, data.batch["input"]).amax(0))


def test_only_inputs_that_matter_most_are_paired(monkeypatch):
    monkeypatch.setattr(classifier, "PAIRED_INPUTS", 6)
    model, inputs = image_model(order="hilbert"), Data(1, 4, 5).batch["input"]
    where, found = classifier.pairs_of(as_chain(model, inputs, inputs[:1]))
    assert where.tolist() == sorted(set(where.tolist()))
    torch.testing.assert_close(found, pairs_of_model(model, inputs)[:, where][:, :, where])
    measure = feature_moments(as_chain(model, inputs, inputs[:1]).phi)
    total = sobol_indices(model.sites(), model.centre.detach(), model.out_site, measure).total.amax(0)
    assert set(where.tolist()) == set(model.order[total.topk(6).indices].tolist())


def test_other_models_have_no_portraits(tmp_path):
    assert Classifier().plot_model({"student": MLP(in_shape=(4,), num_classes=2)}, tmp_path, Data(4)) == []
    assert Classifier().plot_model({"student": image_model()}, tmp_path) == []


def test_channels_are_summed_and_sites_put_back():
    model = image_model((2, 2, 3), bond_dim=2)
    images = torch.rand(4, 2, 2, 3)
    chain = as_chain(model, images, images[:1])
    values = torch.arange(12.0, dtype=torch.float64)[None]  # of the flat input
    found = mps_plots.to_image(values[:, model.order], chain)
    assert found.tolist() == values.view(1, 2, 2, 3).sum(1).tolist()


@pytest.mark.parametrize("feature_map", ["polynomial", "whitened", "cos_sin", "trainable"])
def test_a_chain_that_is_drawn_is_the_model(feature_map):
    model = image_model(feature_map=feature_map, order="hilbert", degree=2)
    model.eval()
    images = torch.rand(5, 1, 4, 5)
    chain = as_chain(model, images, images)
    state = torch.ones(5, 1, dtype=torch.float64)
    for core, phi in zip(chain.sites[: chain.out_site], chain.phi[: chain.out_site], strict=True):
        state = torch.einsum("sl,ldr,ds->sr", state, core, phi)
    state = torch.einsum("sl,lor->sor", state, chain.centre)
    for core, phi in zip(chain.sites[chain.out_site :], chain.phi[chain.out_site :], strict=True):
        state = torch.einsum("sol,ldr,ds->sor", state, core, phi)
    with torch.no_grad():
        torch.testing.assert_close(state[..., 0].float(), model(images), rtol=1e-4, atol=1e-4)


def test_entropies_are_drawn_below_their_limits(drawn, tmp_path):
    spectra = {"student": [torch.tensor([2.0, 1.0]), torch.tensor([1.0, 1.0, 0.5])]}
    mps_plots.bond_entropies(spectra, {"student": 1}, tmp_path / "e.png")
    lines = drawn["e.png"].axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), entropies(spectra["student"]))
    np.testing.assert_allclose(lines[1].get_ydata(), np.log([2, 3]))


def test_a_graph_names_every_dimension(drawn, tmp_path):
    torch.manual_seed(0)
    model = MPS(4, 7, 3, degree=4)
    mps_plots.graph(model.sites(), model.centre.detach(), model.out_site, tmp_path / "g.png")
    texts = [text.get_text() for text in drawn["g.png"].axes[0].texts]
    assert sorted(texts) == sorted(["0", "1", "2", "3", *["3"] * 4, *["5"] * 4, "7", "outputs", texts[-1]])


def test_a_long_chain_has_no_graph(tmp_path):
    model = MPS(25, 2, 1)
    with pytest.raises(ConfigError, match=r"^a graph is drawn of at most 24 sites, got 25$"):
        mps_plots.graph(model.sites(), model.centre.detach(), model.out_site, tmp_path / "g.png")


def test_examples_are_the_first_of_each_labelled_class():
    batch = {"input": torch.arange(6.0)[:, None], "target": torch.tensor([2, -100, 0, 2, 0, -100])}
    images, classes = one_of_each_class([batch])
    assert classes == [0, 2]
    assert images.flatten().tolist() == [2.0, 0.0]


def test_no_more_inputs_are_read_than_needed():
    def batches():
        yield {"input": torch.zeros(4, 2)}
        yield {"input": torch.ones(4, 2)}
        raise AssertionError

    assert inputs_of(batches(), 6).sum().item() == 4
