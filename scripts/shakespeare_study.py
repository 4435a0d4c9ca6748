"""A character language model of tiny Shakespeare into an automaton of 256 states, against k-means + counts + EM.

Every automaton learns from the same million characters that the teacher wrote, with the same number of steps of
expectation maximisation, and is measured in bits per character on the last 5 % of the real text.
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
from automata_common import remember, sample_and_trace, teacher_of

from kdzoo.automata import PFA, TracedSequences
from kdzoo.automata.baum_welch import baum_welch, prefix_trees_for
from kdzoo.automata.clustering import kmeans_labels
from kdzoo.automata.counts import count
from kdzoo.automata.ngram import ngram
from kdzoo.core.batch import IGNORE
from kdzoo.data import TinyShakespeare
from kdzoo.text.language_model import LanguageModel, trace
from kdzoo.text.token_sequences import TokenSequences

CHUNK = 128
PSEUDOCOUNT = 0.01


def endless(pfa: PFA) -> PFA:
    """Return the automaton given that no string ends: pieces of a text have no ends to predict."""
    going = 1 - pfa.stop
    return PFA.from_parameters(pfa.initial, pfa.transitions / going[:, None], torch.zeros_like(pfa.stop))


def bits_per_character(model: LanguageModel, text: TokenSequences, batch: int = 64) -> float:
    """Return the mean of -log2 P(character | piece so far); a symbol for the end is left out of account."""
    total, n = 0.0, 0
    for numbers in torch.arange(len(text)).split(batch):
        inputs, targets = text.select(numbers).inputs_and_targets(model.vocab_size)
        said = trace(model, inputs).log_probs[..., :-1].double()
        said = said - said.logsumexp(-1, keepdim=True)
        is_character = (targets != IGNORE) & (targets != model.vocab_size - 1)
        total -= float(said[is_character].gather(1, targets[is_character][:, None]).sum())
        n += int(is_character.sum())
    return total / n / math.log(2)


def kl_from_teacher(teacher: LanguageModel, model: LanguageModel, text: TokenSequences, batch: int = 64) -> float:
    """Return the mean KL(teacher || model) of the next character over all places of the teacher's text, nats."""
    total, n = 0.0, 0
    for numbers in torch.arange(len(text)).split(batch):
        inputs, targets = text.select(numbers).inputs_and_targets(model.vocab_size)
        p, q = (trace(one, inputs).log_probs[..., :-1].double().log_softmax(-1) for one in (teacher, model))
        valid = (targets != IGNORE) & (targets != model.vocab_size - 1)
        total += float((p.exp() * (p - q)).sum(-1)[valid].sum())
        n += int(valid.sum())
    return total / n


def automaton(
    seen: TracedSequences,
    held: TracedSequences,
    *,
    states: int,
    features: str,
    soft: bool,
    dense: bool,
    steps: int,
    seed: int,
) -> PFA:
    """Return the automaton of k-means, counts and so many steps of expectation maximisation.

    A dense start has a weight of 0.001 on every transition, so that maximisation can find those that were not drawn.
    """
    labels = kmeans_labels(seen.features(features), states, seed=seed)
    counted = count(seen, labels, n_clusters=states, soft=soft)
    if dense:
        counted = replace(counted, transitions=counted.transitions + 1e-3)
    start = counted.to_pfa(PSEUDOCOUNT)
    if not steps:
        return endless(start)
    trees, checked = (prefix_trees_for(one, states, soft=soft) for one in (seen, held))
    run = baum_welch(
        start, trees, held_out=checked, max_iter=steps, patience=steps, pseudocount=PSEUDOCOUNT, dtype=torch.float32
    )
    return endless(run.pfa)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--states", type=int, default=256)
    arguments.add_argument("--strings", type=int, default=8000, help="pieces of 128 characters that the teacher writes")
    arguments.add_argument("--steps", type=int, default=5, help="of expectation maximisation")
    arguments.add_argument("--epochs", type=int, default=12, help="of the teacher")
    arguments.add_argument("--results", type=Path, default=Path("outputs/cache/studies/shakespeare.json"))
    arguments.add_argument("--table", type=Path, default=Path(__file__).parent / "results" / "shakespeare.md")
    given = arguments.parse_args()
    data = TinyShakespeare(seed=0)
    data.prepare_data()
    data.setup("fit")
    node = {"_target_": "kdzoo.models.RNNLM", "vocab_size": data.sizes["vocab_size"], "embedding": 64, "hidden": 256}
    teacher: Any = teacher_of(data, node, name="shakespeare-gru256", epochs=given.epochs, lr=3e-3)
    seen = sample_and_trace(teacher, given.strings, seed=0, max_length=CHUNK)
    held = sample_and_trace(teacher, 400, seed=1, max_length=CHUNK)
    written = sample_and_trace(teacher, 400, seed=2, max_length=CHUNK).strings
    test = data.corpus.test

    def measured(build: Callable[[], Any]) -> Callable[[], dict[str, float]]:
        def measure() -> dict[str, float]:
            started = time.process_time()
            model = build()
            seconds = time.process_time() - started
            size = getattr(model, "n_parameters", None) or sum(one.numel() for one in model.parameters())
            return {
                "bits": bits_per_character(model, test),
                "kl": kl_from_teacher(teacher, model, written),
                "parameters": size,
                "seconds": seconds,
            }

        return measure

    def fitted(features: str, soft: bool, steps: int, dense: bool = False) -> Callable[[], PFA]:
        how: dict[str, Any] = {"features": features, "soft": soft, "dense": dense, "steps": steps}
        return lambda: automaton(seen, held, states=given.states, seed=0, **how)

    rows: dict[str, Callable[[], Any]] = {"teacher, GRU of 256 units": lambda: teacher}
    for order in (2, 3, 4, 5):
        rows[f"{order}-gram"] = lambda order=order: ngram(seen.strings, order, seen.vocab_size)
    recipes = {"k-means[h], counts": ("hidden", False), "k-means[h; sqrt y], soft labels": ("both", True)}
    rows["k-means[h; sqrt y], counts"] = fitted("both", False, 0)
    rows["k-means[sqrt y], soft labels"] = fitted("sqrt_probs", True, 0)
    for name, (features, soft) in recipes.items():
        rows[name] = fitted(features, soft, 0)
    for name, (features, soft) in recipes.items():
        rows[f"{name}, dense, {given.steps} EM steps"] = fitted(features, soft, given.steps, dense=True)
    found = {
        name: remember(given.results, f"{name} / {given.states} / {given.strings}", measured(build))
        for name, build in rows.items()
    }
    lines = [
        f"# Tiny Shakespeare, {given.states} states",
        "",
        f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, one thread, one seed. "
        f"{given.strings:,} pieces of {CHUNK} characters that the teacher wrote.",
        "",
        "| model | parameters | bits per character | KL from the teacher, nats | CPU s |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, one in found.items():
        lines.append(f"| {name} | {one['parameters']:,} | {one['bits']:.3f} | {one['kl']:.3f} | {one['seconds']:.0f} |")
    given.table.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
