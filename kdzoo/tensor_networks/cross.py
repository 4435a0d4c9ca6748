"""From queries to a chain by tensor cross interpolation: it equals the function at chosen rows and columns, its pivots.

On a grid of d numbers for every site, a function is a tensor, with the output as one more leg. For each bond b
there are r prefixes I_b and r suffixes J_b, and the chain

    T_1 P_1^-1 T_2 P_2^-1 ... T_n,    T_k = F(I_(k-1), leg k, J_k),    P_b = F(I_b, J_b)

equals the tensor where prefixes and suffixes are pivots. A sweep takes two legs at a time and selects the pivots
between them by a rank-revealing LU decomposition with full pivoting of F(I x leg, leg x J). Parts of given samples are
further candidates (global pivots): without them a sweep never finds what no single leg shows.

References:
    Nunez Fernandez et al.: Learning Feynman diagrams with tensor trains. Phys. Rev. X 12, 2022, arXiv:2207.06135.
    Nunez Fernandez et al.: Learning tensor networks with tensor cross interpolation: new algorithms and libraries.
    SciPost Phys. 18, 2025, arXiv:2407.02454, sections 3.3 and 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.core import validation
from kdzoo.core.progress import track
from kdzoo.errors import ConfigError
from kdzoo.tensor_networks.queries import BudgetError, Oracle
from kdzoo.tensor_networks.sketching import CUTOFF, Features, Found, Limits, QueryResult, bonds_of, checked, spread


def cross_interpolate(
    oracle: Oracle,
    samples: Tensor,
    features: Features,
    *,
    rank: int | None = None,
    cutoff: float = CUTOFF,
    out_site: int | None = None,
    domain: Sequence[float] = (0.0, 1.0),
    sweeps: int = 4,
    pivots: int = 32,
) -> Found:
    """Return a chain that interpolates a function at pivots.

    If the budget ends after the first sweep, the search for better pivots ends, and the chain uses the last ones.

    Args:
        oracle: The function.
        samples: Points ``[n, sites]`` where the function matters; each number is rounded to the nearest of the grid.
        features: The local feature maps, such as ``model.feature_map.double_features``; their d features must be
            linearly independent on the grid.
        rank: Largest bond dimension. None: only ``cutoff`` limits it.
        cutoff: Pivots below this share of the largest are left out, in [0, 1].
        out_site: The output core stands before this site. None: in the middle.
        domain: Smallest and largest number of the grid of d numbers.
        sweeps: Largest number of sweeps, alternately from left to right and back, >= 1.
        pivots: Number of samples whose parts are candidates at every bond, >= 1.

    Raises:
        ConfigError: An argument is outside its range, or the features are linearly dependent on the grid.
        DataError: The samples are not a matrix.
        BudgetError: The budget of the oracle is too small for the first sweep.
    """
    samples, rank, cutoff, m = checked(samples, rank, cutoff, out_site)
    grid, phi = _grid(samples, features, domain)
    candidates = samples[spread(len(samples), validation.integer("pivots", pivots))]
    n_outputs = oracle(candidates[:1]).shape[1]
    table = _Table(oracle, grid, m, n_outputs, samples.shape[1] + 1)
    search = _Search(table, table.indices(candidates), Limits(rank, cutoff))
    finished = search.run(validation.integer("sweeps", sweeps))
    tensors, error = search.interpolation()
    # From values at the grid points of a site to coefficients of its features.
    sites = [torch.linalg.solve(phi[k].T, core) for k, core in enumerate(tensors[:m] + tensors[m + 1 :])]
    result = QueryResult(oracle.evaluations, oracle.asked, bonds_of(sites, tensors[m], m), error, finished)
    return sites, tensors[m], result


def _grid(samples: Tensor, features: Features, domain: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return d equidistant numbers ``[d]`` and their features ``[sites, d, d]``.

    Raises:
        ConfigError: The domain is not an interval, or the features are linearly dependent.
    """
    low, high = validation.interval("domain", domain, validation.number)
    d = features(samples[:1].T).shape[1]
    grid = torch.linspace(low, high, d, dtype=samples.dtype)
    phi = features(grid.expand(samples.shape[1], -1)).double()
    if not bool((torch.linalg.cond(phi) < 1 / torch.finfo(samples.dtype).eps).all()):
        raise ConfigError(f"domain={list(domain)} must give {d} numbers with independent features, got dependent ones")
    return grid, phi


def pivoted_lu(matrix: Tensor, limits: Limits) -> tuple[list[int], list[int]]:
    """Return the rows and columns of a matrix that full pivoting chooses, the largest remainder first.

    Args:
        matrix: Matrix ``[rows, columns]``.
        limits: Largest number of pivots, and the share of the first pivot below which others are left out; the first
            one is always chosen.

    Returns:
        Indices of the rows and of the columns.
    """
    remainder = matrix.clone()
    rows: list[int] = []
    columns: list[int] = []
    first = 0.0
    for _ in range(min(*matrix.shape, limits.rank or len(matrix))):
        row, column = divmod(int(remainder.abs().argmax()), matrix.shape[1])
        pivot = float(remainder[row, column])
        first = first or abs(pivot)
        if rows and abs(pivot) <= limits.cutoff * first:
            break
        rows.append(row)
        columns.append(column)
        if pivot == 0:  # a matrix of zeros has one pivot, so that its bond is not empty
            break
        remainder = remainder - torch.outer(remainder[:, column], remainder[row]) / pivot
        remainder[row], remainder[:, column] = 0.0, 0.0  # exactly, so that no rounding is chosen as a pivot
    return rows, columns


@dataclass(frozen=True)
class _Table:
    """A function as a tensor whose legs are the sites, on a grid, and before one of them the output.

    Attributes:
        oracle: The function.
        grid: Numbers ``[d]`` of every site.
        out_site: Which of the legs is the output.
        n_outputs: Number of outputs.
        n_legs: Number of sites + 1.
    """

    oracle: Oracle
    grid: Tensor
    out_site: int
    n_outputs: int
    n_legs: int

    def size(self, leg: int) -> int:
        """Return the number of values of a leg."""
        return self.n_outputs if leg == self.out_site else len(self.grid)

    def indices(self, samples: Tensor) -> Tensor:
        """Return the indices ``[n, legs]`` of the nearest grid points of samples, with the outputs in turn."""
        nearest = (samples[:, :, None] - self.grid).abs().argmin(2)
        outputs = (torch.arange(len(samples)) % self.n_outputs)[:, None]
        return torch.cat([nearest[:, : self.out_site], outputs, nearest[:, self.out_site :]], 1)

    def entries(self, prefixes: Tensor, suffixes: Tensor) -> Tensor:
        """Return the entries ``[n, m]`` of prefixes ``[n, legs before]`` with suffixes ``[m, legs behind]``."""
        n_before = prefixes.shape[1]
        # The output is not an input of the function: take its index out of the part that holds it.
        in_prefix = n_before > self.out_site
        part, place = (prefixes, self.out_site) if in_prefix else (suffixes, self.out_site - n_before)
        output = part[:, place]
        part = torch.cat([part[:, :place], part[:, place + 1 :]], 1)
        prefixes, suffixes = (part, suffixes) if in_prefix else (prefixes, part)
        values = self.oracle.pairs(self.grid[prefixes], self.grid[suffixes])
        index = output[:, None, None] if in_prefix else output[None, :, None]
        return values.gather(2, index.expand(*values.shape[:2], 1))[:, :, 0]


class _Search:
    """The pivots of every bond, and how they are improved.

    Args:
        table: The tensor.
        candidates: Indices ``[n, legs]`` of samples whose parts are candidates at every bond.
        limits: Largest bond, and smallest pivot.
    """

    def __init__(self, table: _Table, candidates: Tensor, limits: Limits) -> None:
        self.table, self.candidates, self.limits = table, candidates, limits
        n = table.n_legs
        self.prefixes = [candidates[:1, :b] for b in range(n)] + [candidates[:0]]
        self.suffixes = [candidates[:0], *(candidates[:1, b:] for b in range(1, n + 1))]

    def run(self, sweeps: int) -> bool:
        """Sweep until the pivots do not change any more; return whether the budget was large enough.

        Raises:
            BudgetError: It was too small for the first sweep.
        """
        for sweep in track(range(sweeps), "searching for pivots", unit="sweeps"):
            before = self._pivots()
            try:
                self._sweep(backwards=sweep % 2 == 1)
            except BudgetError:
                if sweep == 0:
                    raise
                return False
            if sweep and self._pivots() == before:
                break
        return True

    def interpolation(self) -> tuple[list[Tensor], float]:
        """Return the tensors ``[left, values, right]`` of the chain, and the error on all candidates."""
        table, n = self.table, self.table.n_legs
        tensors = []
        for leg in range(n):
            prefixes, suffixes = self._longer(leg + 1), self.suffixes[leg + 1]
            if leg < n - 1:
                tensor = table.entries(prefixes, suffixes)
                # T P^-1 by least squares, which is stable if P is nearly singular.
                tensor = torch.linalg.lstsq(table.entries(self.prefixes[leg + 1], suffixes).T, tensor.T).solution.T
            else:
                tensor = table.entries(prefixes, suffixes[:1, :0])
            tensors.append(tensor.unflatten(0, (-1, table.size(leg))))
        expected = table.entries(self.candidates, self.candidates[:1, :0])[:, 0]
        state = expected.new_ones(len(expected), 1)
        for leg, tensor in enumerate(tensors):
            state = torch.einsum("nl,lnr->nr", state, tensor[:, self.candidates[:, leg]])
        scale = expected.norm().clamp_min(torch.finfo(expected.dtype).tiny)
        return tensors, float((state[:, 0] - expected).norm() / scale)

    def _pivots(self) -> list[list[list[int]]]:
        """Return all pivots as plain numbers, sorted, so that they can be compared."""
        return [sorted(part.tolist()) for part in (*self.prefixes, *self.suffixes)]

    def _sweep(self, backwards: bool) -> None:
        """Choose the pivots of every bond again."""
        bonds = range(1, self.table.n_legs)
        for b in reversed(bonds) if backwards else bonds:
            prefixes = torch.cat([self._longer(b), self.candidates[:, :b]]).unique(dim=0)
            suffixes = torch.cat([self._earlier(b), self.candidates[:, b:]]).unique(dim=0)
            rows, columns = pivoted_lu(self.table.entries(prefixes, suffixes), self.limits)
            self.prefixes[b], self.suffixes[b] = prefixes[rows], suffixes[columns]

    def _longer(self, bond: int) -> Tensor:
        """Return the prefixes of the bond before, each with all values of the leg between ``[r values, bond]``."""
        prefixes, size = self.prefixes[bond - 1], self.table.size(bond - 1)
        return torch.cat([prefixes.repeat_interleave(size, 0), torch.arange(size).repeat(len(prefixes))[:, None]], 1)

    def _earlier(self, bond: int) -> Tensor:
        """Return the suffixes of the bond behind with all values of the leg between ``[values r, legs - bond]``."""
        suffixes, size = self.suffixes[bond + 1], self.table.size(bond)
        return torch.cat([torch.arange(size).repeat_interleave(len(suffixes))[:, None], suffixes.repeat(size, 1)], 1)
