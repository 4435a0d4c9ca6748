"""Where the cores of a chain lie in one flat vector.

A matrix product state has a chain of cores to the left of its output and one to its right. Both are oriented towards
the output: a core is ``[d, n_in, n_out]``, where n_in is the bond on the outer side. The vector holds the first core from
the left end, the first from the right end, the second from the left, and so on, so that the cores of a step that both
sides take at once lie beside each other. States lie in the same way.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

from torch import Tensor

Sizes = tuple[int, ...]
Part = tuple[int, int, int]
ENDS = ("left", "right")


@dataclass(frozen=True, eq=False)
class Layout:
    """Offsets of cores and of states, which are the vectors ``[bond]`` of one sample between the cores.

    A layout is equal to itself only: ``layout`` makes one of each kind.

    Attributes:
        d: Number of features of a site.
        left: Bond dimensions from the left end to the output; one more than sites.
        right: The same from the right end.
        sites: Number of each site of the left and of the right side, counted from the left end of the chain.
        slots: Position of each of these sites in the order of the cores.
        cores: Offset of each core of the left and of the right side.
        states: Offset of each state of both sides, in numbers of one sample.
        n_cores: Length of the vector of cores.
        n_states: Numbers of the states of one sample.
        text: All that makes the layout, for ``from_text``: to operators of torch it is cheaper than many numbers.
        part: For the sites of a part of another chain, as a left side: which of its sides, how many steps from that end
            the part begins, and the other chain's number of sites.
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
    text: str
    part: Part | None = None

    @property
    def sides(self) -> tuple[Sizes, Sizes]:
        """Bond dimensions of both sides."""
        return self.left, self.right

    @property
    def n_sites(self) -> int:
        """Number of sites of both sides."""
        return len(self.left) + len(self.right) - 2

    @cached_property
    def order(self) -> list[int]:
        """Number of the site at each position in the order of the cores."""
        pairs = ((slot, site) for side in (0, 1) for slot, site in zip(self.slots[side], self.sites[side], strict=True))
        return [site for _, site in sorted(pairs)]

    def place(self, side: int, step: int) -> tuple[str, str]:
        """Return the end that a state before core ``step`` of ``side`` comes from, and after which of the sites it is.

        The sites are numbered from the left end of the whole chain.
        """
        n_sites = self.n_sites
        if self.part is not None:
            side, first, n_sites = self.part
            step += first
        at = f"after site {n_sites - step if side else step - 1} of {n_sites} (in the chain's order)"
        return ENDS[side], at if step else "at its start"

    def shape(self, side: int, step: int) -> tuple[int, int, int]:
        """Return ``[d, n_in, n_out]`` of the core of ``side`` (0 left, 1 right) that is ``step`` sites from its end."""
        return self.d, self.sides[side][step], self.sides[side][step + 1]

    def core(self, cores: Tensor, side: int, step: int) -> Tensor:
        """Return a view ``[d, n_in, n_out]`` of one core in the vector ``cores``."""
        shape = self.shape(side, step)
        start = self.cores[side][step]
        return cores[start : start + shape[0] * shape[1] * shape[2]].view(shape)


@lru_cache(maxsize=256)
def make_layout(d: int, left: Sizes, right: Sizes, part: Part | None = None) -> Layout:
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
    text = ";".join(",".join(map(str, one)) for one in ((d,), left, right, part or ()))
    return Layout(d, left, right, sites, _pair(slots), _pair(cores), _pair(states), n_cores, n_states, text, part)


@lru_cache(maxsize=256)
def from_text(text: str) -> Layout:
    """Return the layout whose ``text`` this is."""
    (d,), left, right, part = (tuple(map(int, one.split(","))) if one else () for one in text.split(";"))
    return make_layout(d, left, right, (part[0], part[1], part[2]) if part else None)


def _pair(lists: tuple[list[int], list[int]]) -> tuple[Sizes, Sizes]:
    return tuple(lists[0]), tuple(lists[1])
