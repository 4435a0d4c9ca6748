import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from omegaconf import OmegaConf
from torch import nn

from kdzoo.errors import ConfigError
from kdzoo.models import MLP, Ensemble


class Fixed(nn.Module):
    """TeacherOutputs with given logits, whatever the input."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits))

    def forward(self, input):
        return self.logits


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def predict(logits, weights=None, average="probabilities"):
    with torch.no_grad():
        return Ensemble([Fixed(z) for z in logits], weights, average)(torch.empty(0))


shapes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))  # members, batch, classes
logit_arrays = shapes.flatmap(lambda s: hnp.arrays(np.float64, s, elements=st.floats(-50, 50)))


@st.composite
def logits_and_weights(draw):
    logits = draw(logit_arrays)
    weights = draw(st.lists(st.floats(0.01, 10), min_size=len(logits), max_size=len(logits)))
    return logits, weights


@settings(deadline=None, max_examples=60)
@given(logits_and_weights())
def test_softmax_of_the_output_is_the_mean_of_probabilities(drawn):
    logits, weights = drawn
    expected = np.average(softmax(logits), axis=0, weights=weights)
    out = predict(logits, weights)
    np.testing.assert_allclose(out.softmax(-1), expected, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(out.logsumexp(-1), 0, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(logits_and_weights())
def test_mean_of_logits(drawn):
    logits, weights = drawn
    expected = np.average(logits, axis=0, weights=weights)
    np.testing.assert_allclose(predict(logits, weights, "logits"), expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(logits_and_weights(), st.sampled_from(["probabilities", "logits"]), st.randoms())
def test_order_of_members_does_not_matter(drawn, average, random):
    logits, weights = drawn
    order = random.sample(range(len(logits)), len(logits))
    shuffled = predict(logits[order], [weights[i] for i in order], average)
    torch.testing.assert_close(shuffled, predict(logits, weights, average), rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(logit_arrays, st.floats(-1e3, 1e3))
def test_shifting_a_members_logits_changes_no_probability(logits, shift):
    moved = logits.copy()
    moved[0] += shift
    torch.testing.assert_close(predict(moved), predict(logits), rtol=1e-9, atol=1e-9)


def test_one_member_is_itself():
    z = torch.randn(3, 4)
    torch.testing.assert_close(predict([z]), z.log_softmax(-1))
    assert torch.equal(predict([z], average="logits"), z)


def test_float32_keeps_probabilities_that_would_underflow():
    z = torch.tensor([[0.0, -200.0]])  # exp(-200) is 0 in float32
    assert predict([z, z])[0, 1].item() == pytest.approx(-200.0)


def test_minus_infinity_is_probability_zero():
    inf = float("inf")
    out = predict([torch.tensor([[0.0, -inf, -inf]]), torch.tensor([[0.0, 0.0, -inf]])])
    torch.testing.assert_close(out.softmax(-1), torch.tensor([[0.75, 0.25, 0.0]]))
    assert out[0, 2] == -inf
    assert predict([torch.tensor([[0.0, -inf]])] * 2, average="logits").tolist() == [[0.0, -inf]]


def test_gradient_is_finite_where_no_member_allows_a_class():
    # The gradient of a plain logsumexp over nothing but -inf is NaN, and log_softmax spreads it over the row.
    ensemble = Ensemble([Fixed([[0.0, 1.0, -torch.inf]]), Fixed([[0.5, -torch.inf, -torch.inf]])])
    ensemble(torch.empty(0))[0, 0].backward()
    assert all(member.logits.grad.isfinite().all() for member in ensemble.members)
    assert ensemble.members[0].logits.grad.abs().sum() > 0


def test_half_precision_is_averaged_in_float32():
    z = torch.randn(2, 3)
    out = predict([z.bfloat16(), z.half()])
    assert out.dtype == torch.float32
    assert out.logsumexp(-1).abs().max() < 1e-6


def test_a_member_of_weight_zero_is_not_evaluated():
    class Broken(nn.Module):
        def forward(self, input):
            raise AssertionError

    z = torch.randn(2, 3)
    out = Ensemble([Fixed(z), Broken()], weights=[2.0, 0.0])(torch.empty(0))
    torch.testing.assert_close(out, z.log_softmax(-1))


@pytest.mark.parametrize("weights", [[1e308, 1e308], [1e-300, 1e-300], [5e-324, 5e-324]])
def test_extreme_weights_are_normalised(weights):
    assert Ensemble([nn.Identity(), nn.Identity()], weights).weights == (0.5, 0.5)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_real_members_compile_train_and_nest(average):
    torch.manual_seed(0)
    members = [MLP(in_shape=(4,), num_classes=3, hidden=[5]) for _ in range(2)]
    model = Ensemble([Ensemble(members, average=average), members[0]], OmegaConf.create([2.0, 1.0]), average)
    x = torch.randn(6, 4)
    expected = model(x)
    expected.logsumexp(-1).sum().backward() if average == "logits" else expected[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend="eager")(x), expected, rtol=0, atol=0)
    flat = Ensemble(members, [2.0, 1.0], average)
    torch.testing.assert_close(flat(x), expected)  # (a + b) / 2 * 2/3 + a / 3 = 2/3 a + 1/3 b


def test_members_are_registered_by_name_and_follow_eval():
    model = Ensemble([MLP(in_shape=(4,), num_classes=3, dropout=0.5) for _ in range(2)])
    assert "members.1.head.weight" in model.state_dict()
    model.eval()
    x = torch.randn(1, 4)
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "members must be a list of at least one module, got an empty list"),
        ((3,), "members must be a list of at least one module, got int"),
        ((nn.Sequential(nn.ReLU()),), "members must be a list of at least one module, got Sequential"),
        (([nn.ReLU(), "mlp"],), "members[1] must be a torch module, got 'mlp'"),
        (([nn.ReLU()], None, "median"), "average must be one of probabilities, logits, got 'median'"),
        *(
            (
                ([nn.ReLU()] * 2, weights),
                f"weights must be 2 finite numbers >= 0, not all zero, got {weights!r}",
            )
            for weights in ([1.0], [1, -1], [0, 0], [1, float("nan")], [1, float("inf")], "ab", 1.0, [1, "2"])
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Ensemble(*arguments)


def test_members_of_different_classes_are_refused():
    # broadcasting would average a (2, 1) member into a (2, 3) one silently
    message = "members must agree on the shape of their logits, got [(2, 1), (2, 3)]"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        predict([torch.zeros(2, 3), torch.zeros(2, 1)])
