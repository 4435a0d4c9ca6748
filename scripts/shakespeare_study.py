"""Automata of 256 states from a character language model of tiny Shakespeare, by k-means, counts and EM; n-grams.

    python scripts/shakespeare_study.py [--states 256] [--strings 8000] [--steps 5]

Every automaton learns from the same million characters sampled from the teacher, and is evaluated in bits per character
on the last 5 % of the real text. Those that are refined by expectation maximisation take the same number of steps.
"""

import argparse
import math
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from automata_common import load_or_compute, load_or_train_teacher, sample_and_trace

from kdzoo.automata import PFA, TracedSequences
from kdzoo.automata.baum_welch import baum_welch, prefix_trees_for
from kdzoo.automata.clustering import kmeans_labels
from kdzoo.automata.counts import count
from kdzoo.automata.ngram import ngram
from kdzoo.core.batch import IGNORE
from kdzoo.data import TinyShakespeare
from kdzoo.text.language_model import LanguageModel, trace
from kdzoo.text.token_sequences import TokenSequences

PIECE_LENGTH = 128
PSEUDOCOUNT = 0.01


def without_end(pfa: PFA) -> PFA:
    """Return the automaton conditioned on strings that do not end, since pieces of a text have no end to predict."""
    not_stopping = 1 - pfa.stop
    return PFA.from_parameters(pfa.initial, pfa.transitions / not_stopping[:, None], torch.zeros_like(pfa.stop))


def bits_per_character(model: LanguageModel, text: TokenSequences, batch: int = 64) -> float:
    """Return the mean of -log2 P(character | preceding characters of the piece), without the end symbol."""
    total, n_characters = 0.0, 0
    for rows in torch.arange(len(text)).split(batch):
        inputs, targets = text.select(rows).inputs_and_targets(model.vocab_size)
        log_probs = trace(model, inputs).log_probs[..., :-1].double()
        log_probs = log_probs - log_probs.logsumexp(-1, keepdim=True)
        is_character = (targets != IGNORE) & (targets != model.vocab_size - 1)
        total -= float(log_probs[is_character].gather(1, targets[is_character][:, None]).sum())
        n_characters += int(is_character.sum())
    return total / n_characters / math.log(2)


def kl_from_teacher(teacher: LanguageModel, model: LanguageModel, text: TokenSequences, batch: int = 64) -> float:
    """Return the mean KL(teacher || model) of the next character over all positions of the text, in nats."""
    total, n_characters = 0.0, 0
    for rows in torch.arange(len(text)).split(batch):
        inputs, targets = text.select(rows).inputs_and_targets(model.vocab_size)
        p, q = (
            trace(language_model, inputs).log_probs[..., :-1].double().log_softmax(-1)
            for language_model in (teacher, model)
        )
        valid = (targets != IGNORE) & (targets != model.vocab_size - 1)
        total += float((p.exp() * (p - q)).sum(-1)[valid].sum())
        n_characters += int(valid.sum())
    return total / n_characters


def fit_automaton(
    traced: TracedSequences,
    held_out: TracedSequences,
    *,
    states: int,
    features: str,
    soft: bool,
    dense: bool,
    steps: int,
    seed: int,
) -> PFA:
    """Return the automaton of k-means, transition counts and ``steps`` steps of expectation maximisation.

    If ``dense``, every transition starts with a count of at least 0.001, so that expectation maximisation can raise
    transitions that were not sampled.
    """
    labels = kmeans_labels(traced.features(features), states, seed=seed)
    counts = count(traced, labels, n_clusters=states, soft=soft)
    if dense:
        counts = replace(counts, transitions=counts.transitions + 1e-3)
    start = counts.to_pfa(PSEUDOCOUNT)
    if not steps:
        return without_end(start)
    prefix_trees, held_out_trees = (prefix_trees_for(strings, states, soft=soft) for strings in (traced, held_out))
    result = baum_welch(
        start,
        prefix_trees,
        held_out=held_out_trees,
        max_iter=steps,
        patience=steps,
        pseudocount=PSEUDOCOUNT,
        dtype=torch.float32,
    )
    return without_end(result.pfa)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=256, help="states of the automata")
    parser.add_argument("--strings", type=int, default=8000, help="pieces of 128 characters sampled from the teacher")
    parser.add_argument("--steps", type=int, default=5, help="steps of expectation maximisation")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of the teacher")
    parser.add_argument(
        "--results", type=Path, default=Path("outputs/cache/studies/shakespeare.json"), help="file of the results"
    )
    parser.add_argument(
        "--table", type=Path, default=Path(__file__).parent / "results" / "shakespeare.md", help="file to write"
    )
    options = parser.parse_args()
    data = TinyShakespeare(seed=0)
    data.prepare_data()
    data.setup("fit")
    model_config = {
        "_target_": "kdzoo.models.RNNLM",
        "vocab_size": data.sizes["vocab_size"],
        "embedding": 64,
        "hidden": 256,
    }
    teacher: Any = load_or_train_teacher(data, model_config, name="shakespeare-gru256", epochs=options.epochs, lr=3e-3)
    traced = sample_and_trace(teacher, options.strings, seed=0, max_length=PIECE_LENGTH)
    held_out = sample_and_trace(teacher, 400, seed=1, max_length=PIECE_LENGTH)
    evaluation_strings = sample_and_trace(teacher, 400, seed=2, max_length=PIECE_LENGTH).strings
    test = data.corpus.test

    def make_measurement(make_model: Callable[[], Any]) -> Callable[[], dict[str, float]]:
        def measure_model() -> dict[str, float]:
            started = time.process_time()
            model = make_model()
            seconds = time.process_time() - started
            n_parameters = getattr(model, "n_parameters", None) or sum(
                parameter.numel() for parameter in model.parameters()
            )
            return {
                "bits": bits_per_character(model, test),
                "kl": kl_from_teacher(teacher, model, evaluation_strings),
                "parameters": n_parameters,
                "seconds": seconds,
            }

        return measure_model

    def make_fit(features: str, soft: bool, steps: int, dense: bool = False) -> Callable[[], PFA]:
        fit_options: dict[str, Any] = {"features": features, "soft": soft, "dense": dense, "steps": steps}
        return lambda: fit_automaton(traced, held_out, states=options.states, seed=0, **fit_options)

    models: dict[str, Callable[[], Any]] = {"teacher, GRU of 256 units": lambda: teacher}
    for order in (2, 3, 4, 5):
        models[f"{order}-gram"] = lambda order=order: ngram(traced.strings, order, traced.vocab_size)
    recipes = {"k-means[h], counts": ("hidden", False), "k-means[h; sqrt y], soft labels": ("both", True)}
    models["k-means[h; sqrt y], counts"] = make_fit("both", False, 0)
    models["k-means[sqrt y], soft labels"] = make_fit("sqrt_probs", True, 0)
    for name, (features, soft) in recipes.items():
        models[name] = make_fit(features, soft, 0)
    for name, (features, soft) in recipes.items():
        models[f"{name}, dense, {options.steps} EM steps"] = make_fit(features, soft, options.steps, dense=True)
    results = {
        name: load_or_compute(
            options.results, f"{name} / {options.states} / {options.strings}", make_measurement(make_model)
        )
        for name, make_model in models.items()
    }
    lines = [
        f"# Tiny Shakespeare, {options.states} states",
        "",
        f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, one thread, one seed. "
        f"{options.strings:,} pieces of {PIECE_LENGTH} characters that the teacher wrote.",
        "",
        "| model | parameters | bits per character | KL from the teacher, nats | CPU s |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, result in results.items():
        cells = [
            f"{result['parameters']:,}",
            f"{result['bits']:.3f}",
            f"{result['kl']:.3f}",
            f"{result['seconds']:.0f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    options.table.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
