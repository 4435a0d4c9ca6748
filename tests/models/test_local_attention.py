"""Local attention initialisation: the first heads of a new BERT attend to neighbouring tokens."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from kdzoo.errors import ConfigError
from kdzoo.models import Bert
from kdzoo.models.local_attention import rotation_matrix

pytest.importorskip("transformers")
V = 30


def bert(**options):
    torch.manual_seed(0)
    return Bert(
        **{"vocab_size": V, "hidden_size": 64, "heads": 4, "layers": 2, "max_length": 40, "dropout": 0.0, **options}
    )


@pytest.mark.parametrize(("width", "heads"), [(256, 4), (64, 4), (48, 2), (24, 4), (16, 8)])
def test_heads_attend_to_their_distance(width, heads):
    model = bert(hidden_size=width, heads=heads)
    model.enable_attention_outputs()
    ids = torch.randint(5, V, (50, 40))
    attention = model.read(ids, attentions=True).attentions[0].mean(0)  # [heads, from, to]
    for head, distance in enumerate([-1, 1, -2, 2, -3, 3, -4, 4][:heads]):
        target = attention[head].argmax(-1) - torch.arange(40)
        if width >= 64:  # with few dimensions chance decides at single positions
            assert bool((target[4:36] == distance).all())
        assert attention[head].diagonal(distance).mean() > 2 / 40
    assert bool(torch.isfinite(model(ids)).all())


def test_a_dependence_on_the_neighbour_is_learned_at_once():
    """A masked token is the one before it plus one: the frequencies of tokens say nothing about it."""
    losses = {}
    for start in ("local_attention", "random"):
        model = bert(start=start)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(120):
            first = torch.randint(5, V, (16, 20), generator=generator)
            ids = torch.stack([first, 5 + (first - 4) % (V - 5)], -1).flatten(1)
            masked = (torch.rand(ids.shape, generator=generator) < 0.2) & (torch.arange(40) % 2 == 1)
            loss = cross_entropy(model(ids.masked_fill(masked, 4))[masked], ids[masked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[start] = loss.item()
    assert losses["local_attention"] < 0.5
    assert losses["random"] > 2.0


def test_heads_of_odd_width_are_refused():
    with pytest.raises(ConfigError, match="start='local_attention' needs an even width of a head, got 15 / 3"):
        bert(hidden_size=15, heads=3)
    assert bert(hidden_size=15, heads=3, start="random").hidden_size == 15
    with pytest.raises(ConfigError, match="start must be one of local_attention, random, got 'even'"):
        bert(start="even")


@pytest.mark.parametrize("size", [4, 5])
def test_the_rotation_turns_sinusoids(size):
    angles = torch.linspace(0.3, 2.0, (size + 1) // 2, dtype=torch.float64)
    phases = torch.linspace(-1.0, 1.0, len(angles), dtype=torch.float64)

    def waves(phase):
        return torch.stack([phase.sin(), phase.cos()], -1).flatten()

    rotation = rotation_matrix(2 * len(angles), angles).double()
    torch.testing.assert_close(rotation @ waves(phases), waves(phases + angles), rtol=1e-6, atol=1e-6)
    assert rotation_matrix(size, angles).shape == (size, size)
