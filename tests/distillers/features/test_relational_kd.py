"""Relational distillation of layers of matrix product states against float64 NumPy, and what it refuses."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdzoo.distillers import FeatureKD, LogitKD, RelationalKD
from kdzoo.errors import ConfigError
from kdzoo.models import MLP, MPS
from tests.distillers.tensor_networks.cases import PERCEPTRON_TEACHER
from tests.reference import relations as reference

CLASSES, SITES = 3, 6


def teacher(width: int = 9) -> nn.Module:
    torch.manual_seed(1)
    return MLP(in_shape=(SITES,), num_classes=CLASSES, hidden=[width, width])


def chain(**options) -> MPS:
    torch.manual_seed(0)
    return MPS(SITES, CLASSES, 4, **options)


def batch(n: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {"input": torch.rand(n, SITES, generator=generator), "target": torch.arange(n) % CLASSES}


def state(model: MPS, x: Tensor, path: str) -> np.ndarray:
    """Return the output ``[samples, bond]`` of a module; ``left`` and ``right`` are next to the output site."""
    bond = int(path.removeprefix("bonds.")) if "." in path else model.out_site
    from_left = path == "left" or ("." in path and bond <= model.out_site)
    states = torch.ones(len(x), 1, dtype=torch.float64)
    for i in range(bond) if from_left else reversed(range(bond, SITES)):
        phi = torch.stack([torch.ones_like(x[:, i]), x[:, i]], 1).double()
        states = torch.einsum("bl,bk,lkr->br" if from_left else "br,bk,lkr->bl", states, phi, model.sites()[i])
    return states.numpy()


def assert_close(value: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(value.detach().numpy(), expected, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("path", ["left", "right", "bonds.2", "bonds.5"])
def test_states_of_a_chain_are_compared(path):
    student, mlp, data = chain(probes=[2, 5]), teacher(), batch()
    terms = RelationalKD(student, mlp, layers={path: "layers.1"}).dry_run(data)
    with torch.no_grad():
        hint = nn.Sequential(*mlp.layers)(data["input"]).double().numpy()
    states = state(student, data["input"], path)
    assert_close(terms["distance"], reference.distance_relation(states, hint))
    assert_close(terms["angle"], reference.angle_relation(states, hint))


def test_features_of_a_chain_are_compared_after_a_projection():
    student, mlp, data = chain(probes=[2]), teacher(), batch()
    distiller = FeatureKD(student, mlp, layers={"left": "layers.1", "bonds.2": "layers.0"})
    terms = distiller.dry_run(data)
    assert [tuple(projection.weight.shape) for projection in distiller.projections] == [(9, 4), (9, 4)]
    with torch.no_grad():
        hints = [nn.Sequential(*mlp.layers[:n])(data["input"]) for n in (2, 1)]
        states = [torch.from_numpy(state(student, data["input"], path)).float() for path in ("left", "bonds.2")]
        triples = zip(distiller.projections, states, hints, strict=True)
        differences = [(projection(s) - hint).square().mean(1) for projection, s, hint in triples]
    assert_close(terms["feature"], torch.stack(differences).mean(0).numpy())


def test_several_layers_are_averaged_and_the_other_terms_are_those_of_logit_distillation():
    student, mlp, data = chain(), teacher(), batch()
    both = RelationalKD(student, mlp, layers={"left": "layers.1", "right": "layers.0"}, temperature=3.0)
    single = [RelationalKD(student, mlp, layers={a: b}) for a, b in both.layers.items()]
    terms, single_terms = both.dry_run(data), [distiller.dry_run(data) for distiller in single]
    logit_terms = LogitKD(student, mlp, temperature=3.0).dry_run(data)
    for name in ("distance", "angle"):
        torch.testing.assert_close(terms[name], (single_terms[0][name] + single_terms[1][name]) / 2)
    for name in ("soft", "hard"):
        torch.testing.assert_close(terms[name], logit_terms[name])


def test_a_term_of_weight_zero_is_not_computed():
    distiller = RelationalKD(chain(), teacher(), layers={"left": "layers.1"}, loss_weights={"angle": 0.0})
    assert set(distiller.dry_run(batch())) == {"distance", "soft", "hard"}


def test_gradients_reach_only_the_cores_before_the_layer():
    student, data = chain(probes=[2]), batch()
    distiller = RelationalKD(student, teacher(), layers={"bonds.2": "layers.0"})
    distiller.losses(data)["angle"].sum().backward()
    before = student.layout.core(student.cores.grad, 0, 1)
    beyond = student.layout.core(student.cores.grad, 0, 2)
    assert before.abs().sum() > 0
    assert beyond.abs().sum() == 0
    assert all(parameter.grad is None for parameter in distiller.teacher.parameters())


def test_micro_batches_are_refused():
    with pytest.raises(ConfigError, match="micro_batch_size must be None, got 8: relations are between samples of one"):
        RelationalKD(chain(), teacher(), layers={"left": "layers.0"}, micro_batch_size=8)


def test_wrong_paths_are_refused():
    with pytest.raises(ConfigError, match=r"student module path in layers must be one of .*left.*got 'bonds\.3'"):
        RelationalKD(chain(), teacher(), layers={"bonds.3": "layers.0"})


def test_a_run_compares_layers_of_a_chain(small_mps_run):
    layers = "distiller.layers={left:layers.0,right:layers.0}"
    run = small_mps_run("relational_kd", "student=mps", *PERCEPTRON_TEACHER, layers, "control=false")
    assert run.report["controls"] == {}
