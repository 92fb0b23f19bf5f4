"""A directed graph without cycles, as random generators draw it: nodes are numbered, edges point upwards.

What enters a graph goes to every node that no edge leads to, and what leaves it comes from every node that no edge
leads away from (arXiv 1904.01569), so each node lies on a way through, even where the drawn graph falls into parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from stillhouse.recipe.random_graph import LevelOptions


@dataclass(frozen=True)
class Graph:
    """Nodes 0 to ``nodes`` - 1, and ``edges`` (from, to), from < to, sorted."""

    nodes: int
    edges: tuple[tuple[int, int], ...]

    @cached_property
    def before(self) -> tuple[tuple[int, ...], ...]:
        """For each node those that lead to it, ascending."""
        found: list[list[int]] = [[] for _ in range(self.nodes)]
        for start, end in self.edges:
            found[end].append(start)
        return tuple(map(tuple, found))

    @cached_property
    def last(self) -> tuple[int, ...]:
        """Nodes from which nothing leads on."""
        going_on = {start for start, _ in self.edges}
        return tuple(node for node in range(self.nodes) if node not in going_on)

    @cached_property
    def needed_until(self) -> tuple[int, ...]:
        """For each node the last one that takes what it gives; the number of nodes, if that leaves the graph."""
        until = [self.nodes] * self.nodes
        for start, end in self.edges:
            until[start] = end if until[start] == self.nodes else max(until[start], end)
        return tuple(until)


def drawn(options: LevelOptions, seed: int) -> Graph:
    """Draw a graph; the same options and seed give the same one."""
    nodes = options.nodes
    neighbours = min(options.neighbours, nodes - 1)
    if options.kind == "erdos_renyi":
        found = nx.gnp_random_graph(nodes, options.probability, seed=seed)
    elif neighbours == 0:
        found = nx.empty_graph(nodes)
    elif options.kind == "barabasi_albert":
        found = nx.barabasi_albert_graph(nodes, neighbours, seed=seed)
    else:
        # An odd number of neighbours in a ring is the even number below.
        found = nx.watts_strogatz_graph(nodes, max(neighbours, min(2, nodes)), options.probability, seed=seed)
    return Graph(nodes, tuple(sorted((min(edge), max(edge)) for edge in found.edges)))
