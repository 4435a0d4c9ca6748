"""Figures of a report: which models are drawn, and what the figures show of them."""

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import nn

from kdzoo.models import MLP, MPSClassifier, PatchMPS
from kdzoo.tensor_networks import mps_report_figures
from kdzoo.tensor_networks.mps_report_figures import chain_view, open_chains, plot_chains, strongest_pairs
from kdzoo.tensor_networks.relevance import saliency
from kdzoo.tensor_networks.sobol import feature_moments, pairwise_indices, sobol_indices

BONDS = {"bond_spectra.png", "bond_entropies.png"}
MAPS = {"sobol_maps.png", "relevance_maps.png"}
PAIRS = {"sobol_pairs.png"}


def inputs_of(*in_shape, n=40):
    return torch.rand(n, *in_shape, generator=torch.Generator().manual_seed(0))


def image_model(in_shape=(1, 4, 5), seed=0, **options):
    torch.manual_seed(seed)
    return MPSClassifier(**({"in_shape": in_shape, "num_classes": 3, "bond_dim": 3, "noise": 3.0} | options))


def plot(models, inputs, folder, classes=(0, 1, 2), **options):
    return plot_chains(models, inputs, inputs[: len(classes)], classes, folder, **options)


def images_of(figure):
    return [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]


def measure_of(model, inputs):
    return feature_moments(chain_view(model, inputs, inputs[:1]).phi)


def pairs_of_model(model, inputs):
    """Second-order indices of the flat inputs."""
    indices = pairwise_indices(model.sites(), model.centre.detach(), model.out_site, measure_of(model, inputs))
    back = model.order.argsort()
    return indices[:, back][:, :, back]


def test_images_have_maps_of_every_open_chain(drawn, tmp_path):
    torch.manual_seed(0)
    models = {
        "student": image_model(),
        "control": image_model(seed=1),
        "teacher": MLP(in_shape=(1, 4, 5), num_classes=3),
        "periodic": image_model(boundary="periodic"),
    }
    inputs = inputs_of(1, 4, 5)
    files = plot(models, inputs, tmp_path / "figures", saliency=("teacher",))
    chains = {"chain_student.png", "chain_control.png"}
    assert {path.name for path in files} == MAPS | BONDS | PAIRS | chains
    assert all(imread(path).std() > 0 for path in files)
    assert {axes.get_title() for axes in drawn["bond_spectra.png"].axes} == {"student", "control", ""}
    model = models["student"]
    indices = sobol_indices(model.sites(), model.centre.detach(), model.out_site, measure_of(model, inputs))
    pixels = torch.empty(3, 20, dtype=torch.float64)
    pixels[:, model.order] = indices.first
    maps = images_of(drawn["sobol_maps.png"])
    assert len(maps) == 4 * 3
    np.testing.assert_allclose(maps[0], pixels[0].view(4, 5))
    relevance = images_of(drawn["relevance_maps.png"])
    assert len(relevance) == 4 * 3
    np.testing.assert_allclose(relevance[0], inputs[0, 0])
    np.testing.assert_allclose(relevance[-1], saliency(models["teacher"], inputs[2:3])[0, 2, 0], rtol=1e-5)


def test_a_model_without_gradients_has_no_saliency_map(drawn, tmp_path):
    class BlackBox(nn.Module):
        def forward(self, x):
            return x.detach().flatten(1)[:, :3]

    plot({"student": image_model(), "teacher": BlackBox()}, inputs_of(1, 4, 5), tmp_path, saliency=("teacher",))
    assert len(images_of(drawn["relevance_maps.png"])) == 2 * 3  # the inputs and the relevance of the student


def test_maps_of_patches_have_one_value_for_each_patch(drawn, tmp_path):
    torch.manual_seed(0)
    model = PatchMPS(in_shape=(2, 4, 6), num_classes=3, patch=2, bond_dim=3)
    plot({"student": model}, inputs_of(2, 4, 6), tmp_path)
    assert {image.shape for image in images_of(drawn["sobol_maps.png"])} == {(2, 3)}
    assert {image.shape for image in images_of(drawn["relevance_maps.png"])} == {(2, 3), (4, 6)}


def test_overlapping_patches_have_one_value_for_each_position(drawn, tmp_path):
    torch.manual_seed(0)
    model = PatchMPS(in_shape=(1, 4, 6), num_classes=3, patch=2, stride=1, bond_dim=3)
    plot({"student": model}, inputs_of(1, 4, 6), tmp_path)
    assert {image.shape for image in images_of(drawn["sobol_maps.png"])} == {(3, 5)}


def test_vectors_have_no_maps(tmp_path):
    files = plot({"student": image_model((30,))}, inputs_of(30), tmp_path)
    assert {path.name for path in files} == BONDS | PAIRS


def test_images_without_labelled_examples_have_no_maps(tmp_path):
    inputs = inputs_of(1, 4, 5)
    files = plot_chains({"student": image_model()}, inputs, inputs[:1], [], tmp_path)
    assert {path.name for path in files} == BONDS | PAIRS | {"chain_student.png"}


@pytest.mark.parametrize("in_shape", [(1, 4, 5), (2, 4, 5)], ids=["grey", "colour"])
def test_lines_join_the_strongest_pairs(drawn, tmp_path, in_shape):
    model, inputs = image_model(in_shape), inputs_of(*in_shape)
    plot({"student": model}, inputs, tmp_path)
    expected = pairs_of_model(model, inputs)
    panels = drawn["sobol_pairs.png"].axes
    assert len(panels) == 3
    for axes, indices in zip(panels, expected, strict=True):
        first, second = np.unravel_index(int(indices.triu(1).argmax()), indices.shape)
        lines = axes.get_lines()
        assert len(lines) == 12
        ends = np.array([[at % 20 // 5, at % 5] for at in (first, second)])  # row and column, for every channel
        np.testing.assert_allclose(np.array(lines[0].get_data())[::-1].T, ends)
        assert lines[0].get_linewidth() == max(line.get_linewidth() for line in lines)
        assert axes.get_xlabel() == f"{float(indices.max()):.2g}"


def test_lines_between_patches_join_their_middles(drawn, tmp_path):
    torch.manual_seed(0)
    model = PatchMPS(in_shape=(1, 4, 8), num_classes=3, patch=4, bond_dim=3, noise=3.0)
    plot({"student": model}, inputs_of(1, 4, 8), tmp_path)
    (line,) = drawn["sobol_pairs.png"].axes[0].get_lines()
    np.testing.assert_allclose(line.get_data(), [[1.5, 5.5], [1.5, 1.5]])


def test_pairs_of_vectors_are_a_table(drawn, tmp_path):
    model, inputs = image_model((30,)), inputs_of(30)
    plot({"student": model}, inputs, tmp_path)
    (table,) = images_of(drawn["sobol_pairs.png"])[:1]
    np.testing.assert_allclose(table, pairs_of_model(model, inputs).amax(0))


def test_only_inputs_that_matter_most_are_paired(monkeypatch):
    monkeypatch.setattr(mps_report_figures, "PAIRED_INPUTS", 6)
    model, inputs = image_model(order="hilbert"), inputs_of(1, 4, 5)
    positions, indices = strongest_pairs(chain_view(model, inputs, inputs[:1]))
    assert positions.tolist() == sorted(set(positions.tolist()))
    torch.testing.assert_close(indices, pairs_of_model(model, inputs)[:, positions][:, :, positions])
    sobol = sobol_indices(model.sites(), model.centre.detach(), model.out_site, measure_of(model, inputs))
    assert set(positions.tolist()) == set(model.order[sobol.total.amax(0).topk(6).indices].tolist())


def test_models_that_are_not_open_chains_are_not_drawn(tmp_path):
    models = {"teacher": MLP(in_shape=(4,), num_classes=2), "periodic": image_model((4,), boundary="periodic")}
    assert open_chains(models) == {}
    assert plot(models, inputs_of(4), tmp_path) == []


@pytest.mark.parametrize("feature_map", ["polynomial", "whitened", "cos_sin", "trainable"])
def test_a_view_is_the_function_of_the_model(feature_map):
    model = image_model(feature_map=feature_map, order="hilbert", degree=2)
    model.eval()
    images = torch.rand(5, 1, 4, 5)
    view = chain_view(model, images, images)
    state = torch.ones(5, 1, dtype=torch.float64)
    for core, phi in zip(view.sites[: view.out_site], view.phi[: view.out_site], strict=True):
        state = torch.einsum("sl,ldr,ds->sr", state, core, phi)
    state = torch.einsum("sl,lor->sor", state, view.centre)
    for core, phi in zip(view.sites[view.out_site :], view.phi[view.out_site :], strict=True):
        state = torch.einsum("sol,ldr,ds->sor", state, core, phi)
    with torch.no_grad():
        torch.testing.assert_close(state[..., 0].float(), model(images), rtol=1e-4, atol=1e-4)
