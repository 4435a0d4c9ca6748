"""All strings of a small language model with their probabilities, computed symbol by symbol."""

import itertools

import torch

from kdzoo.models import RNNLM

TOKENS, LENGTH = 3, 3
END = TOKENS


def small_model(seed=0):
    """Return a language model over three tokens in float64, whose distribution is far from uniform."""
    torch.manual_seed(seed)
    model = RNNLM(vocab_size=TOKENS + 1, embedding=3, hidden=3, cell="lstm").double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2
    return model


def all_strings():
    """Return all strings of at most three tokens, with the end symbol repeated, ``[n, 3]``."""
    rows = itertools.product(range(TOKENS + 1), repeat=LENGTH)
    is_valid = lambda row: all(b == END for a, b in itertools.pairwise(row) if a == END)  # noqa: E731
    return torch.tensor([row for row in rows if is_valid(row)])


def log_probs_of_symbols(model, strings):
    """Return the log-probability of each symbol given those before it, 0 after the end; ``[n, 3]``."""
    rows = []
    for string in strings.tolist():
        state, values = model.initial_state(1), []
        for t, symbol in enumerate(string):
            if t and string[t - 1] == END:
                values.append(torch.zeros((), dtype=torch.float64))
                continue
            values.append(model.next_log_probs(state)[0, symbol])
            if symbol != END:
                state = model.step(state, torch.tensor([symbol]))
        rows.append(torch.stack(values))
    return torch.stack(rows)
