"""A few examples of a labelled data set, chosen or averaged: the teacher-free baselines of dataset distillation.

Every example here is the mean of a group of samples of one class: of one sample where it is chosen, of a part of the
class where it is made. A selection only names the groups, as positions among the class's samples.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError, DataError

Selection = Callable[[Float[Tensor, "n d"], int, torch.Generator], Sequence[Int64[Tensor, " _"]]]
"""From the features of one class's n samples, the number of examples and random numbers to the groups."""


def select(
    name: str,
    inputs: Float[Tensor, " n *shape"],
    targets: Int64[Tensor, " n"],
    per_class: int | Sequence[int],
    num_classes: int,
    seed: int = 0,
    *,
    features: Float[Tensor, " _ *d"] | None = None,
) -> tuple[Float[Tensor, " m *shape"], Int64[Tensor, " m"]]:
    """Return a few examples of each class and their classes, in the order of the classes.

    Args:
        name: one of ``SELECTIONS``.
        inputs: the samples, [n, ...].
        targets: their classes, [n]; samples with ``IGNORE`` are left out.
        per_class: number of examples of each class, >= 1; or one number >= 0 for each class, which allows fewer
            examples than classes.
        num_classes: number of classes, >= 1.
        seed: the same seed gives the same examples.
        features: what samples are compared by, [n, ...]; the inputs themselves by default.

    Returns:
        Examples [m, ...] in the dtype of the inputs, and their classes [m].

    Raises:
        ConfigError: a name, count or seed is not allowed.
        DataError: a target is no class, numbers of rows differ, or a class has fewer samples than examples are wanted.

    Example:
        >>> inputs, targets = torch.tensor([[0.0], [2.0], [7.0], [9.0]]), torch.tensor([0, 0, 1, IGNORE])
        >>> select("mean", inputs, targets, 1, 2)
        (tensor([[1.],
                [7.]]), tensor([0, 1]))
    """
    rule = SELECTIONS[validation.choice("selection", name, tuple(SELECTIONS))]
    counts = _counts(per_class, validation.integer("num_classes", num_classes))
    generator = torch.Generator().manual_seed(validation.integer("seed", seed, least=0))
    measured = (inputs if features is None else features).flatten(1)
    if not len(inputs) == len(targets) == len(measured):
        lengths = f"{len(inputs)}, {len(targets)} and {len(measured)}"
        raise DataError(f"inputs, targets and features must have as many rows each, got {lengths}")
    examples = [inputs[:0]]
    for members, count in zip(_members(targets, counts), counts, strict=True):
        if count:
            groups = rule(measured[members], count, generator)
            examples.append(torch.stack([_mean(inputs[members[group]]) for group in groups]))
    return torch.cat(examples), torch.arange(num_classes).repeat_interleave(torch.tensor(counts)).to(targets.device)


def random_samples(
    features: Float[Tensor, "n d"], count: int, generator: torch.Generator
) -> Sequence[Int64[Tensor, " 1"]]:
    """Return ``count`` different samples, each as likely as any other."""
    return torch.randperm(len(features), generator=generator)[:count].split(1)


def random_parts(
    features: Float[Tensor, "n d"], count: int, generator: torch.Generator
) -> Sequence[Int64[Tensor, " _"]]:
    """Return a random partition into ``count`` parts, whose sizes differ by at most one: for 1, the class's mean."""
    return torch.randperm(len(features), generator=generator).tensor_split(count)


def clusters(features: Float[Tensor, "n d"], count: int, generator: torch.Generator) -> Sequence[Int64[Tensor, " _"]]:
    """Return ``count`` groups that k-means finds, so that their means are its centres.

    Where fewer samples than ``count`` are different, a group has the one sample that is nearest to its centre.

    References:
        Lloyd: Least squares quantization in PCM. 1982. Arthur, Vassilvitskii: k-means++. SODA 2007.
    """
    found = KMeans(count, n_init=1, tol=0, random_state=int(torch.randint(2**31, (), generator=generator)))
    points = features.cpu().numpy()
    with warnings.catch_warnings():  # it warns of empty clusters, which are filled below
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = torch.from_numpy(found.fit(points).labels_)
    nearest = torch.from_numpy(found.transform(points)).argmin(0)
    groups = [(labels == c).nonzero().flatten() for c in range(count)]
    return [group if len(group) else nearest[c : c + 1] for c, group in enumerate(groups)]


def herding(features: Float[Tensor, "n d"], count: int) -> Int64[Tensor, " count"]:
    r"""Return the samples that greedily bring the mean of the chosen, each taken once, closest to the mean of all.

    .. math:: i_{t+1} = \arg\min_{i \notin I_t} \Big\| \mu - \frac{1}{t+1} \big(x_i + \sum_{j \in I_t} x_j\big) \Big\|

    Args:
        features: samples x, [n, d].
        count: number of samples, 1..n.

    Returns:
        Positions [count], in the order of choice.

    References:
        Welling: Herding dynamical weights to learn. ICML 2009.
        Chen, Welling, Smola: Super-samples from kernel herding. UAI 2010.
        Rebuffi, Kolesnikov, Sperl, Lampert: iCaRL. CVPR 2017, algorithm 4.
    """
    points = features.double() - features.double().mean(0)
    energy, total = points.square().sum(1), torch.zeros_like(points[0])
    chosen: list[Tensor] = []
    for _ in range(count):
        best = (energy + 2 * (points @ total)).argmin()  # ||x + total||^2 without a constant
        chosen.append(best)
        total += points[best]
        energy[best] = torch.inf
    return torch.stack(chosen)


def k_center(features: Float[Tensor, "n d"], count: int) -> Int64[Tensor, " count"]:
    """Return samples such that the farthest other sample is near: each is the farthest from those before it.

    The first is the one nearest to the mean. The largest distance of a sample to its nearest chosen one is at most
    twice the least possible.

    Args:
        features: samples, [n, d].
        count: number of samples, 1..n.

    Returns:
        Positions [count], in the order of choice.

    References:
        Gonzalez: Clustering to minimize the maximum intercluster distance. 1985.
        Sener, Savarese: Active learning for convolutional neural networks, a core-set approach. ICLR 2018, alg. 1.
    """
    points = features.double() - features.double().mean(0)
    energy = points.square().sum(1)
    chosen, distance = [energy.argmin()], torch.full_like(energy, torch.inf)
    while len(chosen) < count:
        last = chosen[-1]
        distance = distance.minimum((energy - 2 * (points @ points[last]) + energy[last]).clamp_min(0))
        distance[last] = -1.0  # below the distance 0 of its duplicates
        chosen.append(distance.argmax())
    return torch.stack(chosen)


SELECTIONS: dict[str, Selection] = {
    "random": random_samples,
    "mean": random_parts,
    "kmeans": clusters,
    "herding": lambda features, count, _: herding(features, count).split(1),
    "k_center": lambda features, count, _: k_center(features, count).split(1),
}
"""Random samples; means of each class or of its random parts; centres of k-means; herding; greedy k-center."""


def _counts(per_class: int | Sequence[int], num_classes: int) -> list[int]:
    """Return the number of examples of every class."""
    if not isinstance(per_class, Sequence) or isinstance(per_class, str):
        return [validation.integer("per_class", per_class)] * num_classes
    if len(per_class) != num_classes:
        raise ConfigError(f"per_class must be an integer or {num_classes} of them, got {len(per_class)}")
    counts = [validation.integer(f"per_class[{c}]", count, least=0) for c, count in enumerate(per_class)]
    if not any(counts):
        raise ConfigError("per_class must be >= 1 for at least one class, got zeros only")
    return counts


def _members(targets: Int64[Tensor, " n"], counts: Sequence[int]) -> Iterator[Int64[Tensor, " _"]]:
    """Yield the positions of every class, after a check that each has enough."""
    known = targets[targets != IGNORE]
    if len(known) and not (int(known.min()) >= 0 and int(known.max()) < len(counts)):
        wrong = known[(known < 0) | (known >= len(counts))][0]
        raise DataError(f"targets must be in 0..{len(counts) - 1} or {IGNORE} for no label, got {int(wrong)}")
    for c, (found, wanted) in enumerate(zip(known.bincount(minlength=len(counts)).tolist(), counts, strict=True)):
        if found < wanted:
            raise DataError(f"class {c} has {found} labelled samples, per_class needs {wanted}")
    for c in range(len(counts)):
        yield (targets == c).nonzero().flatten()


def _mean(samples: Float[Tensor, " n *shape"]) -> Float[Tensor, " *shape"]:
    """Return the mean of samples in their dtype, summed in float64; that of one sample is that sample."""
    return samples.double().mean(0).to(samples.dtype)
