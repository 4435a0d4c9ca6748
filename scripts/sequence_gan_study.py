"""SeqGAN's oracle task: what the game adds to maximum likelihood, and what lowering the temperature does.

    python scripts/sequence_gan_study.py [--folder outputs/sequence_gan_study] [--oracles 5]

Finished runs are not repeated. The table is written to scripts/results/sequence_gan.md.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_common import markdown_table, publish
from torch import Tensor, nn

import kdzoo
from kdzoo.config import instantiate, packaged_targets, to_container
from kdzoo.kinds import LanguageModelKind
from kdzoo.models import RNNLM

TEMPERATURES = (0.9, 0.8, 0.7, 0.6, 0.5)
EPOCHS, BATCH, STRINGS = 2, 32, 10_000
COMMON = [
    f"data=oracle_lstm data.n_train={STRINGS} data.batch_size={BATCH}",
    f"student=rnn_lm student.cell=lstm student.hidden=32 trainer.max_epochs={EPOCHS} optimizer.lr=0.01 seed=0",
]
GAME = [
    "distiller=sequence_gan distiller.warmup=0.7 distiller.discriminator_warmup=0.1 distiller.rollouts=2",
    "distiller.opponent_steps=2 distiller.opponent_lr=0.3",
]
DISTILLED = [
    "distiller=logit_kd teacher=oracle_lstm distiller.temperature=1 control=false",
    "distiller.loss_weights.soft=1 distiller.loss_weights.hard=0",
]
Scores = dict[str, dict[str, float]]
"""``oracle_nll`` and ``test_nll`` of each model by its name."""


class Tempered(nn.Module):
    """A language model whose next symbols are drawn at a temperature.

    Args:
        model: The language model.
        temperature: Temperature > 0; below 1 likely symbols become more likely.
    """

    def __init__(self, model: Any, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature, self.vocab_size = model, temperature, model.vocab_size
        self.initial_state, self.step, self.hidden = model.initial_state, model.step, model.hidden

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits ``[batch, length, V]``."""
        return self.model(input) / self.temperature

    def next_log_probs(self, state: Any) -> Tensor:
        """Return the log-probabilities ``[n, V]`` of the next symbol."""
        return (self.model.next_log_probs(state) / self.temperature).log_softmax(-1)


def run(folder: Path, target_seed: int, name: str, settings: Sequence[str]) -> Any:
    """Return the result of a run on one oracle, which is made unless it is in the folder."""
    words = [word for line in (*settings, *COMMON) for word in line.split()]
    places = [f"output_dir={folder / name}", f"cache_dir={folder / 'cache'}"]
    return kdzoo.run(kdzoo.compose(*words, f"data.target_seed={target_seed}", *places))


def measure(folder: Path, target_seed: int) -> Scores:
    """Return the scores of all models on one oracle."""
    game, distilled = (
        run(folder, target_seed, f"{name}_{target_seed}", settings)
        for name, settings in (("game", GAME), ("distilled", DISTILLED))
    )
    cfg = kdzoo.compose("seed=0", *COMMON[0].split(), f"data.target_seed={target_seed}")
    data = instantiate(to_container(cfg.data), allow=packaged_targets())
    data.setup()
    likelihood = kdzoo.load_student(folder / f"game_{target_seed}" / "seed_0" / "control")
    torch.manual_seed(target_seed)
    models: dict[str, nn.Module] = {
        "untrained": RNNLM(vocab_size=data.oracle.vocab_size, cell="lstm", hidden=32),
        "maximum likelihood": likelihood,
        **{f"maximum likelihood, temperature {t}": Tempered(likelihood, t) for t in TEMPERATURES},
        "SeqGAN": game.load_student(),
        "distilled from the oracle": distilled.load_student(),
        "the oracle": data.oracle,
    }
    kind, batches = LanguageModelKind().bind(data, folder), list(data.test_dataloader())
    scores = {name: kind.metrics(kind.predict(model, batches)) for name, model in models.items()}
    return {name: {metric: values[metric] for metric in ("oracle_nll", "test_nll")} for name, values in scores.items()}


def stored(folder: Path, target_seed: int) -> Scores:
    """Return the scores on one oracle, from a file if they have been measured before."""
    path = folder / f"scores_{target_seed}.json"
    if not path.exists():
        scores = measure(folder, target_seed)
        path.write_text(json.dumps(scores))
    return json.loads(path.read_text())


def rows(scores: Sequence[Mapping[str, Mapping[str, float]]]) -> list[list[str]]:
    """Return the rows of the table: mean and deviation over the oracles."""
    return [
        [name, *(cell([of_oracle[name][metric] for of_oracle in scores]) for metric in ("oracle_nll", "test_nll"))]
        for name in scores[0]
    ]


def cell(values: Sequence[float]) -> str:
    """Return mean and deviation."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/sequence_gan_study"))
    parser.add_argument("--oracles", type=int, default=5, help="number of oracles")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    scores = [stored(options.folder, target_seed) for target_seed in range(options.oracles)]
    steps = EPOCHS * -(-STRINGS // BATCH)
    publish(
        "sequence_gan",
        "SeqGAN's oracle task",
        f"{options.oracles} oracles (LSTMs of 32 units with weights from N(0, 1), 5,000 tokens, strings of 20), "
        "one seed each; mean and deviation over the oracles, in nats per token. Oracle NLL is that of 500 generated "
        "strings under the oracle, test NLL that of 500 strings of the oracle under the model. All trained models are "
        f"LSTMs of 32 units, trained for {steps} steps of {BATCH} strings.",
        markdown_table(["model", "oracle NLL", "test NLL"], rows(scores)),
        f"All have {STRINGS:,} training strings, as in the paper, which has thousands of steps, here {steps}, and 16 "
        "rollouts of a prefix, here 2. It publishes oracle NLLs of 10.31 without training, 9.04 by maximum likelihood "
        "and 8.74 by SeqGAN, on another oracle. The distilled model sees the oracle's distribution after every prefix, "
        "the others see strings only.",
    )


if __name__ == "__main__":
    main()
