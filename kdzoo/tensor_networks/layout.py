"""The layout of the cores of a chain in one flat vector.

A matrix product state has cores to the left of its output core and others to its right. Both are oriented towards
the output: a core is ``[d, n_in, n_out]``, where n_in is the bond on the outer side. The vector holds the first core
from the left end, the first from the right end, the second from the left, and so on, so that the cores of a step that
both sides take at once are next to each other. States are stored in the same way.
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

    Layouts are compared by identity, which is fast: ``make_layout`` returns the same object for the same arguments.

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
        text: The arguments of :func:`make_layout` as text, see :func:`from_text`. An operator of torch takes one text
            faster than lists of hundreds of numbers.
        part: Only for a part of a longer chain that is contracted separately, as a left side: the side of the longer
            chain, the step at which the part begins, and the number of sites of the longer chain. It is needed to name
            sites in messages.
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
        """Return words for a state, for messages: the end that it comes from, and the site after which it is.

        Args:
            side: 0 for the left side, 1 for the right one.
            step: The state is before the core of this step. Sites are numbered from the left end of the whole chain.
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


# A model has one layout, and another one for each of its pieces between probes; the text is parsed at every call of the
# operator, which would take longer than a short chain.
@lru_cache(maxsize=256)
def make_layout(d: int, left: Sizes, right: Sizes, part: Part | None = None) -> Layout:
    """Return the layout of a chain; see :class:`Layout` for the arguments."""
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
    text = ";".join(",".join(map(str, numbers)) for numbers in ((d,), left, right, part or ()))
    return Layout(d, left, right, sites, _pair(slots), _pair(cores), _pair(states), n_cores, n_states, text, part)


@lru_cache(maxsize=256)
def from_text(text: str) -> Layout:
    """Return the layout with this ``text``."""
    (d,), left, right, part = (tuple(map(int, item.split(","))) if item else () for item in text.split(";"))
    return make_layout(d, left, right, (part[0], part[1], part[2]) if part else None)


def _pair(lists: tuple[list[int], list[int]]) -> tuple[Sizes, Sizes]:
    return tuple(lists[0]), tuple(lists[1])
