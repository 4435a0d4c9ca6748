"""Functions applied block by block are the same functions."""

import inspect

import torch

from kdzoo.functional.blocks import BLOCK, by_rows, with_known_signature


def test_blocks_are_put_together_in_order():
    logits = torch.arange(21 * 6000).reshape(3, 7, 6000).float()  # a block has room for five of these rows
    keys = torch.arange(21).reshape(3, 7)
    sizes = []

    def function(rows, key):
        sizes.append(rows.shape[-1] * len(rows.reshape(-1, rows.shape[-1])))
        return rows.sum(-1), key.unsqueeze(-1) + rows[..., :2]

    total, shifted = by_rows(function, logits, keys)
    assert len(sizes) == 5
    assert max(sizes) <= BLOCK
    torch.testing.assert_close(total, logits.sum(-1))
    torch.testing.assert_close(shifted, keys.unsqueeze(-1) + logits[..., :2])


def test_a_known_signature_is_the_signature():
    @with_known_signature
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(x, factor=2.0):
            return factor * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.factor = inputs[1]

        @staticmethod
        def backward(ctx, grad):
            return ctx.factor * grad, None

    x = torch.ones(2, requires_grad=True)
    Twice.apply(x).sum().backward()
    assert x.grad.tolist() == [2, 2]
    assert list(inspect.signature(Twice.forward).parameters) == ["x", "factor"]
