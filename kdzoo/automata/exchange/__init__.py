"""Reading and writing of automata in the formats of other tools: PAutomaC, DOT, OpenFst, JSON, AALpy and HMMs."""

from kdzoo.automata.exchange.aalpy import from_aalpy_dfa, from_markov_chain, to_aalpy_dfa, to_markov_chain
from kdzoo.automata.exchange.dot import read_dot, to_dot, write_dot
from kdzoo.automata.exchange.hmmlearn import HMM, from_hmm, to_hmm
from kdzoo.automata.exchange.json import read_json, write_json
from kdzoo.automata.exchange.openfst import read_openfst, write_openfst
from kdzoo.automata.exchange.pautomac import (
    read_model,
    read_solution,
    read_strings,
    write_model,
    write_solution,
    write_strings,
)

__all__ = [
    "HMM",
    "from_aalpy_dfa",
    "from_hmm",
    "from_markov_chain",
    "read_dot",
    "read_json",
    "read_model",
    "read_openfst",
    "read_solution",
    "read_strings",
    "to_aalpy_dfa",
    "to_dot",
    "to_hmm",
    "to_markov_chain",
    "write_dot",
    "write_json",
    "write_model",
    "write_openfst",
    "write_solution",
    "write_strings",
]
