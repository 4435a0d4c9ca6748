"""Figures of what models infer: the arrays that are drawn, and where nothing is drawn."""

import pytest
import torch

from kdzoo import plotting
from kdzoo.graphical_models import posterior_plots
from kdzoo.graphical_models.inference_scores import posterior_means
from kdzoo.models import HVAE, VAE, HelmholtzMachine


@pytest.fixture
def drawn(monkeypatch):
    """What was handed to the figures, by the name of the file."""
    seen = {}

    def watched(figure):
        def draw(arrays, *args, **kwargs):
            path = next(value for value in args if hasattr(value, "stem"))
            seen[path.stem] = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
            return figure(arrays, *args, **kwargs)

        return draw

    for name in ("image_rows", "image_panels", "class_scatter"):
        monkeypatch.setattr(plotting, name, watched(getattr(plotting, name)))
    return seen


def model(kind=VAE, *, trained=True, **options):
    torch.manual_seed(0)
    result = kind(**{"in_shape": (1, 6, 5), "num_classes": 3, "width": 4, **options})
    result.posteriors_trained.fill_(trained)
    return result


class Data:
    def __init__(self, *batches):
        self.batches = batches

    def test_dataloader(self):
        return self.batches


def labelled(n=9, seed=2):
    torch.manual_seed(seed)
    return {"input": torch.rand(n, 1, 6, 5), "target": torch.arange(n) % 3}


def test_applicable_figures_are_drawn(tmp_path):
    data = Data(labelled(), labelled(seed=3))
    cases = [
        ({"latent": 2}, {"image_interpolations", "codes"}),
        ({"latent": 2, "conditional": True}, {"image_interpolations", "codes", "styles"}),
        ({"latent": 3}, {"image_interpolations"}),
    ]
    for number, (options, expected) in enumerate(cases):
        paths = posterior_plots.plot_model({"student": model(**options)}, tmp_path / str(number), data)
        assert {path.stem for path in paths} == expected
        assert all(path.is_file() for path in paths)
    ladder = model(HVAE, latents=[3, 2], conditional=True)
    assert len(posterior_plots.plot_model({"student": ladder}, tmp_path / "ladder", data)) == 3


def test_nothing_is_drawn_of_models_that_do_not_infer_or_without_data(tmp_path):
    models = {
        "blind": model(trained=False),
        "points": HelmholtzMachine(in_shape=(2,), width=3),
        "data": torch.nn.ReLU(),
    }
    assert posterior_plots.plot_model(models, tmp_path / "a", Data(labelled())) == []
    assert posterior_plots.plot_model({"student": model()}, tmp_path / "a", None) == []
    assert posterior_plots.plot_model({"student": model()}, tmp_path / "a", Data()) == []
    assert not (tmp_path / "a").exists()


def test_ten_steps_lead_from_the_first_reconstruction_to_the_second(drawn, tmp_path):
    vae, batch = model(conditional=True), labelled()
    posterior_plots.plot_model({"student": vae}, tmp_path, Data(batch))
    rows = drawn["image_interpolations"]
    assert list(rows) == ["pixels", "student"]
    assert len(rows["pixels"]) == len(rows["student"]) == 10
    shares = torch.linspace(0, 1, 10).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(rows["pixels"], (1 - shares) * batch["input"][0] + shares * batch["input"][1])
    codes = posterior_means(vae, [batch])["z"][:2]
    with torch.no_grad():
        ends = vae.rollout({}, {"label": torch.eye(3)[:2]}, forced={"z": codes}).distributions["image"].mean
        middle = vae.rollout(
            {}, {"label": torch.tensor([[5 / 9, 4 / 9, 0]])}, forced={"z": (5 * codes[:1] + 4 * codes[1:]) / 9}
        )
    torch.testing.assert_close(rows["student"][[0, -1]], ends)
    torch.testing.assert_close(rows["student"][4:5], middle.distributions["image"].mean)


def test_a_code_is_decoded_with_every_class(drawn, tmp_path):
    vae, batch = model(conditional=True), labelled()
    posterior_plots.plot_model({"student": vae}, tmp_path, Data(batch))
    panel = drawn["styles"]["student"]
    assert panel.shape == (1, 6 * 6, 4 * 5)
    torch.testing.assert_close(panel[:, 12:18, :5], batch["input"][2])
    code = posterior_means(vae, [batch])["z"][2:3]
    for label in range(3):
        with torch.no_grad():
            trace = vae.rollout({}, {"label": torch.eye(3)[label : label + 1]}, forced={"z": code})
        expected = trace.distributions["image"].mean[0]
        torch.testing.assert_close(panel[:, 12:18, 5 * (label + 1) : 5 * (label + 2)], expected)


def test_codes_are_posterior_means(drawn, tmp_path):
    vae, data = model(latent=2), Data(labelled(), labelled(seed=3))
    posterior_plots.plot_model({"student": vae}, tmp_path, data)
    torch.testing.assert_close(drawn["codes"]["student"], posterior_means(vae, data.batches)["z"])


def test_no_figure_of_codes_is_drawn_without_labels(tmp_path):
    hidden = {**labelled(), "target": torch.full((9,), -100)}
    for batch in (hidden, {"input": hidden["input"]}):
        paths = posterior_plots.plot_model({"student": model(latent=2)}, tmp_path, Data(batch))
        assert [path.stem for path in paths] == ["image_interpolations"]
