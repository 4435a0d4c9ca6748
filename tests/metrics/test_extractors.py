"""Feature extractors of metrics of generative models, against plain layers, scikit-learn and SciPy."""

import hashlib
import warnings
from copy import deepcopy
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import nn

from kdzoo.errors import ConfigError, DataError
from kdzoo.functional.sample_distances import frechet_distance
from kdzoo.metrics import (
    EarthMoversDistance,
    Extractor,
    FrechetDistance,
    PenultimateFeatures,
    PrincipalComponents,
    RandomConvNet,
    ScriptedExtractor,
)
from kdzoo.models import MLP, ConvNet, LeNet, ResNet

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
some = settings(max_examples=40, deadline=None, derandomize=True)


def random_images(*size, seed=0):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def digits():
    """Return all 1797 digits [n, 1, 8, 8] in [0, 1], in random order."""
    images = torch.tensor(load_digits().images / 16).float()[:, None]
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]


class Script(nn.Module):
    """Returns its input bytes times two, with dropout in training mode."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("mark", torch.arange(8.0))

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert img.dtype == torch.uint8
        assert img.shape[1] == 3
        values = img.double().flatten(1) if return_features else torch.zeros(1)
        return self.dropout(self.scale * values)


class Plain(nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.flatten(1).float()


class Sums(nn.Module):
    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return img.float().sum()


class Exported(nn.Module):
    @torch.jit.export
    def features(self, img: torch.Tensor) -> torch.Tensor:
        return img


def saved(module, path):
    """Return the path of a TorchScript file of a module."""
    torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="module")
def script_file(tmp_path_factory):
    return saved(Script(), tmp_path_factory.mktemp("script") / "features.pt")


def a_convnet():
    torch.manual_seed(0)
    return ConvNet(in_shape=(1, 8, 8), num_classes=10, channels=[4, 8], dropout=0.5, norm="batch")


def an_mlp():
    torch.manual_seed(0)
    return MLP(in_shape=(1, 8, 8), num_classes=10, hidden=[30], activation="tanh")


@pytest.fixture(params=["random images", "random vectors", "components", "penultimate", "scripted"])
def extractor_and_samples(request, script_file):
    made = {
        "random images": lambda: RandomConvNet((1, 8, 8), width=4),
        "random vectors": lambda: RandomConvNet((64,), width=4),
        "components": lambda: PrincipalComponents.fit(random_images(20, 1, 8, 8, seed=5), components=7),
        "penultimate": lambda: PenultimateFeatures(a_convnet()),
        "scripted": lambda: ScriptedExtractor(script_file),
    }[request.param]()
    samples = random_images(6, 1, 8, 8)
    return made, samples.flatten(1) if request.param == "random vectors" else samples


# ---------------------------------------------------------------- all


def test_features_are_rows_that_neither_mode_nor_batch_nor_repetition_changes(extractor_and_samples):
    extractor, samples = extractor_and_samples
    expected = extractor(samples)
    assert expected.ndim == 2
    assert len(expected) == len(samples)
    assert not any(module.training for module in extractor.modules())
    extractor.train()
    assert not any(module.training for module in extractor.modules())
    for _ in range(3):
        assert torch.equal(extractor(samples), expected)
    in_parts = torch.cat([extractor(part) for part in samples.split(4)])
    assert torch.allclose(in_parts, expected, atol=1e-6)
    assert expected.std(0).max() > 0


def test_weights_are_frozen_and_features_survive_a_copy(extractor_and_samples):
    extractor, samples = extractor_and_samples
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert not extractor(samples).requires_grad
    other = deepcopy(extractor)
    assert torch.equal(other(samples), extractor(samples))
    assert other.digest == extractor.digest
    assert len(extractor.digest) == 64


def test_a_metric_takes_every_extractor(extractor_and_samples):
    extractor, samples = extractor_and_samples
    metric = FrechetDistance(extractor)
    metric.train()
    metric.update(samples[:3], real=True)
    metric.update(samples[3:], real=False)
    features = extractor(samples)
    assert float(metric.compute()) == pytest.approx(float(frechet_distance(features[:3], features[3:])), rel=1e-5)


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Extractor()


# ---------------------------------------------------------------- random networks


SHAPES = {
    "least": (1, 8, 8),
    "digits": (1, 28, 28),
    "colours": (3, 32, 32),
    "odd": (2, 9, 13),
    "vectors": (64,),
    "numbers": (1,),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_there_are_fourteen_features_per_width(shape):
    assert RandomConvNet(shape)(random_images(3, *shape)).shape == (3, 224)
    assert RandomConvNet(shape, width=5)(random_images(3, *shape)).shape == (3, 70)
    assert RandomConvNet(shape, width=1)(random_images(3, *shape)).isfinite().all()


@pytest.mark.parametrize("shape", [(1, 8, 8), (6,)], ids=["images", "vectors"])
def test_weights_are_a_function_of_the_seed_alone(shape):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = RandomConvNet(shape, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    torch.set_default_dtype(torch.float64)
    try:
        again = RandomConvNet(shape, seed=3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert first.digest == again.digest
    samples = random_images(4, *shape)
    assert torch.equal(first(samples), again(samples))
    other = RandomConvNet(shape, seed=4)
    assert other.digest != first.digest
    assert not torch.allclose(other(samples), first(samples), atol=1e-2)


def test_features_of_images_are_means_and_deviations_behind_plain_layers():
    network, images = RandomConvNet((2, 9, 11), width=3, seed=1), random_images(4, 2, 9, 11)
    x, expected = 2 * images - 1, []
    for stage, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        conv = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1, padding_mode="replicate")
        conv.load_state_dict({"weight": weight, "bias": bias})
        x = nn.LeakyReLU(0.2)(conv(nn.AvgPool2d(2)(x) if stage else x)).detach()
        expected += [x.numpy().mean((2, 3)), x.numpy().std((2, 3))]
    assert x.shape == (4, 12, 2, 2)
    assert np.allclose(network(images), np.concatenate(expected, 1), atol=1e-5)


def test_features_of_vectors_are_the_outputs_of_plain_layers():
    network, x = RandomConvNet((5,), width=2), random_images(4, 5)
    result, expected = network(x), []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        x = x @ weight.T + bias
        x = torch.where(x > 0, x, 0.2 * x)
        expected.append(x)
    assert torch.allclose(result, torch.cat(expected, 1), atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 16, 16), (40,)], ids=["images", "vectors"])
def test_weights_keep_the_size_of_values(shape):
    network = RandomConvNet(shape, width=64)
    for weight in network.weights:
        expected = (2 / (1.04 * weight[0].numel())) ** 0.5
        assert float(weight.std()) == pytest.approx(expected, rel=0.05)
        assert float(weight.mean()) == pytest.approx(0, abs=0.1 * expected)


@pytest.mark.parametrize("flat", [False, True], ids=["images", "vectors"])
@pytest.mark.parametrize("seed", [0, 1], ids=["seed zero", "seed one"])
def test_the_distance_of_digits_grows_with_their_noise(digits, seed, flat):
    real, clean = digits[:898], digits[898:]
    network = RandomConvNet((64,) if flat else (1, 8, 8), seed=seed)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))

    def distance(images):
        features = [network(one.flatten(1) if flat else one) for one in (real, images)]
        return float(frechet_distance(*features))

    result = [distance((clean + level * noise).clamp(0, 1)) for level in (0.0, 0.05, 0.1, 0.2, 0.4)]
    assert all(later > 1.1 * earlier for earlier, later in pairwise(result))
    assert result[-1] > 10 * result[0]
    assert distance(clean[:1].expand(898, -1, -1, -1)) > 10 * result[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: RandomConvNet((1, 7, 8)), r"in_shape must be \(channels, height, width\)", id="small"),
        pytest.param(lambda: RandomConvNet((8, 8)), r"or \(size,\), got \(8, 8\)", id="no channels"),
        pytest.param(lambda: RandomConvNet((8,), width=0), "width must be an integer >= 1, got 0", id="width"),
        pytest.param(lambda: RandomConvNet((8,), seed=-1), "seed must be an integer >= 0, got -1", id="seed"),
    ],
)
def test_arguments_of_random_networks_are_checked(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(torch.zeros(2, 3, 8, 8), id="channels"),
        pytest.param(torch.zeros(2, 64), id="flat"),
        pytest.param(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), id="bytes"),
    ],
)
def test_random_networks_refuse_other_samples(samples):
    with pytest.raises(DataError, match=r"samples must be floats \[n, 1, 8, 8\], got torch\."):
        RandomConvNet((1, 8, 8))(samples)


# ---------------------------------------------------------------- principal components


@given(st.integers(3, 30), st.integers(1, 12), st.integers(1, 15), st.integers(0, 99))
@some
def test_components_are_those_of_scikit_learn(n, d, k, seed):
    samples, new = random_images(n, d, seed=seed).double(), random_images(5, d, seed=seed + 1).double()
    pca = PrincipalComponents.fit(samples, components=k)
    kept = min(k, n - 1, d)
    assert pca.directions.shape == (d, kept)
    expected = PCA(kept, svd_solver="full").fit(samples.numpy()).transform(new.numpy())
    assert np.allclose(pca(new).abs(), np.abs(expected), atol=1e-6)
    assert torch.allclose(pca.directions.T @ pca.directions, torch.eye(kept, dtype=torch.double), atol=1e-12)


def test_all_components_keep_the_distances_and_the_first_the_most_variance(digits):
    samples = digits[:300].flatten(1).double()
    all_components, five = (PrincipalComponents.fit(digits[:300], components=k) for k in (64, 5))
    assert all_components.directions.shape[1] == np.linalg.matrix_rank(samples - samples.mean(0)) < 64
    assert torch.allclose(
        torch.cdist(all_components(samples), all_components(samples)), torch.cdist(samples, samples), atol=1e-6
    )
    assert torch.allclose(five(samples), all_components(samples)[:, :5])
    variances = all_components(samples).var(0)
    assert (variances.diff() <= 1e-12).all()
    assert float(all_components(samples).mean(0).abs().max()) == pytest.approx(0, abs=1e-12)


def test_the_order_and_the_type_of_samples_do_not_change_components():
    samples = random_images(40, 3, 2, 2)
    first, second = (PrincipalComponents.fit(one, components=4) for one in (samples, samples.flip(0).double()))
    assert torch.allclose(first.directions, second.directions, atol=1e-10)
    assert first(samples).dtype == torch.float64
    assert torch.equal(first(samples), first(samples.flatten(1)))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        pytest.param(torch.zeros(1, 4), r"n >= 2, got \(1, 4\)", id="one"),
        pytest.param(torch.zeros(4), r"n >= 2, got \(4,\)", id="numbers"),
        pytest.param(torch.tensor([[0.0], [torch.nan]]), "samples must be finite", id="nan"),
        pytest.param(torch.full((5, 3), 0.1), "all 5 samples are equal", id="equal"),
    ],
)
def test_samples_without_directions_are_refused(samples, message):
    with pytest.raises(DataError, match=message):
        PrincipalComponents.fit(samples)


def test_components_check_their_number_and_the_size_of_samples():
    with pytest.raises(ConfigError, match="components must be an integer >= 1, got 0"):
        PrincipalComponents.fit(random_images(4, 3), components=0)
    with pytest.raises(DataError, match=r"samples must have 3 numbers each, got \(2, 4\)"):
        PrincipalComponents.fit(random_images(4, 3))(random_images(2, 4))


# ---------------------------------------------------------------- trained classifiers

CLASSIFIERS = {
    "convnet": lambda: ConvNet(in_shape=(1, 16, 16), num_classes=3, channels=[4, 8], hidden=6, dropout=0.5),
    "lenet": lambda: LeNet(in_shape=(1, 16, 16), num_classes=3),
    "mlp": lambda: MLP(in_shape=(1, 16, 16), num_classes=3, hidden=[7], dropout=0.5),
    "resnet": lambda: ResNet(in_shape=(1, 16, 16), num_classes=3, depth=8, width=4),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_head_turns_default_features_into_the_logits(name):
    torch.manual_seed(0)
    model, images = CLASSIFIERS[name](), random_images(4, 1, 16, 16)
    features = PenultimateFeatures(model)(images)
    assert features.shape == (4, model.head.in_features)
    assert torch.allclose(model.eval().head(features), model(images), atol=1e-6)


def test_a_named_layer_gives_its_output_flattened():
    model, images = a_convnet().eval(), random_images(3, 1, 8, 8)
    features = PenultimateFeatures(model, "blocks.0")(images)
    assert torch.equal(features, model.blocks[0](images).flatten(1))
    assert torch.equal(PenultimateFeatures(model, layer="head")(images), model(images))


def test_the_model_itself_is_left_alone_and_may_be_trained_further():
    model, images = a_convnet(), random_images(3, 1, 8, 8)
    model.train()
    extractor = PenultimateFeatures(model)
    before = extractor(images)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in extractor.modules())
    with torch.no_grad():
        for one in model.parameters():
            one.add_(1)
    assert torch.equal(extractor(images), before)


def test_the_digest_is_that_of_the_weights():
    model = a_convnet()
    digest = PenultimateFeatures(model).digest
    assert PenultimateFeatures(a_convnet(), "blocks.1").digest == digest
    with torch.no_grad():
        model.head.bias[0] += 1e-6
    assert PenultimateFeatures(model).digest != digest
    assert PenultimateFeatures(a_convnet().double()).digest != digest


def test_equal_bytes_of_other_types_and_shapes_have_another_digest():
    kinds = [(torch.half, (4, 1)), (torch.bfloat16, (4, 1)), (torch.half, (2, 2))]
    made = [PrincipalComponents(torch.zeros(4), torch.zeros(shape, dtype=dtype)) for dtype, shape in kinds]
    assert len({one.digest for one in made}) == 3


def test_half_precision_and_numbers_without_a_shape_have_a_digest():
    model = a_convnet().bfloat16()
    assert model.state_dict()["blocks.0.norm.num_batches_tracked"].ndim == 0
    assert len(PenultimateFeatures(model).digest) == 64


class Odd(nn.Module):
    """Has modules that are called twice, work in place, return a tuple or are not called at all."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.inplace = nn.ReLU(inplace=True)
        self.pair = nn.LSTM(4, 3, batch_first=True)
        self.summed = nn.Flatten(0)
        self.unused = nn.Identity()

    def forward(self, input):
        x = self.inplace(self.linear(self.inplace(self.linear(input))))
        return self.summed(self.pair(x[:, None])[0])


def test_layers_that_are_called_twice_in_place_or_with_a_tuple():
    torch.manual_seed(0)
    model, x = Odd(), torch.randn(5, 4)
    expected = model.linear(model.linear(x).relu())
    assert (expected < 0).any()
    assert torch.equal(PenultimateFeatures(model, "linear")(x), expected)
    assert PenultimateFeatures(model, "pair")(x).shape == (5, 3)


def test_a_shared_module_is_known_by_all_of_its_names():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), torch.randn(5, 4)
    model.append(model[0])
    assert torch.equal(PenultimateFeatures(model, "2")(x), model(x))


@pytest.mark.parametrize("layer", ["unused", "summed"])
def test_a_layer_without_features_is_refused(layer):
    with pytest.raises(ConfigError, match=rf"layer '{layer}' must give a tensor \[5, ...\]"):
        PenultimateFeatures(Odd(), layer)(torch.zeros(5, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda: PenultimateFeatures(a_convnet(), "block.0"),
            r"layer must name a module of ConvNet, such as blocks\.0, .*, got 'block\.0'$",
            id="near",
        ),
        pytest.param(
            lambda: PenultimateFeatures(a_convnet(), "zzz"),
            "such as blocks, dropout, fc, head, got 'zzz'$",
            id="nothing near",
        ),
        pytest.param(lambda: PenultimateFeatures(a_convnet(), ""), "got ''$", id="empty"),
        pytest.param(
            lambda: PenultimateFeatures(Odd()),
            "such as linear, inplace, pair, summed, unused, got None and there is no module 'head'$",
            id="no head",
        ),
    ],
)
def test_an_unknown_layer_is_refused_with_similar_names(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


# ---------------------------------------------------------------- scripts


def test_a_script_is_read_without_a_warning(script_file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ScriptedExtractor(script_file)(random_images(1, 1, 2, 2)).shape == (1, 12)


def test_a_script_sees_bytes_of_three_channels(script_file):
    extractor = ScriptedExtractor(script_file)
    grey = torch.tensor([[0.0, 1.0], [0.5, 0.499]])[None, None]
    assert extractor(grey).tolist() == [[0, 2 * 255, 2 * 128, 2 * 127] * 3]
    assert torch.equal(extractor(grey.expand(-1, 3, -1, -1)), extractor(grey))
    beyond = torch.tensor([[-3.0, 7.0], [0.5, 0.499]])[None, None]
    assert torch.equal(extractor(beyond), extractor(grey))
    colours = random_images(2, 3, 4, 4)
    assert torch.equal(extractor(colours), 2 * (colours * 255).round().double().flatten(1))


def test_the_digest_of_a_script_is_that_of_its_file(script_file):
    assert ScriptedExtractor(script_file).digest == hashlib.sha256(script_file.read_bytes()).hexdigest()
    assert ScriptedExtractor(str(script_file)).digest == ScriptedExtractor(script_file).digest


def test_a_frozen_script_is_taken_too(tmp_path, script_file):
    frozen = torch.jit.freeze(torch.jit.script(Script().eval()))
    frozen.save(str(tmp_path / "frozen.pt"))
    images = random_images(2, 1, 4, 4)
    assert torch.equal(ScriptedExtractor(tmp_path / "frozen.pt")(images), ScriptedExtractor(script_file)(images))


def truncated(source, path):
    path.write_bytes(source.read_bytes()[:-200])


def flipped(source, path):
    """Copy a file with one bit of a buffer turned."""
    content = bytearray(source.read_bytes())
    content[content.index(torch.arange(8.0).numpy().tobytes())] ^= 1
    path.write_bytes(bytes(content))


FILES = {
    "missing": (lambda source, path: None, "is missing or not a regular file"),
    "folder": (lambda source, path: path.mkdir(), "is missing or not a regular file"),
    "empty": (lambda source, path: path.touch(), "is not a complete TorchScript file"),
    "text": (lambda source, path: path.write_text("hello"), "is not a complete TorchScript file"),
    "weights": (lambda source, path: torch.save({"a": torch.zeros(2)}, path), "is not a complete TorchScript file"),
    "truncated": (truncated, "is not a complete TorchScript file"),
    "flipped": (flipped, "is damaged: its part .* does not have the checksum"),
    "no features": (lambda source, path: saved(Plain(), path), "must take return_features, it takes img"),
    "no forward": (lambda source, path: saved(Exported(), path), "must take return_features, it takes nothing"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_refused_in_one_line(name, tmp_path, script_file):
    make, message = FILES[name]
    make(script_file, tmp_path / "wrong.pt")
    with pytest.raises(DataError, match=message) as caught:
        ScriptedExtractor(tmp_path / "wrong.pt")
    assert "wrong.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param(torch.zeros(2, 2, 4, 4), r"images must be floats \[n, 1 or 3, h, w\]", id="two channels"),
        pytest.param(torch.zeros(2, 16), r"images must be floats \[n, 1 or 3, h, w\]", id="vectors"),
        pytest.param(torch.zeros(2, 1, 4, 4).byte(), "images must be floats .*, got torch.uint8", id="bytes"),
        pytest.param(torch.full((2, 1, 4, 4), torch.nan), "images must be finite", id="nan"),
    ],
)
def test_a_script_is_given_images_only(images, message, script_file):
    with pytest.raises(DataError, match=message):
        ScriptedExtractor(script_file)(images)


def test_a_script_must_return_rows(tmp_path):
    extractor = ScriptedExtractor(saved(Sums(), tmp_path / "sums.pt"))
    with pytest.raises(DataError, match=r"the script must return features \[2, d\], got \(\)"):
        extractor(random_images(2, 1, 4, 4))


# ---------------------------------------------------------------- distances of features


def filled(metric, real, generated):
    for part in real.split(100):
        metric.update(part, real=True)
    for part in generated.split(100):
        metric.update(part, real=False)
    return metric


@pytest.mark.parametrize("kind", ["random", "components", "penultimate"])
def test_frechet_distance_of_features_is_that_of_the_matrix_root(kind, digits):
    real, generated = digits[:700], (digits[700:1300] + 0.1 * random_images(600, 1, 8, 8)).clamp(0, 1)
    extractor = {
        "random": lambda: RandomConvNet((1, 8, 8), width=8),
        "components": lambda: PrincipalComponents.fit(real, components=40),
        "penultimate": lambda: PenultimateFeatures(an_mlp()),
    }[kind]()
    x, y = (extractor(one).double().numpy() for one in (real, generated))
    roots = sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * roots)
    assert float(filled(FrechetDistance(extractor), real, generated).compute()) == pytest.approx(expected, abs=1e-4)
    assert expected > 1e-2


@given(st.integers(1, 60), st.integers(0, 99))
@settings(some, max_examples=20)
def test_earth_movers_distance_of_features_is_an_assignment(n, seed):
    extractor = RandomConvNet((1, 8, 8), width=4, seed=seed)
    real, generated = random_images(n, 1, 8, 8, seed=seed), random_images(n, 1, 8, 8, seed=seed + 100) ** 2
    x, y = (extractor(one).double().numpy() for one in (real, generated))
    cost = np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))
    expected = cost[linear_sum_assignment(cost)].mean()
    assert float(filled(EarthMoversDistance(extractor), real, generated).compute()) == pytest.approx(expected, abs=1e-9)
