"""Automata of every kind, the comparison of two by their strings, and files with given text."""

import torch

from kdzoo.automata.pfa import PFA
from kdzoo.automata.targets import embedded_reber, random_hmm, random_pdfa, random_pnfa, tomita, uhl
from kdzoo.text.token_sequences import TokenSequences

AUTOMATA = {
    "reber": embedded_reber(),
    "tomita": tomita(3),
    "uhl": uhl(2),
    "pdfa": random_pdfa(12, 6, seed=3),
    "pnfa": random_pnfa(9, 5, seed=3),
    "hmm": random_hmm(9, 5, seed=2),
    "all stop": PFA.from_parameters(torch.tensor([0.25, 0.75]), torch.zeros(2, 2, 2), torch.ones(2)),
    "an unused token": PFA.from_parameters(torch.ones(1), torch.tensor([[[0.5]], [[0.0]]]), torch.tensor([0.5])),
}


def strings_for(pfa):
    """Likely strings, and some that are mostly impossible."""
    generator = torch.Generator().manual_seed(0)
    wild = [torch.randint(pfa.n_tokens, (n,), generator=generator) for n in range(6)]
    return TokenSequences.cat([pfa.sample(100, seed=0, max_length=400), TokenSequences.of(wild)])


def assert_same_strings(first, second):
    """Assert that log-probabilities agree to 1e-9 and the same strings are impossible."""
    strings = strings_for(first)
    torch.testing.assert_close(second.log_prob(strings), first.log_prob(strings), rtol=0, atol=1e-9)


def written(folder, text):
    """Return the path of a new file with that text."""
    path = folder / "file"
    path.write_text(text)
    return path
