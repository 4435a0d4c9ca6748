"""Gradients through an inner training: CPU time and peak memory of each engine, of TorchOpt and of higher.

    pip install --no-deps --target peers torchopt higher optree
    python scripts/bench_unroll.py --peers peers [--rounds 5]

The peers are no dependency of kdzoo: they go to a folder of their own, and are left out where they are not found.
"""

import argparse
import functools
import importlib
import statistics
import sys
from collections.abc import Callable

import torch
from bench_common import (
    added_memory,
    cpu_seconds,
    in_fresh_process,
    in_turns,
    installed,
    publish,
    ratio,
    table,
    verdict,
)
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.functional import cross_entropy

from kdzoo.dataset_distillation import InnerNetwork
from kdzoo.functional.unroll import ENGINES, unroll
from kdzoo.models import ConvNet

IMAGES, STEPS, REAL, CLASSES, SIZE = 100, 100, 256, 10, 0.02
LONGER = 400
NETWORK = "Convolution 5 x 5 x 8, tanh, average pooling, 64 units, tanh, 10 outputs"
COUNTS, SHORTER = (4, 8), 20
PEERS = ("torchopt", "higher")
LESS = {"segments": 8, "jvp": 20}
SLOWER = {"segments": 1.25, "jvp": 1.8}
GROWTH, FASTER = 2.2, 1.4

Data = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Images and labels that are learned, step sizes, real images, their classes."""
Way = Callable[[Data], tuple[Tensor, ...]]
"""The derivatives of the outer loss with respect to images, labels and, but for TorchOpt, step sizes."""


def made(images: int, steps: int, real: int = REAL) -> Data:
    """Return noise of the shape of MNIST."""
    g = torch.Generator().manual_seed(0)
    x, z = (torch.randn(n, 1, 28, 28, generator=g) for n in (images, real))
    y = torch.eye(CLASSES)[torch.arange(images) % CLASSES]
    learned = [one.requires_grad_() for one in (x, y, torch.full((steps,), SIZE))]
    return learned[0], learned[1], learned[2], z, torch.arange(real) % CLASSES


def network() -> nn.Module:
    """Return the network, as NETWORK says."""
    shapes = {"in_shape": (1, 28, 28), "num_classes": CLASSES, "channels": [8], "hidden": 64}
    return ConvNet(kernel_size=5, padding="valid", activation="tanh", pooling="avg", **shapes)


@functools.cache
def inner_network() -> InnerNetwork:
    """Return the network as a function of its weights."""
    return InnerNetwork(network())


def start(count: int = 1) -> Tensor:
    """Return initial weights (K, P), always the same."""
    return inner_network().sample(count, torch.Generator().manual_seed(1))


def ours(data: Data, engine: str, weights: Tensor | None = None, vmapped: bool = False) -> tuple[Tensor, ...]:
    """Go there and back with an engine; the outer loss is the mean over the initialisations."""
    x, y, sizes, real, classes = data
    logits = vmap(inner_network()._single_logits, (0, None)) if vmapped else inner_network().logits

    def loss(weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return -(labels * logits(weights, images).log_softmax(-1)).sum() / len(images)

    weights = start() if weights is None else weights
    end = unroll(weights, x, y, sizes, loss=loss, engine=engine)
    outer = cross_entropy(logits(end, real).flatten(0, 1), classes.repeat(len(weights)))
    return torch.autograd.grad(outer, (x, y, sizes))


def started() -> nn.Module:
    """Return a network of its own with the initial weights."""
    module = network()
    module.load_state_dict(inner_network().state(start()[0]))
    return module


def inner(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the inner loss."""
    return -(labels * logits.log_softmax(-1)).sum(-1).mean()


def torchopt(data: Data) -> tuple[Tensor, ...]:
    """TorchOpt's differentiable descent, whose step size is a number."""
    x, y, sizes, real, classes = data
    module = started()
    optimizer = importlib.import_module("torchopt").MetaSGD(module, lr=SIZE)
    for _ in sizes:
        optimizer.step(inner(module(x), y))
    return torch.autograd.grad(cross_entropy(module(real), classes), (x, y))


def higher(data: Data) -> tuple[Tensor, ...]:
    """The differentiable optimiser of higher, with a step size for each step."""
    x, y, sizes, real, classes = data
    module = started()
    optimizer = torch.optim.SGD(module.parameters(), lr=SIZE)
    with importlib.import_module("higher").innerloop_ctx(module, optimizer) as (functional, differentiable):
        for size in sizes:
            differentiable.step(inner(functional(x), y), override={"lr": [size]})
        return torch.autograd.grad(cross_entropy(functional(real), classes), (x, y, sizes))


def ways() -> dict[str, Way]:
    """Return what is compared, the peers that are installed first."""
    found: dict[str, Way] = {}
    for name, way in (("torchopt", torchopt), ("higher", higher)):
        if importlib.util.find_spec(name):
            found[name] = way
    return found | {name: functools.partial(ours, engine=name) for name in ENGINES}


def apart(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Return the largest difference, each as a part of the largest number of its tensor."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=False))


def peak(way: str, steps: int, rounds: int, peers: str) -> float:
    """Return by how many MiB one way raises the memory of a fresh process at its peak, the median of some."""
    return in_fresh_process(["--peak", way, str(steps), "--peers", peers], rounds)


def print_peak(way: str, steps: str) -> None:
    """Print what `peak` asks for."""
    run = ways()[way]
    run(made(3, 2, real=4))  # what is loaded on first use, on so little data that none of its memory can serve again
    data = made(IMAGES, int(steps))
    print(added_memory(lambda: run(data)))


def engines(rounds: int, peers: str) -> tuple[str, dict[str, bool]]:
    """Return the table of the engines, and which of their targets are reached."""
    data, runs = made(IMAGES, STEPS), ways()
    exact = ours(data, "full")
    differences = {name: apart(run(data), exact) for name, run in runs.items()}
    times = in_turns(
        {name: functools.partial(cpu_seconds, lambda run=run: run(data)) for name, run in runs.items()}, rounds
    )
    peaks = {name: peak(name, STEPS, rounds, peers) for name in runs}
    others = [name for name in PEERS if name in runs]
    rows, reached = [], {}
    for name in runs:
        slower, less = ([ratio(times, name, other) for other in others], [peaks[one] / peaks[name] for one in others])
        median = f"{statistics.median(times[name]):.2f} ({min(times[name]):.2f} to {max(times[name]):.2f})"
        cells = [*(f"{one:.2f}" for one in slower), f"{peaks[name]:.1f}", *(f"{one:.1f}" for one in less)]
        rows.append([name, median, *cells, f"{differences[name]:.0e}"])
        if name in LESS and others:
            reached[f"{name} in {LESS[name]} times less memory"] = min(less) >= LESS[name]
            reached[f"{name} in at most {SLOWER[name]} times the time"] = max(slower) <= SLOWER[name]
    for name in ("segments", "reverse", "jvp"):
        growth = peak(name, LONGER, 1, peers) / peaks[name]
        rows.append([f"{name}, {LONGER} steps", *[""] * (1 + len(others)), f"{growth * peaks[name]:.1f}"])
        rows[-1] += [""] * (len(rows[0]) - len(rows[-1]))
        reached[f"{name} at {LONGER} steps in {GROWTH} times its memory at {STEPS}"] = growth <= GROWTH
    heads = ["", "CPU s (range)", *(f"/ {one}" for one in others), "peak, MiB"]
    return table([*heads, *(f"{one} /" for one in others), "from full"], rows), reached


def batches(rounds: int) -> tuple[str, dict[str, bool]]:
    """Return the table of many initialisations at once, and which of their targets are reached."""
    rows, reached = [], {}
    for images in (10, IMAGES):
        for count in COUNTS:
            data, weights = made(images, SHORTER), start(count)

            def loop(data: Data = data, weights: Tensor = weights) -> list[Tensor]:
                parts = [ours(data, "segments", one[None]) for one in weights]
                return [sum(part) / len(weights) for part in zip(*parts, strict=True)]

            at_once = {
                "loop": loop,
                "batched": functools.partial(ours, data, "segments", weights),
                "vmap": functools.partial(ours, data, "segments", weights, vmapped=True),
            }
            difference = apart(at_once["batched"](), loop())
            times = in_turns({name: functools.partial(cpu_seconds, run) for name, run in at_once.items()}, rounds)
            medians = [f"{statistics.median(times[name]):.2f}" for name in at_once]
            faster = [ratio(times, "loop", name) for name in ("batched", "vmap")]
            rows.append([images, count, *medians, *(f"{one:.2f}" for one in faster), f"{difference:.0e}"])
            reached[f"{count} at once on {images} images {FASTER} times faster"] = faster[0] >= FASTER
    heads = ["images", "K", "loop, CPU s", "batched", "vmap", "loop / batched", "loop / vmap", "apart"]
    return table(heads, rows), reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--peers", default="", help="folder that TorchOpt and higher are installed in")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.append(options.peers)
    if options.peak:
        return print_peak(*options.peak)
    first, reached = engines(options.rounds, options.peers)
    second, faster = batches(options.rounds)
    publish(
        "unroll",
        "Gradients through an inner training",
        f"{NETWORK}: {inner_network().n_weights:,} weights. {IMAGES} images, {STEPS} steps of gradient descent, an outer "
        f"loss of {REAL} images, float32. One thread, median of {options.rounds} rounds in turns; a "
        f"ratio is the median of those of the same round. A peak is what a fresh process adds at its peak, the median "
        f"of {options.rounds}. The last column is the largest difference of a derivative from full unrolling. "
        f"{installed(options.peers, PEERS)}; TorchOpt's step size is a number and gets no derivative.",
        first,
        verdict(reached),
        f"K initialisations at once, {SHORTER} steps by segments, against a loop of K single ones without "
        "`torch.func.vmap`. `batched` is what an inner network does: vmap, with the first convolution as a product of "
        "patches and kernels; the last columns but one compare it, and vmap alone, with the loop.",
        second,
        verdict(faster),
    )
    return None


if __name__ == "__main__":
    main()
