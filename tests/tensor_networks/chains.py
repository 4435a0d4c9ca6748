"""Chains of many shapes for the tests of the engines, and their contraction by the definition."""

import torch

from kdzoo.tensor_networks import make_layout

CHAINS = {
    "even": ((1, 2, 4, 4), (1, 2, 4, 4), 2, 5),
    "uneven": ((1, 3, 2, 5, 7), (1, 2), 3, 37),
    "wide": ((4, 4, 4, 4, 4, 4), (4, 4, 4, 4), 2, 16),
    "one_sided": ((1,), (1, 3, 3, 3, 2), 2, 3),
    "long": ((1, 2, *(3,) * 40), (1, 2, *(3,) * 35), 2, 7),
    "tiles": ((1, 9, 17, 8), (1, *(11,) * 20), 4, 33),
    "large": ((1, 3, 13, 16, 10), (1, 24, 24, 6), 3, 130),
    "one_feature": ((1, 2, 2), (1, 2), 1, 2),
}


def chain(name, dtype=torch.float64, scale=0.5):
    left, right, d, samples = CHAINS[name]
    plan = make_layout(d, left, right)
    generator = torch.Generator().manual_seed(len(name))
    shapes = [(plan.n_sites, d, samples), (plan.n_cores,), (left[0], samples), (right[0], samples)]
    factors = [1, scale, 1, 1]
    made = [f * torch.randn(*s, generator=generator, dtype=torch.float64) for s, f in zip(shapes, factors, strict=True)]
    return plan, [one.to(dtype).requires_grad_() for one in made]


def definition(plan, phi, cores, left, right):
    """Multiply the matrices of every sample one after the other, core by core as the layout's text says."""
    ends = []
    for side, start in enumerate((left, right)):
        states = []
        for b in range(phi.shape[2]):
            state = start[:, b]
            for step in range(len(plan.sides[side]) - 1):
                at = plan.cores[side][step]
                d, n_in, n_out = plan.d, plan.sides[side][step], plan.sides[side][step + 1]
                core = cores[at : at + d * n_in * n_out].reshape(d, n_in, n_out)
                matrix = sum(phi[plan.sites[side][step], k, b] * core[k] for k in range(d))
                state = state @ matrix
            states.append(state)
        ends.append(torch.stack(states, 1))
    return ends
