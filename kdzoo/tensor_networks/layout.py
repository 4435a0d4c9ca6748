"""Where the cores of a chain lie in one flat vector.

A matrix product state has a chain of cores to the left of its output and one to its right. Both are oriented towards
the output: a core is (d, n_in, n_out), where n_in is the bond on the outer side. The vector holds the first core from
the left end, the first from the right end, the second from the left, and so on, so that the cores of a step that both
sides take at once lie beside each other. States lie in the same way.
"""

from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Offsets of cores and of states, which are the vectors (bond) of one sample between the cores.

    Attributes:
        d: number of features of a site.
        left: bond dimensions from the left end to the output; one more than sites.
        right: the same from the right end.
        sites: number of each site of the left and of the right side, counted from the left end of the chain.
        slots: position of each of these sites in the order of the cores.
        cores: offset of each core of the left and of the right side.
        states: offset of each state of both sides, in numbers of one sample.
        n_cores: length of the vector of cores.
        n_states: numbers of the states of one sample.
    """

    d: int
    left: Sizes
    right: Sizes
    sites: tuple[Sizes, Sizes]
    slots: tuple[Sizes, Sizes]
    cores: tuple[Sizes, Sizes]
    states: tuple[Sizes, Sizes]
    n_cores: int
    n_states: int

    @property
    def sides(self) -> tuple[Sizes, Sizes]:
        """Bond dimensions of both sides."""
        return self.left, self.right

    @property
    def n_sites(self) -> int:
        """Number of sites of both sides."""
        return len(self.left) + len(self.right) - 2

    @property
    def order(self) -> list[int]:
        """Number of the site at each position in the order of the cores."""
        pairs = ((slot, site) for side in (0, 1) for slot, site in zip(self.slots[side], self.sites[side], strict=True))
        return [site for _, site in sorted(pairs)]

    def shape(self, side: int, step: int) -> tuple[int, int, int]:
        """Return (d, n_in, n_out) of the core of ``side`` (0 left, 1 right) that is ``step`` sites from its end."""
        return self.d, self.sides[side][step], self.sides[side][step + 1]

    def core(self, cores: Tensor, side: int, step: int) -> Tensor:
        """Return a view (d, n_in, n_out) of one core in the vector ``cores``."""
        shape = self.shape(side, step)
        start = self.cores[side][step]
        return cores[start : start + shape[0] * shape[1] * shape[2]].view(shape)


@lru_cache(maxsize=256)
def layout(d: int, left: Sizes, right: Sizes) -> Layout:
    """Return the layout of a chain with ``d`` features per site and the bonds ``left`` and ``right``."""
    slots: tuple[list[int], list[int]] = ([], [])
    cores: tuple[list[int], list[int]] = ([], [])
    states: tuple[list[int], list[int]] = ([], [])
    n_sites = n_cores = n_states = 0
    for step in range(max(len(left), len(right))):
        for side, bonds in enumerate((left, right)):
            if step < len(bonds):
                states[side].append(n_states)
                n_states += bonds[step]
            if step + 1 < len(bonds):
                slots[side].append(n_sites)
                n_sites += 1
                cores[side].append(n_cores)
                n_cores += d * bonds[step] * bonds[step + 1]
    sites = tuple(range(len(left) - 1)), tuple(reversed(range(len(left) - 1, n_sites)))
    return Layout(d, left, right, sites, _pair(slots), _pair(cores), _pair(states), n_cores, n_states)


def _pair(lists: tuple[list[int], list[int]]) -> tuple[Sizes, Sizes]:
    return tuple(lists[0]), tuple(lists[1])
