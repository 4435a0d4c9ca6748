"""How well a model with trained posteriors explains observations, and how much its latents are used.

With the posterior q, the weight of a sample z ~ q(z | x) is w = p(x, z) / q(z | x). The mean of log w is the evidence
lower bound, and with K samples

    L_K = E log (w_1 + ... + w_K) / K

lies between that bound (K = 1) and log p(x), which it approaches as K grows (Burda et al. 2016, equation 8).
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from kdzoo.core.inference import inference
from kdzoo.graphical_models.divergences import per_sample
from kdzoo.graphical_models.families import Normal
from kdzoo.graphical_models.graph import Graph, Trace

Values = Mapping[str, Tensor]
ACTIVE_VARIANCE = 0.01
"""Variance over the data above which the posterior mean of a unit counts as active (Burda et al. 2016, section 5.2)."""


def can_be_weighted(model: Graph) -> bool:
    """Return whether a model can draw and weigh its latents given single observations, without a sequence."""
    latents = model.latents().values()
    # A model that overrides the bound, as wake-sleep does, infers in another way.
    is_variational = type(model).negative_elbo is Graph.negative_elbo
    return is_variational and model.scan is None and all(node.posterior is not None for node in latents)


def negative_bound(model: Graph, batches: Iterable[Values]) -> float:
    """Return the mean negative evidence lower bound of all observations in nats, with fixed noise.

    Args:
        model: Model with posteriors.
        batches: Batches, which may hold sequences with a ``mask``.
    """
    total, count = 0.0, 0
    generator = torch.Generator().manual_seed(0)
    with inference(model):
        for observed in batches:
            batch = {key: value.to(model.like.device) for key, value in observed.items()}
            lengths = batch.pop("mask").sum(1) if "mask" in batch else None
            noise = model.elbo_noise(len(batch["input"]), generator=generator)
            total += float(torch.stack(list(model.negative_elbo(batch, noise, lengths).values())).sum())
            count += len(batch["input"])
    return total / count


def log_weights(model: Graph, batch: Values, noise: Values) -> Tensor:
    """Return log p(x, z) - log q(z | x) of latents that are drawn from their posteriors, ``[b]``.

    Args:
        model: Model that :func:`can_be_weighted` accepts.
        batch: Batch that the nodes read their observations from.
        noise: Noise as :meth:`Graph.elbo_noise` draws it.
    """
    trace = model.infer(batch, noise)
    total = torch.zeros((), device=model.like.device)
    for name, distribution in trace.distributions.items():
        value = trace.values[name]
        log_ratio = distribution.log_prob(value)
        if name in trace.posteriors:
            log_ratio = log_ratio - trace.posteriors[name].log_prob(value)
        total = total + per_sample(log_ratio, "sum")
    return total


def importance_weighted_bound(model: Graph, batches: Iterable[Values], samples: int, chunk: int = 512) -> float:
    """Return the mean of L_K over all observations in nats, with fixed noise; a lower bound of the log-likelihood.

    Args:
        model: Model that :func:`can_be_weighted` accepts.
        batches: Batches of observations.
        samples: Number K of samples of the latents for each observation, >= 1.
        chunk: Largest number of samples that are weighed at once. Larger ones are not faster on a CPU, since feature
            maps do not fit into its caches.

    References:
        Burda, Grosse, Salakhutdinov: Importance weighted autoencoders. ICLR 2016, arXiv:1509.00519.
    """
    total, count = 0.0, 0
    generator = torch.Generator().manual_seed(0)
    with inference(model):
        for batch in batches:
            for rows in _divided(batch, max(1, chunk // samples)):
                bounds = _bounds(model, rows, samples, chunk, generator)
                total, count = total + float(bounds.sum()), count + len(bounds)
    return total / count


def _bounds(model: Graph, batch: Values, samples: int, chunk: int, generator: torch.Generator) -> Tensor:
    """Return L_K of each observation, ``[b]``."""
    n, targets = len(batch["input"]), model.targets()
    of_targets = {name: value for name, value in model.elbo_noise(n, generator=generator).items() if name in targets}
    weights, left = [], samples
    while left > 0:
        k = min(left, max(1, chunk // n))
        repeated = {key: _repeat(value.to(model.like.device), k) for key, value in batch.items()}
        # All samples of one observation see the same value of it, also where the model draws bits from grey values.
        noise = model.elbo_noise(n * k, generator=generator)
        noise |= {name: _repeat(value, k) for name, value in of_targets.items()}
        weights.append(log_weights(model, repeated, noise).reshape(n, k))
        left -= k
    return torch.cat(weights, 1).logsumexp(1) - math.log(samples)


def active_units(model: Graph, batches: Iterable[Values]) -> dict[str, Tensor]:
    """Return which values of each normal latent are used, bools of the latent's shape by name.

    A value is used if the mean of its posterior varies over the data: Cov_x(E_q[z]) > 0.01. A latent whose posterior
    reads other latents is inferred with these at their posterior means.

    Args:
        model: Model that :func:`can_be_weighted` accepts.
        batches: Batches of at least two observations.

    References:
        Burda, Grosse, Salakhutdinov: Importance weighted autoencoders. ICLR 2016, arXiv:1509.00519.
    """
    means = posterior_means(model, batches)
    return {name: values.double().var(0) > ACTIVE_VARIANCE for name, values in means.items()}


def posterior_means(model: Graph, batches: Iterable[Values]) -> dict[str, Tensor]:
    """Return the means of the posteriors of all normal latents given each observation, ``[n, ...]`` by name."""
    means: dict[str, list[Tensor]] = {}
    with inference(model):
        for batch in batches:
            posteriors = infer_means(model, batch).posteriors
            for name in _normal_latents(model):
                means.setdefault(name, []).append(posteriors[name].mean.cpu())
    return {name: torch.cat(values) for name, values in means.items()}


def infer_means(model: Graph, batch: Values) -> Trace:
    """Return the rollout in which normal latents take the means of their posteriors, on the model's device."""
    noise = model.elbo_noise(len(batch["input"]), generator=torch.Generator().manual_seed(0))
    noise |= {name: torch.zeros_like(noise[name]) for name in _normal_latents(model)}
    return model.infer({key: value.to(model.like.device) for key, value in batch.items()}, noise)


def _normal_latents(model: Graph) -> list[str]:
    return [name for name, node in model.latents().items() if isinstance(node.family, Normal)]


def _repeat(values: Tensor, times: int) -> Tensor:
    return values.repeat_interleave(times, 0)


def _divided(batch: Values, rows: int) -> Iterable[dict[str, Tensor]]:
    """Yield the batch in parts of at most so many observations."""
    for start in range(0, len(batch["input"]), rows):
        yield {key: value[start : start + rows] for key, value in batch.items()}
