"""A few examples of a labelled data set, chosen or averaged: the baselines of dataset distillation.

Every example is the mean of a group of samples of one class. Methods that choose samples return groups of one sample,
methods that average return larger ones. A selection returns only these groups, as positions among the class's samples.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.batch import IGNORE
from kdzoo.errors import ConfigError, DataError

Selection = Callable[[Float[Tensor, "n d"], int, torch.Generator], Sequence[Int64[Tensor, " _"]]]
"""Maps the features ``[n, d]`` of one class's samples, the number of examples and a generator to the groups."""


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
        name: One of ``SELECTIONS``.
        inputs: The samples ``[n, *shape]``.
        targets: Their classes ``[n]``; samples with ``IGNORE`` are left out.
        per_class: Number of examples of each class, >= 1; or one number >= 0 for each class, which allows fewer
            examples than classes.
        num_classes: Number of classes, >= 1.
        seed: Seed of random selections and of k-means, >= 0; the same seed gives the same examples.
        features: Features ``[n, ...]`` by which samples are compared; the inputs themselves by default.

    Returns:
        Examples ``[m, *shape]`` in the dtype of the inputs, and their classes ``[m]``.

    Raises:
        ConfigError: A name, count or seed is not allowed.
        DataError: A target is not a valid class, numbers of rows differ, or a class has fewer samples than examples
            are requested of it.

    Example:
        >>> inputs, targets = torch.tensor([[0.0], [2.0], [7.0], [9.0]]), torch.tensor([0, 0, 1, IGNORE])
        >>> select("mean", inputs, targets, 1, 2)
        (tensor([[1.],
                [7.]]), tensor([0, 1]))
    """
    selection = SELECTIONS[validation.choice("selection", name, tuple(SELECTIONS))]
    counts = _counts(per_class, validation.integer("num_classes", num_classes))
    generator = torch.Generator().manual_seed(validation.integer("seed", seed, least=0))
    compared = (inputs if features is None else features).flatten(1)
    if not len(inputs) == len(targets) == len(compared):
        lengths = f"{len(inputs)}, {len(targets)} and {len(compared)}"
        raise DataError(f"inputs, targets and features must have as many rows each, got {lengths}")
    examples = [inputs[:0]]  # gives the result its shape and dtype even if no class has examples
    for members, count in zip(_members(targets, counts), counts, strict=True):
        if count:
            groups = selection(compared[members], count, generator)
            examples.append(torch.stack([_mean(inputs[members[group]]) for group in groups]))
    return torch.cat(examples), torch.arange(num_classes).repeat_interleave(torch.tensor(counts)).to(targets.device)


def random_samples(
    features: Float[Tensor, "n d"], count: int, generator: torch.Generator
) -> Sequence[Int64[Tensor, " 1"]]:
    """Return ``count`` different samples, drawn uniformly without replacement."""
    return torch.randperm(len(features), generator=generator)[:count].split(1)


def random_partition(
    features: Float[Tensor, "n d"], count: int, generator: torch.Generator
) -> Sequence[Int64[Tensor, " _"]]:
    """Return a random partition into ``count`` parts, whose sizes differ by at most one.

    With one part, the resulting example is the mean of the class.
    """
    return torch.randperm(len(features), generator=generator).tensor_split(count)


def kmeans_clusters(
    features: Float[Tensor, "n d"], count: int, generator: torch.Generator
) -> Sequence[Int64[Tensor, " _"]]:
    """Return the ``count`` clusters of k-means, whose means are its centres.

    Where fewer than ``count`` samples are distinct, some clusters are empty; such a group has the one sample that is
    nearest to its centre.

    References:
        Lloyd: Least squares quantization in PCM. 1982. Arthur, Vassilvitskii: k-means++. SODA 2007.
    """
    # tol=0 iterates until no sample changes its cluster: only then is each centre the mean of its cluster, which the
    # caller relies on. scikit-learn takes a seed and not a generator of torch.
    from sklearn.cluster import KMeans  # imported here, because the import takes two seconds
    from sklearn.exceptions import ConvergenceWarning

    kmeans = KMeans(count, n_init=1, tol=0, random_state=int(torch.randint(2**31, (), generator=generator)))
    points = features.cpu().numpy()
    # scikit-learn warns where distinct samples are fewer than clusters; those that are empty are filled below.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = torch.from_numpy(kmeans.fit(points).labels_)
    nearest = torch.from_numpy(kmeans.transform(points)).argmin(0)
    groups = [(labels == c).nonzero().flatten() for c in range(count)]
    return [group if len(group) else nearest[c : c + 1] for c, group in enumerate(groups)]


def herding(features: Float[Tensor, "n d"], count: int) -> Int64[Tensor, " count"]:
    r"""Return samples that are chosen greedily so that their mean is close to the mean of all; none is chosen twice.

    .. math:: i_{t+1} = \arg\min_{i \notin I_t} \Big\| \mu - \frac{1}{t+1} \big(x_i + \sum_{j \in I_t} x_j\big) \Big\|

    Args:
        features: Features x of the samples ``[n, d]``.
        count: Number of samples, in 1..n.

    Returns:
        Positions ``[count]``, in the order of choice.

    References:
        Welling: Herding dynamical weights to learn. ICML 2009.
        Chen, Welling, Smola: Super-samples from kernel herding. UAI 2010.
        Rebuffi, Kolesnikov, Sperl, Lampert: iCaRL. CVPR 2017, algorithm 4.
    """
    # Centred, so that mu = 0: the norm to minimise is that of x_i plus the sum of the chosen. The factor 1/(t+1) is the
    # same for all candidates. float64 keeps rounding errors from deciding between nearly equal ones.
    points = features.double() - features.double().mean(0)
    energy, total = points.square().sum(1), torch.zeros_like(points[0])
    chosen: list[Tensor] = []
    for _ in range(count):
        best = (energy + 2 * (points @ total)).argmin()  # ||x + total||^2 without the constant ||total||^2
        chosen.append(best)
        total += points[best]
        energy[best] = torch.inf  # is never the smallest again
    return torch.stack(chosen)


def k_center(features: Float[Tensor, "n d"], count: int) -> Int64[Tensor, " count"]:
    """Return samples chosen by farthest-first traversal, a 2-approximation of the k-center problem.

    The first sample is the one nearest to the mean; each further one is the farthest from those chosen before. The
    largest distance of any sample to its nearest chosen one is at most twice the smallest possible one.

    Args:
        features: Features of the samples ``[n, d]``.
        count: Number of samples, in 1..n.

    Returns:
        Positions ``[count]``, in the order of choice.

    References:
        Gonzalez: Clustering to minimize the maximum intercluster distance. 1985.
        Sener, Savarese: Active learning for convolutional neural networks, a core-set approach. ICLR 2018, alg. 1.
    """
    points = features.double() - features.double().mean(0)
    energy = points.square().sum(1)
    chosen, distance = [energy.argmin()], torch.full_like(energy, torch.inf)
    while len(chosen) < count:
        last = chosen[-1]
        # Squared distances, expanded; rounding can make that of a duplicate negative.
        distance = distance.minimum((energy - 2 * (points @ points[last]) + energy[last]).clamp_min(0))
        distance[last] = -1.0  # below the distance 0 of its duplicates
        chosen.append(distance.argmax())
    return torch.stack(chosen)


SELECTIONS: dict[str, Selection] = {
    "random": random_samples,
    "mean": random_partition,
    "kmeans": kmeans_clusters,
    "herding": lambda features, count, _: herding(features, count).split(1),
    "k_center": lambda features, count, _: k_center(features, count).split(1),
}
"""Random samples; means of the parts of a random partition; centres of k-means; herding; greedy k-center."""


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
        invalid = known[(known < 0) | (known >= len(counts))][0]
        raise DataError(f"targets must be in 0..{len(counts) - 1} or {IGNORE} for no label, got {int(invalid)}")
    sizes = known.bincount(minlength=len(counts)).tolist()
    for c, (size, needed) in enumerate(zip(sizes, counts, strict=True)):
        if size < needed:
            raise DataError(f"class {c} has {size} labelled samples, per_class needs {needed}")
    for c in range(len(counts)):
        yield (targets == c).nonzero().flatten()


def _mean(samples: Float[Tensor, " n *shape"]) -> Float[Tensor, " *shape"]:
    """Return the mean of samples in their dtype, summed in float64; the mean of one sample is exactly that sample."""
    return samples.double().mean(0).to(samples.dtype)
