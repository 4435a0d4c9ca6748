"""From queries to a chain by tensor cross interpolation: it equals the function at chosen rows and columns, its pivots.

On a grid of d numbers for every site, and with the output as a leg of its own, a function is a tensor. For each bond b
there are r beginnings I_b and r ends J_b, and the chain

    T_1 P_1^-1 T_2 P_2^-1 ... T_n,    T_k = F(I_(k-1), leg k, J_k),    P_b = F(I_b, J_b)

equals the tensor where beginnings and ends are pivots. A sweep takes two legs at a time and chooses the pivots between
them anew by a rank-revealing LU decomposition with full pivoting of F(I x leg, leg x J). Parts of given samples are
further candidates (global pivots): without them a sweep never sees what one leg alone does not show.

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
from kdzoo.errors import ConfigError
from kdzoo.tensor_networks.queries import BudgetError, Oracle
from kdzoo.tensor_networks.sketching import CUTOFF, Features, Found, QueryResult, bonds_of, checked, spread


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

    A budget that ends after the first sweep ends the search for better pivots, and the chain is that of the last ones.

    Args:
        oracle: the function.
        samples: points (n, sites) where the function matters; each number stands for the nearest of its grid.
        features: the local feature maps, such as `model.feature_map.double_features`; d linearly independent ones on
            the grid.
        rank: greatest bond dimension; None leaves it to `cutoff` alone.
        cutoff: pivots below this share of the greatest are left out, in [0, 1].
        out_site: the output is before this site; None: in the middle.
        domain: least and largest number of the grid of d numbers.
        sweeps: greatest number of sweeps, from left to right and back in turns, >= 1.
        pivots: number of samples whose parts are candidates at every bond, >= 1.

    Raises:
        ConfigError: an argument is outside its range, or the features are dependent on the grid.
        DataError: the samples are no matrix.
        BudgetError: the oracle's budget is not enough for the first sweep.
    """
    samples, rank, cutoff, m = checked(samples, rank, cutoff, out_site)
    n_sites = samples.shape[1]
    low, high = validation.interval("domain", domain, validation.number)
    d = features(samples[:1].T).shape[1]
    grid = torch.linspace(low, high, d, dtype=samples.dtype)
    phi = features(grid.expand(n_sites, -1)).double()  # (sites, d, points)
    if not bool((torch.linalg.cond(phi) < 1 / torch.finfo(samples.dtype).eps).all()):
        raise ConfigError(f"domain={list(domain)} must give {d} numbers with independent features, got dependent ones")
    near = samples[spread(len(samples), validation.integer("pivots", pivots))]
    table = _Table(oracle, grid, m, oracle(near[:1]).shape[1], n_sites + 1)
    search = _Search(table, table.indices(near), rank, cutoff)
    finished = True
    for sweep in range(validation.integer("sweeps", sweeps)):
        before = search.pivots()
        try:
            search.sweep(backwards=sweep % 2 == 1)
        except BudgetError:
            if sweep == 0:
                raise
            finished = False
            break
        if sweep and search.pivots() == before:
            break
    tensors, error = search.interpolation()
    sites = [torch.linalg.solve(phi[k].T, core) for k, core in enumerate(tensors[:m] + tensors[m + 1 :])]
    info = QueryResult(oracle.evaluations, oracle.asked, bonds_of(sites, tensors[m], m), error, finished)
    return sites, tensors[m], info


def pivoted_lu(matrix: Tensor, rank: int | None, cutoff: float) -> tuple[list[int], list[int]]:
    """Return the rows and columns of a matrix that full pivoting chooses, the greatest remainder first.

    Args:
        matrix: (rows, columns).
        rank: greatest number of pivots; None for any.
        cutoff: a pivot below this share of the first one is left out; the first one is always there.
    """
    remainder = matrix.clone()
    rows: list[int] = []
    columns: list[int] = []
    first = 0.0
    for _ in range(min(*matrix.shape, rank or len(matrix))):
        row, column = divmod(int(remainder.abs().argmax()), matrix.shape[1])
        pivot = float(remainder[row, column])
        first = first or abs(pivot)
        if rows and abs(pivot) <= cutoff * first:
            break
        rows.append(row)
        columns.append(column)
        if pivot == 0:
            break
        remainder = remainder - torch.outer(remainder[:, column], remainder[row]) / pivot
        remainder[row], remainder[:, column] = 0.0, 0.0
    return rows, columns


@dataclass(frozen=True)
class _Table:
    """A function as a tensor whose legs are the sites, on a grid, and before one of them the output."""

    oracle: Oracle
    grid: Tensor
    out_site: int
    n_outputs: int
    n_legs: int

    def size(self, leg: int) -> int:
        """Return the number of values of a leg."""
        return self.n_outputs if leg == self.out_site else len(self.grid)

    def indices(self, samples: Tensor) -> Tensor:
        """Return the indices (n, legs) of the nearest grid points of samples, for all outputs in turns."""
        nearest = (samples[:, :, None] - self.grid).abs().argmin(2)
        outputs = (torch.arange(len(samples)) % self.n_outputs)[:, None]
        return torch.cat([nearest[:, : self.out_site], outputs, nearest[:, self.out_site :]], 1)

    def entries(self, begun: Tensor, end: Tensor) -> Tensor:
        """Return the entries (n, m) of beginnings (n, any) with ends (m, the other legs)."""
        at = begun.shape[1]
        inside = at > self.out_site
        own, place = (begun, self.out_site) if inside else (end, self.out_site - at)
        output = own[:, place]
        own = torch.cat([own[:, :place], own[:, place + 1 :]], 1)
        begun, end = (own, end) if inside else (begun, own)
        values = self.oracle.pairs(self.grid[begun], self.grid[end])
        index = output[:, None, None] if inside else output[None, :, None]
        return values.gather(2, index.expand(*values.shape[:2], 1))[:, :, 0]


class _Search:
    """Pivots of every bond, and how they get better."""

    def __init__(self, table: _Table, candidates: Tensor, rank: int | None, cutoff: float) -> None:
        self.table, self.candidates, self.rank, self.cutoff = table, candidates, rank, cutoff
        n = table.n_legs
        self.begun = [candidates[:1, :b] for b in range(n)] + [candidates[:0]]
        self.ends = [candidates[:0], *(candidates[:1, b:] for b in range(1, n + 1))]

    def pivots(self) -> list[list[list[int]]]:
        """Return all pivots as plain numbers, in an order of their own."""
        return [sorted(part.tolist()) for part in (*self.begun, *self.ends)]

    def sweep(self, backwards: bool) -> None:
        """Choose the pivots of every bond anew."""
        bonds = range(1, self.table.n_legs)
        for b in reversed(bonds) if backwards else bonds:
            begun = torch.cat([self._longer(b), self.candidates[:, :b]]).unique(dim=0)
            ends = torch.cat([self._earlier(b), self.candidates[:, b:]]).unique(dim=0)
            rows, columns = pivoted_lu(self.table.entries(begun, ends), self.rank, self.cutoff)
            self.begun[b], self.ends[b] = begun[rows], ends[columns]

    def interpolation(self) -> tuple[list[Tensor], float]:
        """Return the tensors (left bond, values, right bond) of the chain, and the error on all candidates."""
        table, n = self.table, self.table.n_legs
        tensors = []
        for leg in range(n):
            begun, ends = self._longer(leg + 1), self.ends[leg + 1]
            tensor = table.entries(begun, ends) if leg < n - 1 else table.entries(begun, ends[:1, :0])
            if leg < n - 1:
                tensor = torch.linalg.lstsq(table.entries(self.begun[leg + 1], ends).T, tensor.T).solution.T
            tensors.append(tensor.unflatten(0, (-1, table.size(leg))))
        wanted = table.entries(self.candidates, self.candidates[:1, :0])[:, 0]
        state = wanted.new_ones(len(wanted), 1)
        for leg, tensor in enumerate(tensors):
            state = torch.einsum("nl,lnr->nr", state, tensor[:, self.candidates[:, leg]])
        return tensors, float((state[:, 0] - wanted).norm() / wanted.norm().clamp_min(torch.finfo(wanted.dtype).tiny))

    def _longer(self, bond: int) -> Tensor:
        """Return the pivots of the bond before with all values of the leg between (r values, bond)."""
        begun, size = self.begun[bond - 1], self.table.size(bond - 1)
        return torch.cat([begun.repeat_interleave(size, 0), torch.arange(size).repeat(len(begun))[:, None]], 1)

    def _earlier(self, bond: int) -> Tensor:
        """Return the pivots of the bond behind with all values of the leg between (values r, legs - bond)."""
        ends, size = self.ends[bond + 1], self.table.size(bond)
        return torch.cat([torch.arange(size).repeat_interleave(len(ends))[:, None], ends.repeat(size, 1)], 1)
