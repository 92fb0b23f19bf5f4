"""A member of a family as a network: a stem, cells in stages of falling resolution, a head.

A cell takes what other cells give in its own resolution and width: an edge between stages pools and has a 1x1
convolution, one for each cell and stage that it leads to, whoever takes it there. On inputs of more than 63 pixels the
stem halves the resolution until fewer are left.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stillhouse.models.graphs.graph import Graph
from stillhouse.models.graphs.member import Member, member
from stillhouse.models.graphs.modules import GraphModule, merge, operation
from stillhouse.models.graphs.widths import grown, polynomial, scaled, solved
from stillhouse.models.zoo.parts import check_stages, conv_norm, initialise
from stillhouse.recipe.random_graph import RandomGraphOptions

_STEM = -1
_WIDTH = 16
_LARGE_PX = 64


class Cells(nn.Module):
    """The graph of cells: [B, widths[0], H, W] -> [B, widths[-1], H / 2**s, W / 2**s], s the stages after the first."""

    def __init__(self, found: Member, options: RandomGraphOptions, widths: Sequence[int]) -> None:
        super().__init__()
        self.graph, self.stages = found.top, found.stages
        self.cells, self.merges, self.ways = nn.ModuleList(), nn.ModuleList(), nn.ModuleDict()
        for cell, (stage, before) in enumerate(zip(found.stages, found.top.before, strict=True)):
            sources = before or (_STEM,)
            self._lead(sources, stage, widths)
            self.merges.append(merge(options.merge, len(sources), widths[stage]))
            inner = [_operations(bottom, options, widths[stage]) for bottom in found.bottom[cell]]
            self.cells.append(GraphModule(found.middle[cell], inner, options.merge, widths[stage]))
        self._lead(found.top.last, found.stages[-1], widths)
        self.leave = merge(options.merge, len(found.top.last), widths[-1])

    def _lead(self, sources: Sequence[int], stage: int, widths: Sequence[int]) -> None:
        """Make the ways that lead into a stage."""
        for source in sources:
            start = 0 if source == _STEM else self.stages[source]
            if start != stage and (name := _way(source, stage)) not in self.ways:
                pool = nn.AvgPool2d(2 ** (stage - start))
                self.ways[name] = nn.Sequential(pool, conv_norm(widths[start], widths[stage], 1))

    def forward(self, inputs: Tensor) -> Tensor:
        held: dict[tuple[int, int], Tensor] = {(_STEM, 0): inputs}
        for cell, (module, join) in enumerate(zip(self.cells, self.merges, strict=True)):
            stage, before = self.stages[cell], self.graph.before[cell]
            held[cell, stage] = module(join([self._led(held, each, stage) for each in before or (_STEM,)]))
            for each in before:
                if self.graph.needed_until[each] == cell:
                    for key in [key for key in held if key[0] == each]:
                        del held[key]
        left: Tensor = self.leave([self._led(held, each, self.stages[-1]) for each in self.graph.last])
        return left

    def _led(self, held: dict[tuple[int, int], Tensor], source: int, stage: int) -> Tensor:
        """What a source gives, in a stage's resolution and width."""
        if (source, stage) not in held:
            start = 0 if source == _STEM else self.stages[source]
            held[source, stage] = self.ways[_way(source, stage)](held[source, start])
        return held[source, stage]


def _operations(graph: Graph, options: RandomGraphOptions, width: int) -> GraphModule:
    return GraphModule(graph, [operation(options, width) for _ in range(graph.nodes)], options.merge, width)


def build(options: RandomGraphOptions, channels: int, size_px: tuple[int, int], classes: int) -> nn.Module:
    """A random graph, [B, channels, height, width] -> [B, classes]; cut points ``stem``, ``cells``.

    Raises:
        ModelError: more stages than the input can be halved for; a number of parameters that it can't have.
    """
    check_stages("random_graph", len(options.depth), size_px, "depth")
    found = member(options)
    shape = grown(len(options.depth), options.growth)
    widths = options.widths or scaled(_WIDTH, shape)
    if options.params is not None:

        def count(tried: tuple[int, ...]) -> int:
            with torch.device("meta"):
                network = _assembled(found, options, tried, channels, size_px, classes)
            return sum(each.numel() for each in network.parameters())

        widths = solved(options.params, shape, polynomial(count, len(shape)))
    network = _assembled(found, options, widths, channels, size_px, classes)
    initialise(network)
    return network


def _assembled(
    found: Member,
    options: RandomGraphOptions,
    widths: Sequence[int],
    channels: int,
    size_px: tuple[int, int],
    classes: int,
) -> nn.Sequential:
    stem: list[nn.Module] = [conv_norm(channels, widths[0], 3)]
    side_px = min(size_px)
    while side_px >= _LARGE_PX:
        stem += [nn.ReLU(), conv_norm(widths[0], widths[0], 3, 2)]
        side_px //= 2
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(*stem))
    layers["cells"] = nn.Sequential(Cells(found, options, widths), nn.ReLU())
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(widths[-1], classes))
    return nn.Sequential(layers)


def _way(source: int, stage: int) -> str:
    return f"{'stem' if source == _STEM else source}-{stage}"
