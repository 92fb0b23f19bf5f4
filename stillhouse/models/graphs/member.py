"""One member of a family: its graphs on three levels, drawn from a tree of seeds.

Every graph has a seed of its own, so that a member is a function of the family's parameters and one number, and
members with other numbers are other networks. The digest of the graphs travels with a recipe: a library that one day
draws otherwise is noticed, instead of building another network under the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from stillhouse.foundation.errors import ModelError
from stillhouse.foundation.files import digest_json
from stillhouse.foundation.seeding import subseed
from stillhouse.models.graphs.graph import Graph, drawn
from stillhouse.recipe.random_graph import RandomGraphOptions


@dataclass(frozen=True)
class Member:
    """Graphs in graphs.

    Attributes:
        top: its nodes are cells.
        middle: the graph in each cell.
        bottom: for each cell, for each node of the graph in it, the graph of operations in that.
        stages: of each cell, from 0 on, never falling.
    """

    top: Graph
    middle: tuple[Graph, ...]
    bottom: tuple[tuple[Graph, ...], ...]
    stages: tuple[int, ...]

    @cached_property
    def digest(self) -> str:
        """Of all graphs; 16 hexadecimal digits."""
        graphs = [self.top, *self.middle, *(each for several in self.bottom for each in several)]
        return digest_json([self.stages, [[each.nodes, each.edges] for each in graphs]])[:16]

    @property
    def operations(self) -> int:
        """How many there are."""
        return sum(graph.nodes for several in self.bottom for graph in several)


def member(options: RandomGraphOptions) -> Member:
    """Draw the member that ``options.seed`` says.

    Raises:
        ModelError: its graphs are not those that ``options.graphs`` says.
    """
    seed, cells = options.seed, range(options.top.nodes)
    found = Member(
        drawn(options.top, subseed(seed, "top")),
        tuple(drawn(options.middle, subseed(seed, "middle", cell)) for cell in cells),
        tuple(
            tuple(drawn(options.bottom, subseed(seed, "bottom", cell, node)) for node in range(options.middle.nodes))
            for cell in cells
        ),
        split(options.top.nodes, options.depth),
    )
    if options.graphs not in (None, found.digest):
        raise ModelError(
            f"its graphs are {found.digest}, not {options.graphs}: another version of networkx draws otherwise; take "
            "the one that the run's versions name, or, for a new network, leave options.graphs out"
        )
    return found


def split(nodes: int, shares: Sequence[int]) -> tuple[int, ...]:
    """The stage of each node: in proportion to ``shares``, one node for each stage at least (largest remainders).

    Args:
        nodes: as many as there are stages, at least.
        shares: of each stage, positive.
    """
    free, total = nodes - len(shares), sum(shares)
    wanted = [free * share / total for share in shares]
    counts = [int(each) for each in wanted]
    rest = sorted(range(len(shares)), key=lambda stage: (counts[stage] - wanted[stage], stage))
    for stage in rest[: free - sum(counts)]:
        counts[stage] += 1
    return tuple(stage for stage, count in enumerate(counts) for _ in range(count + 1))
