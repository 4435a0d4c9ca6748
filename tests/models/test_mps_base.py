"""What all matrix product states have in common: tensors, bonds, hooks, start, weights and refusals."""

import copy

import pytest
import torch

from kdzoo.errors import ConfigError, NonFiniteLossError
from kdzoo.models import MPS
from kdzoo.tensor_networks import FeatureMap
from tests.models.chains import dense


def test_uneven_bonds():
    with pytest.warns(UserWarning, match="reduced to 2"):
        model = MPS(6, 2, [1, 2, 3, 1, 4, 2, 3, 1], out_site=2).double()
    assert model.dims.tolist() == [1, 2, 2, 1, 2, 2, 2, 1]  # none larger than its neighbours can use
    x = torch.rand(5, 6, dtype=torch.float64)
    assert torch.allclose(model(x), dense(model, x), rtol=1e-12)


def test_states_of_chosen_bonds_pass_through_modules():
    torch.manual_seed(0)
    model = MPS(9, 2, 3, probes=[2, 4, 7]).double()
    unprobed = MPS(9, 2, 3).double()
    unprobed.load_state_dict(model.state_dict())
    x = torch.rand(5, 9, dtype=torch.float64)
    seen = {}
    for name in ("left", "right", "bonds.2", "bonds.7"):
        model.get_submodule(name).register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    assert torch.allclose(model(x), unprobed(x), rtol=1e-12)
    sites, phi = model.sites(), model.feature_map(x.T)
    state = torch.ones(5, 1, dtype=torch.float64)
    for i in range(2):
        state = torch.einsum("bl,lkr,kb->br", state, sites[i], phi[i])
    assert torch.allclose(seen["bonds.2"], state)
    assert seen["left"].shape == (5, 3)
    assert seen["bonds.7"].shape == (5, 3)
    seen["bonds.7"].sum().backward()
    assert model.cores.grad.abs().sum() > 0


def test_tensors_come_out_as_they_went_in():
    torch.manual_seed(0)
    model = MPS(8, 3, 4).double()
    before, x = copy.deepcopy(model), torch.rand(5, 8, dtype=torch.float64)
    model.load_tensors(model.sites(), model.centre.detach())
    assert torch.equal(model(x), before(x))
    halved = [site[: max(1, site.shape[0] // 2), :, : max(1, site.shape[2] // 2)] for site in model.sites()]
    centre = model.centre.detach()[:2, :, :2]
    model.load_tensors(halved, centre)
    assert model.cores.numel() < before.cores.numel()
    assert torch.allclose(model(x), dense(model, x), rtol=1e-12)


def test_wrong_tensors_are_refused_and_change_nothing():
    model = MPS(6, 3, 4)
    before = copy.deepcopy(model.state_dict())
    sites = model.sites()
    sites[2] = sites[2][:, :1]
    with pytest.raises(ConfigError, match="not a chain of 6 sites with 2 features"):
        model.load_tensors(sites, model.centre)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_weights_bring_their_bonds():
    model = MPS(8, 3, 4)
    other = MPS(8, 3, 2)
    other.load_state_dict(model.state_dict())
    x = torch.rand(5, 8)
    assert torch.equal(other(x), model(x))
    assert MPS(8, 3, **model.learned_sizes).dims.tolist() == model.dims.tolist()


def test_weights_of_another_place_of_the_output_are_refused():
    with pytest.raises(ConfigError, match="out_site is 2, but the weights are those of a chain of out_site=4"):
        MPS(8, 3, 4, out_site=2).load_state_dict(MPS(8, 3, 4).state_dict())


@pytest.mark.parametrize(("ours", "theirs"), [("open", "periodic"), ("periodic", "open")])
def test_weights_of_other_ends_are_refused(ours, theirs):
    """With the output in the middle of bonds of 1 all sizes are equal; with others the chain would become the other."""
    for bond_dim in (1, 4):
        model, other = (MPS(8, 3, bond_dim, boundary=one) for one in (ours, theirs))
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ConfigError, match=f"boundary is '{ours}', but the weights are .* of '{theirs}' ends"):
            model.load_state_dict(other.state_dict())
        assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_tensors_of_joined_ends_are_no_open_chain():
    closed = MPS(6, 3, 2, boundary="periodic")
    with pytest.raises(ConfigError, match="boundary='open'"):
        MPS(6, 3, 2).load_tensors(closed.sites(), closed.centre)


def test_bonds_that_a_chain_cannot_carry_are_reduced_and_said():
    with pytest.warns(UserWarning, match="bond_dim=64 is more than a chain of 8 sites.*reduced to 16"):
        model = MPS(8, 2, 64)
    assert model.dims.tolist() == [1, 2, 4, 8, 16, 16, 8, 4, 2, 1]


def test_a_chain_that_has_seen_its_data_starts_at_one():
    """Cosine and sine at x = 1/2 add up to 1.41: without a look at the data a long chain would explode."""
    x = 0.5 + 0.01 * torch.rand(50, 2000)
    model = MPS(2000, 2, 4, feature_map="cos_sin", noise=0.0)
    model.calibrate(x)
    with torch.no_grad():
        model.centre.fill_(1.0)
    assert torch.allclose(model(x), torch.ones(50, 2), rtol=0.05)


def test_each_site_starts_at_its_own_one():
    """A feature map that differs between sites: each has its own combination that is 1."""

    class Scaled(FeatureMap):
        def features(self, x):
            return torch.tensor([[1.0], [2.0], [4.0], [0.5]])[:, None].to(x) * torch.stack([x.cos(), x.sin()], 1)

    x = torch.rand(50, 4) * 0.2 + 0.4
    model = MPS(4, 2, 2, feature_map=Scaled(2, (0.4, 0.6)), noise=0.0)
    with torch.no_grad():
        model.centre.fill_(1.0)
        assert torch.allclose(model(x), torch.ones(50, 2), rtol=0.05)
        model.calibrate(x)
        model.centre.fill_(1.0)
    assert torch.allclose(model(x), torch.ones(50, 2), rtol=0.05)


@pytest.mark.parametrize("engine", ["auto", "sweep"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), 3e38], ids=["nan", "infinite", "too-large"])
def test_an_output_core_that_is_not_finite_is_named(engine, number):
    model = MPS(8, 3, 4, out_site=3, engine=engine, noise=0.0)
    with torch.no_grad():
        model.cores.mul_(2.0)
        model.centre[0] = number
    with pytest.raises(
        NonFiniteLossError, match=r"with the output core, before site 3 of 8 .* is not finite, sample 0"
    ):
        model(torch.rand(5, 8))


def test_a_site_that_is_not_finite_is_named_before_the_output():
    model = MPS(8, 3, 4, engine="sweep")
    with torch.no_grad():
        model.cores[-1] = float("nan")
        model.centre[0] = float("nan")
    with pytest.raises(NonFiniteLossError, match="is not finite after site"):
        model(torch.rand(5, 8))


def test_vmap_does_not_look_at_outputs():
    torch.manual_seed(0)
    model = MPS(6, 3, 2, engine="autograd")
    x = torch.rand(4, 5, 6)
    parameters = dict(model.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(model, parameters, (x,)).square().mean()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    expected = torch.autograd.grad(loss(parameters, x[2]), model.cores)[0]
    torch.testing.assert_close(found["cores"][2], expected)


@pytest.mark.usefixtures("unchecked_types")  # the decorators of run-time type checks cannot be compiled
def test_compiled_code_does_not_look_at_outputs():
    model = MPS(6, 3, 2, engine="sweep")
    with torch.no_grad():
        model.centre[0] = float("nan")
        assert torch.compile(model, backend="eager", fullgraph=True)(torch.rand(5, 6)).isnan().any()
    torch._dynamo.reset()


def test_new_bonds_are_where_the_cores_are():
    model = MPS(6, 3, 2).to("meta")
    model._allocate([1, 1, 1, 1, 1, 1, 1, 1])
    assert {one.device.type for one in (*model.parameters(), *model.buffers())} == {"meta"}
