"""Figures of graphical models: the arrays that are drawn, and the files."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from torch import nn

from kdzoo import plotting
from kdzoo.data.sequences.strokes import stroke_images
from kdzoo.graphical_models import sample_plots
from kdzoo.models import HVAE, HelmholtzMachine, StrokeVRNN, VectorVRNN

FIGURES = ("image_rows", "image_panels", "sequence_heatmaps", "density_panels")


@pytest.fixture
def drawn(monkeypatch):
    """What was handed to the figures, in order: the arrays by name."""
    seen = []

    def watched(figure):
        def draw(arrays, *args, **kwargs):
            seen.append({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
            return figure(arrays, *args, **kwargs)

        return draw

    for name in FIGURES:
        monkeypatch.setattr(plotting, name, watched(getattr(plotting, name)))
    return seen


def image_model(seed=0, latents=(3, 2), **options):
    torch.manual_seed(seed)
    model = HVAE(in_shape=(1, 6, 5), latents=latents, width=4, **options)
    model.posteriors_trained.fill_(True)
    return model


def sequence_model(kind, seed=0):
    torch.manual_seed(seed)
    return kind(in_shape=(7, 3), latents=2, width=4, hidden=5)


def point_model(seed=0):
    torch.manual_seed(seed)
    return HelmholtzMachine(in_shape=(2,), width=3)


class Data:
    """Test batches, and what is given by name."""

    def __init__(self, *batches, **offers):
        self.batches = batches
        for name, offer in offers.items():
            setattr(self, name, offer)

    def test_dataloader(self):
        return self.batches


def images(n=5, **offers):
    generator = torch.Generator().manual_seed(0)
    return Data({"input": torch.rand(n, 1, 6, 5, generator=generator), "target": torch.arange(n) % 3}, **offers)


def sequences(lengths=(4, 2, 6), **offers):
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    bits = (torch.rand(len(lengths), 7, 3, generator=generator) < 0.5).float()
    return Data({"input": bits * mask[..., None], "mask": mask}, **offers)


def points(*sizes):
    generator = torch.Generator().manual_seed(0)
    return Data(*({"input": torch.randn(n, 2, generator=generator)} for n in sizes))


def view(samples):
    return samples


# ---------------------------------------------------------------- what is drawn of what

OF_IMAGES = ["interpolations", "latent_maps", "reconstructions"]
CASES = {
    "images": (image_model, images, OF_IMAGES),
    "conditional_images": (lambda seed=0: image_model(seed, num_classes=3, conditional=True), images, OF_IMAGES),
    "images_by_three_values": (lambda seed=0: image_model(seed, (3,)), images, ["interpolations", "reconstructions"]),
    "images_without_data": (image_model, lambda: None, ["interpolations", "latent_maps"]),
    "images_without_test_part": (image_model, Data, ["interpolations", "latent_maps"]),
    "strokes": (
        lambda seed=0: sequence_model(StrokeVRNN, seed),
        lambda: sequences(pictures=stroke_images),
        ["strokes"],
    ),
    "bits": (lambda seed=0: sequence_model(VectorVRNN, seed), sequences, ["rolls"]),
    "points": (point_model, lambda: points(9), ["densities"]),
}


@pytest.mark.parametrize("case", CASES)
def test_applicable_figures_are_drawn_and_differ_between_models(case, tmp_path):
    build, data, names = CASES[case]
    folders = [tmp_path / "first" / "new", tmp_path / "again", tmp_path / "other"]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        models = {"teacher": build(), "student": build(seed), "data": nn.Linear(2, 2)}
        result = sample_plots.plot_model(models, folder, data())
        assert sorted(path.stem for path in result) == names
        assert sorted(folder.iterdir()) == sorted(result)
    for name in names:
        first, again, other = (imread(folder / f"{name}.png") for folder in folders)
        assert (first == again).all()
        assert first.shape == other.shape
        assert (first != other).any()


@pytest.mark.parametrize(
    ("build", "data"),
    [
        (lambda: nn.Linear(2, 2), images),
        (point_model, images),
        (point_model, sequences),
        (lambda: sequence_model(StrokeVRNN), sequences),  # offsets are real numbers, not bits
        (lambda: sequence_model(VectorVRNN), lambda: points(3)),
        (lambda: sequence_model(VectorVRNN), lambda: None),
    ],
    ids=["no_graph", "points_of_images", "points_of_sequences", "offsets", "bits_of_points", "no_data"],
)
def test_nothing_is_drawn_if_no_figure_applies(build, data, tmp_path):
    assert sample_plots.plot_model({"student": build()}, tmp_path / "figures", data()) == []
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("case", ["images", "strokes", "points"])
def test_models_and_the_global_generator_do_not_change(case, tmp_path):
    build, data, names = CASES[case]
    model, twin = build().double().train(), build().double()
    state = torch.random.get_rng_state()
    result = sample_plots.plot_model({"student": model}, tmp_path, data())
    assert len(result) == len(names)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    for one, other in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, other)


# ---------------------------------------------------------------- images


def test_reconstructions_are_the_means_given_inferred_latents(drawn, tmp_path):
    model, blind = image_model(), image_model(1)
    blind.posteriors_trained.fill_(False)
    batch = images().batches[0]
    sample_plots.reconstructions({"student": model, "blind": blind}, batch, tmp_path / "a.png", view)
    (rows,) = drawn
    assert list(rows) == ["data", "student"]
    assert torch.equal(rows["data"], batch["input"])
    noise = model.noise(5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        trace = model.rollout(noise, forced={"image": batch["input"]}, infer=True)
    torch.testing.assert_close(rows["student"], trace.distributions["image"].mean)
    assert sample_plots.reconstructions({"blind": blind}, batch, tmp_path / "b.png", view) is None
    assert not (tmp_path / "b.png").exists()


def test_reconstructions_use_the_condition(drawn, tmp_path):
    model, batch = image_model(num_classes=3, conditional=True), images().batches[0]
    other = {**batch, "target": (batch["target"] + 1) % 3}
    for labelled in (batch, other):
        sample_plots.reconstructions({"student": model}, labelled, tmp_path / "a.png", view)
    assert torch.equal(drawn[0]["data"], drawn[1]["data"])
    assert not torch.allclose(drawn[0]["student"], drawn[1]["student"])


def test_pixels_use_the_scaling_of_the_data(drawn, tmp_path):
    """Also of data whose brightest pixel is far from white, as 16 of 255 is: they would be black."""
    for std in (0.5, 0.03):
        scaled = images(pixels={"mean": (0.25 * std,), "std": (std,)})
        sample_plots.plot_model({"student": image_model()}, tmp_path, scaled)
        shown, numbers = drawn[-1]["data"], scaled.batches[0]["input"]
        torch.testing.assert_close(shown, (numbers + 0.25) / (numbers + 0.25).max())
        assert float(shown.max()) == 1


def test_an_interpolation_leads_from_one_image_to_another(drawn, tmp_path):
    model = image_model()
    sample_plots.interpolations({"student": model, "twin": copy.deepcopy(model)}, tmp_path / "a.png", view)
    (rows,) = drawn
    assert torch.equal(rows["student"], rows["twin"])
    assert rows["student"].shape == (12, 1, 6, 5)
    noise = model.noise(2, generator=torch.Generator().manual_seed(0))
    noise["z1"] = noise["z1"][:1].expand(2, -1)
    with torch.no_grad():
        ends = model.samples(noise)
    torch.testing.assert_close(rows["student"][[0, -1]], ends)
    steps = rows["student"].diff(dim=0).flatten(1).norm(dim=1)
    assert 0 < steps.min() <= steps.max() < steps.sum() / 4  # nowhere a leap


def test_only_the_noise_of_the_first_latent_is_interpolated(drawn, tmp_path):
    model = image_model()
    with torch.no_grad():
        model.latents()["z1"].conditional.net.layers[0].weight.zero_()  # z1 no longer depends on z2
    sample_plots.interpolations({"student": model}, tmp_path / "a.png", view)
    sample_plots.latent_maps({"student": model}, tmp_path / "b.png", view)
    row, panel = drawn[0]["student"], drawn[1]["student"]
    assert (row == row[:1]).all()
    assert (panel == panel[:, :6, :5].repeat(1, 12, 12)).all()


def test_a_map_has_the_image_of_each_pair_of_quantiles(drawn, tmp_path):
    model = image_model()
    sample_plots.latent_maps({"wide": image_model(latents=(2, 3)), "student": model}, tmp_path / "a.png", view)
    (panels,) = drawn
    assert list(panels) == ["student"]
    noise = {"z1": model.noise(1, generator=torch.Generator().manual_seed(0))["z1"]}
    corner = torch.special.ndtri(torch.tensor([0.5 / 12, 11.5 / 12]))
    with torch.no_grad():
        lower_right = model.samples({**noise, "z2": corner.flip(0)[None]})
        upper_right = model.samples({**noise, "z2": corner[[1, 1]][None]})
    torch.testing.assert_close(panels["student"][:, -6:, -5:], lower_right[0])
    torch.testing.assert_close(panels["student"][:, :6, -5:], upper_right[0])


def test_the_grid_consists_of_normal_quantiles():
    grid = sample_plots.normal_grid(3)
    q = float(torch.special.ndtri(torch.tensor(5 / 6)))
    rows = [[-q, q], [0, q], [q, q], [-q, 0], [0, 0], [q, 0], [-q, -q], [0, -q], [q, -q]]
    torch.testing.assert_close(grid, torch.tensor(rows), atol=1e-6, rtol=0)


@given(st.integers(0, 999), st.floats(0, 1), st.sampled_from([(2,), (5,), (2, 3, 3)]))
def test_interpolated_noise_lies_on_the_arc(seed, share, shape):
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    second = second * first.norm() / second.norm()
    shares = torch.tensor([0, share, 1], dtype=torch.float64)
    way = sample_plots.interpolate_noise(first, second, shares)
    torch.testing.assert_close(way[[0, 2]], torch.stack([first, second]))
    torch.testing.assert_close(way[1].norm(), first.norm(), rtol=1e-5, atol=0)  # equally far from the origin
    back = sample_plots.interpolate_noise(second, first, 1 - shares)
    torch.testing.assert_close(back, way)


def test_noise_on_one_line_is_interpolated_linearly():
    first, shares = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(
        sample_plots.interpolate_noise(first, 3 * first, shares), torch.stack([first, 2 * first, 3 * first])
    )
    torch.testing.assert_close(
        sample_plots.interpolate_noise(first, -first, shares), torch.stack([first, 0 * first, -first])
    )


# ---------------------------------------------------------------- sequences


def test_strokes_are_as_long_as_the_observed_ones(drawn, tmp_path):
    seen = {}

    def ink(steps, lengths, height):
        seen[len(seen)] = steps, lengths, height
        return stroke_images(steps, lengths, height)

    batch = sequences().batches[0]
    model = sequence_model(StrokeVRNN)
    sample_plots.strokes({"student": model}, batch, ink, tmp_path / "a.png")
    (rows,) = drawn
    assert list(rows) == ["data", "student"]
    assert [tuple(row.shape) for row in rows.values()] == [(3, 1, 84, 84)] * 2
    assert rows["student"].amin() == 0  # dark ink
    assert rows["student"].amax() == 1  # on white paper
    assert torch.equal(seen[0][0], batch["input"][:, :6])  # the longest has 6 of 7 steps
    assert all(lengths.tolist() == [4, 2, 6] for _, lengths, _ in seen.values())
    noise = model.noise(3, generator=torch.Generator().manual_seed(0), steps=6)
    with torch.no_grad():
        torch.testing.assert_close(seen[1][0], model.samples(noise))


def test_fewer_wide_drawings_fill_a_row(drawn, tmp_path):
    batch = sequences(lengths=(3,) * 12).batches[0]
    model = sequence_model(StrokeVRNN)
    sample_plots.strokes(
        {"student": model}, batch, lambda s, n, size: stroke_images(s, n, (size, 4 * size)), tmp_path / "a.png"
    )
    assert drawn[0]["student"].shape == (3, 1, 84, 336)


def test_rolls_end_with_the_observed_ones(drawn, tmp_path):
    batch = sequences().batches[0]
    model = sequence_model(VectorVRNN)
    sample_plots.piano_rolls({"student": model, "strokes": sequence_model(StrokeVRNN)}, batch, tmp_path / "a.png")
    (rows,) = drawn
    assert list(rows) == ["data", "student"]
    assert torch.equal(rows["data"], batch["input"][:, :6])
    inside = batch["mask"][:, :6]
    assert (rows["student"][~inside] == 0).all()
    noise = model.noise(3, generator=torch.Generator().manual_seed(0), steps=6)
    with torch.no_grad():
        assert torch.equal(rows["student"][inside], model.samples(noise)[inside])


def test_sequences_without_a_mask_are_complete_and_long_ones_are_truncated(drawn, tmp_path, monkeypatch):
    batch = {"input": sequences().batches[0]["input"]}
    sample_plots.piano_rolls({"student": sequence_model(VectorVRNN)}, batch, tmp_path / "a.png")
    monkeypatch.setattr(sample_plots, "ROLL_STEPS", 4)
    sample_plots.piano_rolls({"student": sequence_model(VectorVRNN)}, batch, tmp_path / "a.png")
    assert [rows["student"].shape[1] for rows in drawn] == [7, 4]


# ---------------------------------------------------------------- points


def test_densities_are_drawn_around_all_points(drawn, tmp_path):
    model = point_model()
    sample_plots.plot_model({"student": model}, tmp_path, points(9, 4))
    shown = torch.cat([batch["input"] for batch in points(9, 4).batches])
    (result,) = drawn
    side = sample_plots.GRID_SIDE
    low, high = shown.amin(0), shown.amax(0)
    x, y = (
        torch.linspace(*ends, side) for ends in zip(low - 0.3 * (high - low), high + 0.3 * (high - low), strict=True)
    )
    i, j = 17, 80  # row, column
    with torch.no_grad():
        expected = model.log_density(torch.stack([x[j], y[i]])[None]).exp()
    torch.testing.assert_close(result["student"][i, j], expected[0], rtol=1e-4, atol=0)


def test_models_with_nan_parameters_are_drawn_too(tmp_path):
    for case in ("images", "strokes", "bits"):
        build, data, names = CASES[case]
        broken = build()
        with torch.no_grad():
            for parameter in broken.parameters():
                parameter.fill_(torch.nan)
        result = sample_plots.plot_model({"teacher": build(), "student": broken}, tmp_path / case, data())
        assert sorted(path.stem for path in result) == names
