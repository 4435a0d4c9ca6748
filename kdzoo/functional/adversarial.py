"""Losses of a generator and a discriminator, and penalties on the discriminator's gradient.

A discriminator returns one logit for each sample, which is large for samples that it takes for real ones. All losses
have one value for each sample.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from kdzoo.core.validation import choice

FORMS = ("non_saturating", "hinge", "least_squares", "wasserstein")
"""Pairs of losses for the two players."""


def discriminator_loss(
    real_logits: Tensor, generated_logits: Tensor, *, form: str = "non_saturating"
) -> tuple[Tensor, Tensor]:
    """Return the discriminator's losses on real and on generated samples, whose sum it minimises.

    With the logits r of real and g of generated samples these are

    - ``non_saturating``: softplus(-r) and softplus(g), the cross entropies of "real" and "generated" (Goodfellow et al.
      2014, Generative adversarial nets, equation 1);
    - ``hinge``: max(0, 1 - r) and max(0, 1 + g) (Lim & Ye 2017, Geometric GAN);
    - ``least_squares``: (r - 1)^2 / 2 and g^2 / 2 (Mao et al. 2017, Least squares GANs, equation 9);
    - ``wasserstein``: -r and g (Arjovsky et al. 2017, Wasserstein GAN), which needs a discriminator of bounded slope:
      :func:`gradient_penalty` or spectral normalisation.

    Args:
        real_logits: Logits of real samples, ``[n]``.
        generated_logits: Logits of generated samples, ``[m]``.
        form: One of :data:`FORMS`.

    Returns:
        Values ``[n]`` and ``[m]``.

    Raises:
        ConfigError: ``form`` is not one of :data:`FORMS`.

    Example:
        >>> discriminator_loss(torch.tensor([2.0]), torch.tensor([-3.0]), form="hinge")
        (tensor([0.]), tensor([0.]))
    """
    match choice("form", form, FORMS):
        case "non_saturating":
            return softplus(-real_logits), softplus(generated_logits)
        case "hinge":
            return relu(1 - real_logits), relu(1 + generated_logits)
        case "least_squares":
            return (real_logits - 1).square() / 2, generated_logits.square() / 2
        case _:
            return -real_logits, generated_logits


def generator_loss(generated_logits: Tensor, *, form: str = "non_saturating") -> Tensor:
    """Return the generator's loss on its samples.

    With their logits g these are softplus(-g) for ``non_saturating``, (g - 1)^2 / 2 for ``least_squares``, and -g for
    ``hinge`` and ``wasserstein``; see :func:`discriminator_loss` for the sources.

    Args:
        generated_logits: The discriminator's logits of generated samples, ``[m]``.
        form: One of :data:`FORMS`.

    Returns:
        Values ``[m]``.

    Raises:
        ConfigError: ``form`` is not one of :data:`FORMS`.
    """
    match choice("form", form, FORMS):
        case "non_saturating":
            return softplus(-generated_logits)
        case "least_squares":
            return (generated_logits - 1).square() / 2
        case _:
            return -generated_logits


def squared_gradient(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Return the squared norm of the discriminator's gradient at real samples, the R1 penalty without its factor.

    Args:
        discriminator: Returns logits ``[n]`` of samples ``[n, ...]``, each a function of its own sample alone.
        real: Real samples, ``[n, ...]``.

    Returns:
        Values ``[n]``, which can be differentiated with respect to the discriminator's weights.

    References:
        Mescheder, Geiger, Nowozin: Which training methods for GANs do actually converge? ICML 2018, equation 9.
    """
    return _gradient(discriminator, real).square().sum(1)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, generated: Tensor, shares: Tensor
) -> Tensor:
    """Return how far the norm of the discriminator's gradient is from 1 between real and generated samples, squared.

    Args:
        discriminator: Returns logits ``[n]`` of samples ``[n, ...]``, each a function of its own sample alone. Batch
            normalisation would break that.
        real: Real samples, ``[n, ...]``.
        generated: As many generated samples, ``[n, ...]``; they get no gradient.
        shares: Position between the two, in [0, 1], ``[n]``: 1 is the real sample. The authors draw it uniformly.

    Returns:
        Values ``[n]``, which can be differentiated with respect to the discriminator's weights.

    References:
        Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville: Improved training of Wasserstein GANs. NeurIPS 2017,
        equation 3.
    """
    shares = shares.reshape(-1, *[1] * (real.ndim - 1))
    between = shares * real + (1 - shares) * generated.detach()
    # The norm has no derivative at 0, where the gradient of torch's norm is 0, as is that of the penalty's square.
    return (_gradient(discriminator, between).norm(dim=1) - 1).square()


def _gradient(discriminator: Callable[[Tensor], Tensor], samples: Tensor) -> Tensor:
    """Return the gradient of each sample's logit with respect to the sample, ``[n, elements]``."""
    # Penalties are also measured in validation, where no gradients are recorded.
    with torch.enable_grad():
        samples = samples.detach().requires_grad_()
        logits = discriminator(samples)
        (gradient,) = torch.autograd.grad(logits.sum(), samples, create_graph=True)
    return gradient.flatten(1)
