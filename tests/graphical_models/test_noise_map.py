"""Noise of students with fewer latents stays standard normal; the learned map finds the best subspace."""

import pytest
import torch
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.graphical_models import Bernoulli, Graph, Latent, Normal, Target
from kdzoo.graphical_models.noise_map import NoiseMap
from kdzoo.graphical_models.paired import Pair, node_divergence, rollout_student, rollout_teacher


def linear(matrix, scale=1.0):
    """Return the model y = matrix z + noise, which is learned."""
    net = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False).double()
    net.weight.data = matrix.clone()
    size = matrix.shape
    return Graph(
        [Latent("z", Normal((size[1],), scale=1.0)), Target("y", Normal((size[0],), scale), net, "z")]
    ).double()


@pytest.mark.parametrize("learned", [True, False])
def test_mapped_noise_is_standard_normal(learned):
    torch.manual_seed(0)
    teacher, student = linear(torch.randn(6, 8).double()), linear(torch.randn(6, 3).double())
    mapped = NoiseMap(teacher, student, [], learned=learned)
    rows = mapped.map.weight.detach()
    assert torch.allclose(rows @ rows.T, torch.eye(3), atol=1e-5)
    noise = mapped(teacher.noise(20_000))["z"].detach()
    assert torch.allclose(torch.cov(noise.T), torch.eye(3), atol=0.05)
    if not learned:
        assert torch.equal(rows, torch.eye(3, 8))


def best_surrogate(teacher, k, learned, seed):
    """Return the exact L_sd of a trained linear student with k latents."""
    torch.manual_seed(seed)
    student = linear(torch.randn(len(teacher), k).double())
    mapped = NoiseMap(linear(teacher), student, [], learned=learned).double()
    parameters = [p for p in (*student.parameters(), *mapped.parameters()) if p.requires_grad]
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def exact():
        gap = teacher - student.entries[1].conditional.net.weight @ mapped.map.weight
        return gap.square().sum() / 2  # E |gap z|^2 / 2 at unit deviation

    def closure():
        optimizer.zero_grad()
        loss = exact()
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(exact().detach()), student, mapped


def test_the_learned_map_is_within_one_percent_of_the_singular_values():
    ratios, first = [], []
    for seed in range(10):
        torch.manual_seed(100 + seed)
        left, right = (torch.linalg.qr(torch.randn(n, 8).double()).Q for n in (16, 8))
        spectrum = 2 * 0.7 ** torch.arange(8.0).double()
        teacher = left * spectrum @ right.T
        optimum = float(spectrum[4:].square().sum() / 2)
        ratios.append(best_surrogate(teacher, 4, True, seed)[0] / optimum)
        first.append(best_surrogate(teacher, 4, False, seed)[0] / optimum)
    assert max(ratios) <= 1.01
    assert min(ratios) >= 1 - 1e-9
    assert min(first) > 2


def test_the_exact_surrogate_loss_equals_the_mean_over_rollouts():
    torch.manual_seed(0)
    teacher = torch.randn(5, 4).double()
    value, student, mapped = best_surrogate(teacher, 2, True, 0)
    model = linear(teacher)
    noise = {name: one.double() for name, one in model.noise(40_000).items()}
    trace = rollout_teacher(model, noise)
    sampled = node_divergence(Pair(trace, rollout_student(student, trace, mapped(noise))), "y", "kl", "sum").detach()
    assert abs(float(sampled.mean()) - value) < 4 * float(sampled.std()) / 200


def test_noise_that_cannot_be_mapped_is_refused():
    small, large = linear(torch.randn(3, 2).double()), linear(torch.randn(3, 4).double())
    with pytest.raises(ConfigError, match="have 4 values without a partner, the teacher's"):
        NoiseMap(small, large, [], learned=True)
    bits = Graph([Latent("z", Bernoulli((2,))), Target("y", Normal((3,), 1.0), nn.Linear(2, 3), "z")])
    with pytest.raises(ConfigError, match=r"latent .z. has no partner .* it is Bernoulli"):
        NoiseMap(large, bits, [], learned=True)
