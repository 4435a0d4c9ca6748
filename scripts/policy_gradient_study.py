"""The variance of SeqGAN's policy gradient: what a baseline and rollouts take away from it.

    python scripts/policy_gradient_study.py [--batches 200]

The student is an LSTM over three tokens, whose strings have at most three, with a discriminator that tells strings
apart, both with random weights, in float64. The table is written to scripts/results/policy_gradient.md.
"""

import argparse

import torch
from bench_common import markdown_table, publish
from torch import Tensor

from kdzoo.distillers import SequenceGAN
from kdzoo.distillers.generative.sequence_gan import BASELINES
from kdzoo.models import RNNLM

TOKENS, LENGTH, ROWS, ROLLOUTS = 3, 3, 20, (0, 4)
FITTING_STEPS = 200


def real_strings() -> dict[str, Tensor]:
    """Return equal strings as a batch; the gradient of the student does not depend on them."""
    batch = {"input": torch.tensor([[TOKENS, 0, 1, 2]]), "target": torch.tensor([[0, 1, 2, TOKENS]])}
    return {name: value.expand(ROWS, -1) for name, value in batch.items()}


def make_game(baseline: str, rollouts: int) -> SequenceGAN:
    """Return the method with networks far from their initial, almost uniform distributions."""
    torch.manual_seed(0)
    student = RNNLM(vocab_size=TOKENS + 1, embedding=3, hidden=3, cell="lstm")
    game = SequenceGAN(student, max_length=LENGTH, baseline=baseline, rollouts=rollouts, width=4)
    game.prepare(real_strings())
    with torch.no_grad():
        for parameter in (*student.parameters(), *game.discriminator.parameters()):
            parameter *= 2
    game.double()
    if game.value is not None:
        optimizer = torch.optim.Adam(game.value.parameters(), lr=0.1)
        for _ in range(FITTING_STEPS):
            optimizer.zero_grad()
            game.losses(real_strings())["baseline"].mean().backward()
            optimizer.step()
    return game


def variance(game: SequenceGAN, batches: int) -> float:
    """Return the total variance of the gradient with respect to the student's weights, over batches."""
    torch.manual_seed(1)
    weights = list(game.student.parameters())
    gradients = []
    for _ in range(batches):
        objective = game.losses(real_strings())["generator"].mean()
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(objective, weights)]))
    return float(torch.stack(gradients).var(0).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=200, help="number of gradients")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        [f"`{baseline}`", *(f"{variance(make_game(baseline, k), options.batches):.4f}" for k in ROLLOUTS)]
        for baseline in BASELINES
    ]
    publish(
        "policy_gradient",
        "Variance of the policy gradient",
        f"Total variance of the gradient over {options.batches} batches of {ROWS} strings, two generated for each, of "
        f"an LSTM over {TOKENS} tokens and strings of at most {LENGTH}. The learned baseline was fitted for "
        f"{FITTING_STEPS} steps before.",
        markdown_table(["`distiller.baseline`", *(f"{k} rollouts" for k in ROLLOUTS)], rows),
    )


if __name__ == "__main__":
    main()
