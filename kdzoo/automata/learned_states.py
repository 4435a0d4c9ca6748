"""States of a small recurrent network that learns to predict what a teacher predicts.

For teachers whose hidden vector does not sum up the past: a transformer looks back at it whenever it likes. What
the network has to keep in mind in order to agree with the teacher is a state as an automaton needs it.
"""

import torch
from torch import Tensor, nn

from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.core.batch import IGNORE

EMBEDDING, HIDDEN = 16, 48
STEPS, BATCH = 1000, 64
RATE, CLIP = 5e-3, 1.0


def learned_states(seen: TracedSequences, *, steps: int = STEPS, seed: int = 0) -> Tensor:
    """Return the states ``[N, H]`` of a gated recurrent unit that was taught the next-token distributions.

    Where they are not known it learns the tokens that were drawn.

    Args:
        seen: The strings of a teacher.
        steps: Steps of training, each on 64 strings.
        seed: Seed of the network and of the order of the strings.

    Example:
        >>> seen = TracedSequences.of([[0, 1], [1]], next_probs=torch.full((5, 3), 1 / 3))
        >>> learned_states(seen, steps=2).shape
        torch.Size([5, 48])
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        reader = _Reader(seen.vocab_size)
        _train(reader, seen, steps)
    return _states(reader, seen)


class _Reader(nn.Module):
    """A gated recurrent unit between an embedding and a linear layer."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, EMBEDDING)
        self.memory = nn.GRU(EMBEDDING, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, vocab_size)

    def forward(self, input: Tensor) -> Tensor:
        """Return the states ``[batch, time, H]`` after each prefix."""
        return self.memory(self.embedding(input))[0]


def _train(reader: _Reader, seen: TracedSequences, steps: int) -> None:
    """Lower the cross entropy between the teacher's distributions and the reader's."""
    optimizer = torch.optim.Adam(reader.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for numbers in _batches(len(seen.strings), steps):
        part = seen.select(numbers)
        inputs, valid = _inputs(part)
        said = reader.head(reader(inputs)[valid]).log_softmax(1)
        if part.next_probs is not None:
            loss = -(part.next_probs.to(said) * said).sum(1).mean()
        else:
            loss = nn.functional.nll_loss(said, part.symbols())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), CLIP)
        optimizer.step()
        schedule.step()


def _batches(n: int, steps: int) -> list[Tensor]:
    """Return numbers of strings for each step; every string once before any comes again."""
    size = min(BATCH, n)
    rounds = -(-steps * size // n)
    order = torch.cat([torch.randperm(n) for _ in range(rounds)])
    return list(order[: steps * size].split(size))


@torch.no_grad()
def _states(reader: _Reader, seen: TracedSequences) -> Tensor:
    """Return the reader's states at all points ``[N, H]``."""
    parts = []
    for numbers in torch.arange(len(seen.strings)).split(4 * BATCH):
        inputs, valid = _inputs(seen.select(numbers))
        parts.append(reader(inputs)[valid])
    return torch.cat(parts)


def _inputs(seen: TracedSequences) -> tuple[Tensor, Tensor]:
    """Return the padded strings ``[batch, time]``, and which of their places are points, bool ``[batch, time]``."""
    inputs, targets = seen.strings.inputs_and_targets(seen.vocab_size)
    return inputs, targets != IGNORE
