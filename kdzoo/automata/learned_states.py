"""States of a small recurrent network that learns a teacher's predictions.

They replace the hidden states of teachers whose hidden state does not summarise the past: a transformer can attend to
an earlier token at any step, so the hidden states between may lack it. A recurrent network has to keep in its state
everything that later predictions depend on, and that is what the state of an automaton has to be.

Notation: N prefixes, H units, V symbols.
"""

import torch
from torch import Tensor, nn

from kdzoo.automata.traced_sequences import TracedSequences
from kdzoo.core.batch import IGNORE

# A small network is enough, since its states are only clustered: 48 units learn the embedded Reber grammar, and
# training takes about ten seconds on one core. The peak of the learning rate and the limit of the gradient norm are
# usual values for Adam and recurrent networks.
EMBEDDING_SIZE, HIDDEN_SIZE = 16, 48
STEPS, BATCH_SIZE = 1000, 64
LEARNING_RATE, MAX_GRAD_NORM = 5e-3, 1.0


def learned_states(traced: TracedSequences, *, steps: int = STEPS, seed: int = 0) -> Tensor:
    """Return the states of a gated recurrent unit that was trained on the teacher's next-token distributions.

    If ``traced`` has no distributions, the network is trained on the sampled tokens.

    Args:
        traced: The strings of a teacher.
        steps: Number of training steps, each on at most 64 strings.
        seed: Seed of the network and of the order of the strings; the global random generator of torch is not changed.

    Returns:
        The states after each prefix ``[N, H]``, H = 48.

    Example:
        >>> traced = TracedSequences.of([[0, 1], [1]], next_probs=torch.full((5, 3), 1 / 3))
        >>> learned_states(traced, steps=2).shape
        torch.Size([5, 48])
    """
    # Distillation may run under no_grad, and its own random draws must not depend on this network.
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        network = _Network(traced.vocab_size)
        _train(network, traced, steps)
    return _states(network, traced)


class _Network(nn.Module):
    """A gated recurrent unit between an embedding and a linear layer."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, EMBEDDING_SIZE)
        self.gru = nn.GRU(EMBEDDING_SIZE, HIDDEN_SIZE, batch_first=True)
        self.head = nn.Linear(HIDDEN_SIZE, vocab_size)

    def forward(self, input: Tensor) -> Tensor:
        """Return the states ``[batch, time, H]`` after each prefix of the strings ``[batch, time]``."""
        return self.gru(self.embedding(input))[0]


def _train(network: _Network, traced: TracedSequences, steps: int) -> None:
    """Minimise the cross entropy between the teacher's distributions (or the tokens) and the network's predictions."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for index in _batches(len(traced.strings), steps):
        batch = traced.select(index)
        inputs, valid = _inputs(batch)
        log_probs = network.head(network(inputs)[valid]).log_softmax(1)
        if batch.next_probs is not None:
            loss = -(batch.next_probs.to(log_probs) * log_probs).sum(1).mean()
        else:
            loss = nn.functional.nll_loss(log_probs, batch.symbols())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()


def _batches(n: int, steps: int) -> list[Tensor]:
    """Return the indices of the strings for each step; all n strings are used once before any is used again."""
    size = min(BATCH_SIZE, n)
    n_epochs = -(-steps * size // n)  # rounded up
    order = torch.cat([torch.randperm(n) for _ in range(n_epochs)])
    return list(order[: steps * size].split(size))


@torch.no_grad()
def _states(network: _Network, traced: TracedSequences) -> Tensor:
    """Return the network's states after all prefixes ``[N, H]``."""
    states = []
    # Larger batches than in training, since no activations are stored for a backward pass.
    for index in torch.arange(len(traced.strings)).split(4 * BATCH_SIZE):
        inputs, valid = _inputs(traced.select(index))
        states.append(network(inputs)[valid])
    return torch.cat(states)


def _inputs(traced: TracedSequences) -> tuple[Tensor, Tensor]:
    """Return the padded strings and a mask of the positions that hold a target (bool), both ``[batch, time]``."""
    inputs, targets = traced.strings.inputs_and_targets(traced.vocab_size)
    return inputs, targets != IGNORE
