"""What is written and read again has the same strings with the same probabilities, in every format."""

import pytest
import torch

from kdzoo.automata.exchange import (
    from_hmm,
    from_markov_chain,
    read_dot,
    read_json,
    read_model,
    read_openfst,
    to_hmm,
    to_markov_chain,
    write_dot,
    write_json,
    write_model,
    write_openfst,
)
from tests.automata.exchange.common import AUTOMATA, assert_same_strings


def by_file(write, read, **options):
    def there_and_back(pfa, folder):
        write(pfa, folder / "automaton")
        return read(folder / "automaton", **{name: getattr(pfa, key) for name, key in options.items()})

    return there_and_back


def by_aalpy(pfa, folder):
    pytest.importorskip("aalpy")
    return from_markov_chain(to_markov_chain(pfa), pfa.n_tokens)


FORMATS = {
    "json": by_file(write_json, read_json),
    "dot": by_file(write_dot, read_dot),
    "pautomac": by_file(write_model, read_model, n_tokens="n_tokens"),
    "openfst": by_file(write_openfst, read_openfst, n_tokens="n_tokens"),
    "aalpy": by_aalpy,
    "hmmlearn": lambda pfa, folder: from_hmm(*to_hmm(pfa)),
}


@pytest.mark.parametrize("automaton", AUTOMATA)
@pytest.mark.parametrize("name", FORMATS)
def test_there_and_back(name, automaton, tmp_path):
    pfa = AUTOMATA[automaton]
    again = FORMATS[name](pfa, tmp_path)
    assert again.n_tokens == pfa.n_tokens
    assert_same_strings(pfa, again)
    if name in ("json", "dot"):
        assert torch.equal(again.transitions, pfa.transitions)
        assert torch.equal(again.initial, pfa.initial)
    if name in ("json", "dot", "pautomac", "openfst"):
        assert again.states == pfa.states
        torch.testing.assert_close(again.stop, pfa.stop, rtol=1e-12, atol=0)


@pytest.mark.parametrize("read", [read_json, read_dot, read_model, read_openfst])
def test_a_missing_file_is_named(read, tmp_path):
    with pytest.raises(ValueError, match="absent does not exist; allowed: a"):
        read(tmp_path / "absent")
