"""How the distributions of corresponding nodes of two graphical models are compared."""

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from kdzoo.core import validation
from kdzoo.graphical_models import DIVERGENCES, Graph
from kdzoo.graphical_models.divergences import BOUND_PRESERVING
from kdzoo.graphical_models.families import Family
from kdzoo.graphical_models.paired import Pair, node_divergence


@dataclass(frozen=True)
class NodeDivergences:
    """The divergences of targets and latents, from which the surrogate loss and the latent losses are made.

    Args:
        divergence: Divergence of targets, ``kl``, ``w2``, ``mmd`` or ``logits``
            (:mod:`kdzoo.graphical_models.divergences`). It is summed over the elements of a target.
        latent_divergence: Divergence of latents, one of the same; ``auto`` takes w2 for continuous and kl for discrete
            latents.
        reduction: ``sum`` or ``mean`` of a latent's divergence over its elements.

    Raises:
        ConfigError: If a name is unknown.

    References:
        Chen, Liang, Zeng, Yao & Shao 2023, A unified knowledge distillation framework for deep directed graphical
        models.
    """

    divergence: str = "kl"
    latent_divergence: str = "auto"
    reduction: str = "sum"

    def __post_init__(self) -> None:
        validation.choice("divergence", self.divergence, tuple(DIVERGENCES))
        validation.choice("latent_divergence", self.latent_divergence, ("auto", *DIVERGENCES))
        validation.choice("reduction", self.reduction, ("sum", "mean"))

    def __call__(
        self,
        pair: Pair,
        student: Graph,
        *,
        latents: Collection[str] | None = None,
        lengths: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the divergences of all targets, then of latents, by node, ``[b]`` each.

        Args:
            pair: Rollouts of teacher and student on the same noise.
            student: The model that learns.
            latents: Names of the latents to compare; None: all that have parameters.
            lengths: Number of valid steps of sequences, int64 ``[b]``.

        Raises:
            ConfigError: If the divergence is not defined for a node's family.
        """

        def compare(name: str, divergence: str, reduction: str) -> Tensor:
            return node_divergence(pair, name, divergence, reduction, lengths if student.in_sequence(name) else None)

        terms = {name: compare(name, self.divergence, "sum") for name in student.targets()}
        for name, latent in student.latents().items():
            if latent.is_learned if latents is None else name in latents:
                terms[name] = compare(name, self._of_latent(latent.family), self.reduction)
        return terms

    def _of_latent(self, family: Family) -> str:
        """Return the name of the divergence for a latent of a family."""
        if self.latent_divergence != "auto":
            return self.latent_divergence
        # As in Chen et al. 2023: w2 in their hierarchical VAEs, kl for the bits of their Helmholtz machine. The w2 of
        # normal variables stays finite where a deviation goes to 0; their kl does not.
        return "kl" if family.is_discrete else "w2"

    def missing_bound(self, student: Graph) -> str:
        """Return why the surrogate loss does not bound the divergence of the marginals; empty if it does."""
        if self.divergence in BOUND_PRESERVING:
            return ""
        return f"divergence={self.divergence} of targets {', '.join(student.targets())}"
