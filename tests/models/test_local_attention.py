"""A BERT whose first heads look at the tokens beside their own."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from kdzoo.errors import ConfigError
from kdzoo.models import Bert

pytest.importorskip("transformers")
V = 30


def bert(**options):
    torch.manual_seed(0)
    return Bert(
        **{"vocab_size": V, "hidden_size": 64, "heads": 4, "layers": 2, "max_length": 40, "dropout": 0.0, **options}
    )


@pytest.mark.parametrize(("width", "heads"), [(256, 4), (64, 4), (48, 2), (24, 4), (16, 8)])
def test_heads_look_beside(width, heads):
    model = bert(hidden_size=width, heads=heads)
    model.enable_attention_outputs()
    ids = torch.randint(5, V, (50, 40))
    attention = model.read(ids, attentions=True).attentions[0].mean(0)  # (heads, from, to)
    for head, distance in enumerate([-1, 1, -2, 2, -3, 3, -4, 4][:heads]):
        most = attention[head].argmax(-1) - torch.arange(40)
        if width >= 64:  # in fewer dimensions, chance is louder
            assert bool((most[4:36] == distance).all())
        assert attention[head].diagonal(distance).mean() > 2 / 40
    assert bool(torch.isfinite(model(ids)).all())


def test_what_stands_beside_is_learned_at_once():
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
        losses[start] = float(loss)
    assert losses["local_attention"] < 0.5
    assert losses["random"] > 2.0


def test_heads_of_odd_width_are_refused():
    with pytest.raises(ConfigError, match="start='local_attention' needs an even width of a head, got 15 / 3"):
        bert(hidden_size=15, heads=3)
    assert bert(hidden_size=15, heads=3, start="random").hidden_size == 15
    with pytest.raises(ConfigError, match="start must be one of local_attention, random, got 'even'"):
        bert(start="even")
