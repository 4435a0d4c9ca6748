"""Gradients through an inner training: CPU time and peak memory of each engine, of TorchOpt and of higher.

    pip install --no-deps --target peers torchopt higher optree
    python scripts/bench_unroll.py --peers peers [--rounds 5]

The peers are not dependencies of kdzoo: they are installed in a separate folder. Those that are missing are left out.
"""

import argparse
import functools
import importlib
import statistics
import sys
from collections.abc import Callable

import torch
from bench_common import (
    added_peak_memory,
    cpu_seconds,
    installed_versions,
    markdown_table,
    median_of_fresh_processes,
    median_ratio,
    publish,
    target_summary,
    time_in_turns,
)
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.functional import cross_entropy

from kdzoo.dataset_distillation import InnerNetwork
from kdzoo.functional.unroll import ENGINES, unroll
from kdzoo.models import ConvNet

IMAGES, STEPS, REAL_IMAGES, CLASSES, STEP_SIZE = 100, 100, 256, 10, 0.02
LONG_STEPS = 400
NETWORK = "Convolution 5 x 5 x 8, tanh, average pooling, 64 units, tanh, 10 outputs"
COUNTS, SHORT_STEPS = (4, 8), 20
PEERS = ("torchopt", "higher")
MIN_MEMORY_RATIO = {"segments": 8, "jvp": 20}
MAX_TIME_RATIO = {"segments": 1.25, "jvp": 1.8}
MAX_GROWTH, MIN_SPEEDUP = 2.2, 1.4

Data = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Learned images, labels and step sizes, then real images and their classes."""
OuterGradients = Callable[[Data], tuple[Tensor, ...]]
"""Returns the derivatives of the outer loss with respect to images, labels and, except for TorchOpt, step sizes."""


def make_data(images: int, steps: int, real: int = REAL_IMAGES) -> Data:
    """Return random data of the shape of MNIST."""
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(n, 1, 28, 28, generator=generator) for n in (images, real))
    y = torch.eye(CLASSES)[torch.arange(images) % CLASSES]
    learned = [tensor.requires_grad_() for tensor in (x, y, torch.full((steps,), STEP_SIZE))]
    return learned[0], learned[1], learned[2], z, torch.arange(real) % CLASSES


def make_network() -> nn.Module:
    """Return the network that NETWORK describes."""
    options = {"in_shape": (1, 28, 28), "num_classes": CLASSES, "channels": [8], "hidden": 64}
    return ConvNet(kernel_size=5, padding="valid", activation="tanh", pooling="avg", **options)


@functools.cache
def inner_network() -> InnerNetwork:
    """Return the network as a function of its weights."""
    return InnerNetwork(make_network())


def initial_weights(count: int = 1) -> Tensor:
    """Return K = ``count`` vectors of initial weights ``[K, P]`` with a fixed seed."""
    return inner_network().sample(count, torch.Generator().manual_seed(1))


def kdzoo_gradients(
    data: Data, engine: str, weights: Tensor | None = None, vmapped: bool = False
) -> tuple[Tensor, ...]:
    """Return the derivatives by an engine of kdzoo; the outer loss is the mean over the initialisations."""
    x, y, sizes, real, classes = data
    logits = vmap(inner_network()._single_logits, (0, None)) if vmapped else inner_network().logits

    def loss(weights: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return -(labels * logits(weights, images).log_softmax(-1)).sum() / len(images)

    weights = initial_weights() if weights is None else weights
    end = unroll(weights, x, y, sizes, loss=loss, engine=engine)
    outer = cross_entropy(logits(end, real).flatten(0, 1), classes.repeat(len(weights)))
    return torch.autograd.grad(outer, (x, y, sizes))


def make_initialised_network() -> nn.Module:
    """Return a new network with the initial weights."""
    module = make_network()
    module.load_state_dict(inner_network().state(initial_weights()[0]))
    return module


def inner_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy with soft labels, the mean over the images."""
    return -(labels * logits.log_softmax(-1)).sum(-1).mean()


def torchopt_gradients(data: Data) -> tuple[Tensor, ...]:
    """Return the derivatives by the differentiable optimizer of TorchOpt, whose step size is a constant."""
    x, y, sizes, real, classes = data
    module = make_initialised_network()
    optimizer = importlib.import_module("torchopt").MetaSGD(module, lr=STEP_SIZE)
    for _ in sizes:
        optimizer.step(inner_loss(module(x), y))
    return torch.autograd.grad(cross_entropy(module(real), classes), (x, y))


def higher_gradients(data: Data) -> tuple[Tensor, ...]:
    """Return the derivatives by the differentiable optimizer of higher, with a step size for each step."""
    x, y, sizes, real, classes = data
    module = make_initialised_network()
    optimizer = torch.optim.SGD(module.parameters(), lr=STEP_SIZE)
    with importlib.import_module("higher").innerloop_ctx(module, optimizer) as (functional, differentiable):
        for size in sizes:
            differentiable.step(inner_loss(functional(x), y), override={"lr": [size]})
        return torch.autograd.grad(cross_entropy(functional(real), classes), (x, y, sizes))


def available_implementations() -> dict[str, OuterGradients]:
    """Return the compared implementations by name, installed peers first."""
    implementations: dict[str, OuterGradients] = {}
    for name, gradients in (("torchopt", torchopt_gradients), ("higher", higher_gradients)):
        if importlib.util.find_spec(name):
            implementations[name] = gradients
    return implementations | {name: functools.partial(kdzoo_gradients, engine=name) for name in ENGINES}


def relative_difference(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Return the largest difference, relative to the largest absolute value of each tensor."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(actual, expected, strict=False))


def peak_memory(name: str, steps: int, rounds: int, peers: str) -> float:
    """Return by how many MiB an implementation raises the peak memory of a new process, the median over the rounds."""
    return median_of_fresh_processes(["--peak", name, str(steps), "--peers", peers], rounds)


def print_peak_memory(name: str, steps: str) -> None:
    """Print the number that :func:`peak_memory` reads, in the new process."""
    run = available_implementations()[name]
    # Loads everything that is loaded on first use, with data too small for its freed memory to matter.
    run(make_data(3, 2, real=4))
    data = make_data(IMAGES, int(steps))
    print(added_peak_memory(lambda: run(data)))


def compare_engines(rounds: int, peers: str) -> tuple[str, dict[str, bool]]:
    """Return the table of the engines and which of their targets are reached."""
    data, runs = make_data(IMAGES, STEPS), available_implementations()
    exact = kdzoo_gradients(data, "full")
    differences = {name: relative_difference(run(data), exact) for name, run in runs.items()}
    times = time_in_turns(
        {name: functools.partial(cpu_seconds, lambda run=run: run(data)) for name, run in runs.items()}, rounds
    )
    peaks = {name: peak_memory(name, STEPS, rounds, peers) for name in runs}
    peers_found = [name for name in PEERS if name in runs]
    rows, reached = [], {}
    for name in runs:
        time_ratios = [median_ratio(times, name, peer) for peer in peers_found]
        memory_ratios = [peaks[peer] / peaks[name] for peer in peers_found]
        median = f"{statistics.median(times[name]):.2f} ({min(times[name]):.2f} to {max(times[name]):.2f})"
        cells = [
            *(f"{ratio:.2f}" for ratio in time_ratios),
            f"{peaks[name]:.1f}",
            *(f"{ratio:.1f}" for ratio in memory_ratios),
        ]
        rows.append([name, median, *cells, f"{differences[name]:.0e}"])
        if name in MIN_MEMORY_RATIO and peers_found:
            reached[f"{name} in {MIN_MEMORY_RATIO[name]} times less memory"] = (
                min(memory_ratios) >= MIN_MEMORY_RATIO[name]
            )
            reached[f"{name} in at most {MAX_TIME_RATIO[name]} times the time"] = (
                max(time_ratios) <= MAX_TIME_RATIO[name]
            )
    for name in ("segments", "reverse", "jvp"):
        growth = peak_memory(name, LONG_STEPS, 1, peers) / peaks[name]
        rows.append([f"{name}, {LONG_STEPS} steps", *[""] * (1 + len(peers_found)), f"{growth * peaks[name]:.1f}"])
        rows[-1] += [""] * (len(rows[0]) - len(rows[-1]))
        reached[f"{name} at {LONG_STEPS} steps in {MAX_GROWTH} times its memory at {STEPS}"] = growth <= MAX_GROWTH
    headers = ["", "CPU s (range)", *(f"/ {peer}" for peer in peers_found), "peak, MiB"]
    return markdown_table([*headers, *(f"{peer} /" for peer in peers_found), "from full"], rows), reached


def compare_batching(rounds: int) -> tuple[str, dict[str, bool]]:
    """Return the table of several initialisations at once and which of its targets are reached."""
    rows, reached = [], {}
    for images in (10, IMAGES):
        for count in COUNTS:
            data, weights = make_data(images, SHORT_STEPS), initial_weights(count)

            def loop(data: Data = data, weights: Tensor = weights) -> list[Tensor]:
                gradients = [kdzoo_gradients(data, "segments", single_weights[None]) for single_weights in weights]
                return [sum(gradient) / len(weights) for gradient in zip(*gradients, strict=True)]

            runs = {
                "loop": loop,
                "batched": functools.partial(kdzoo_gradients, data, "segments", weights),
                "vmap": functools.partial(kdzoo_gradients, data, "segments", weights, vmapped=True),
            }
            difference = relative_difference(runs["batched"](), loop())
            times = time_in_turns({name: functools.partial(cpu_seconds, run) for name, run in runs.items()}, rounds)
            medians = [f"{statistics.median(times[name]):.2f}" for name in runs]
            speedups = [median_ratio(times, "loop", name) for name in ("batched", "vmap")]
            rows.append([images, count, *medians, *(f"{ratio:.2f}" for ratio in speedups), f"{difference:.0e}"])
            reached[f"{count} at once on {images} images {MIN_SPEEDUP} times faster"] = speedups[0] >= MIN_SPEEDUP
    headers = ["images", "K", "loop, CPU s", "batched", "vmap", "loop / batched", "loop / vmap", "apart"]
    return markdown_table(headers, rows), reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="number of measured rounds")
    parser.add_argument("--peers", default="", help="folder that TorchOpt and higher are installed in")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.append(options.peers)
    if options.peak:
        return print_peak_memory(*options.peak)
    engine_table, reached_by_engines = compare_engines(options.rounds, options.peers)
    batching_table, reached_by_batching = compare_batching(options.rounds)
    publish(
        "unroll",
        "Gradients through an inner training",
        f"{NETWORK}: {inner_network().n_weights:,} weights. {IMAGES} images, {STEPS} steps of gradient descent, an "
        f"outer loss of {REAL_IMAGES} images, float32. One thread, median of {options.rounds} rounds in turns; a "
        f"ratio is the median of those of the same round. A peak is what a fresh process adds at its peak, the median "
        f"of {options.rounds}. The last column is the largest difference of a derivative from full unrolling. "
        f"{installed_versions(options.peers, PEERS)}; TorchOpt's step size is a number and gets no derivative.",
        engine_table,
        target_summary(reached_by_engines),
        f"K initialisations at once, {SHORT_STEPS} steps by segments, against a loop of K single ones without "
        "`torch.func.vmap`. `batched` is what an inner network does: vmap, with the first convolution as a product of "
        "patches and kernels; the last columns but one compare it, and vmap alone, with the loop.",
        batching_table,
        target_summary(reached_by_batching),
    )
    return None


if __name__ == "__main__":
    main()
