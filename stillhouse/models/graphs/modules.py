"""A graph as a module: a node joins what leads to it and works on it; what nobody needs any more is let go."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stillhouse.models.graphs.graph import Graph
from stillhouse.models.zoo.parts import conv_norm
from stillhouse.recipe.random_graph import MergeKind, RandomGraphOptions

_EXPANSION = 4


class WeightedSum(nn.Module):
    """sum_i sigmoid(w_i) x_i, w learned (arXiv 1904.01569): ``count`` times [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        shares = torch.sigmoid(self.weight)
        total: Tensor = inputs[0] * shares[0]
        for number, each in enumerate(inputs[1:], 1):
            total = total + each * shares[number]
        return total


class Sum(nn.Module):
    """x_1 + x_2 + ..., divided by the square root of their number, so that the deviation stays."""

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        total = inputs[0]
        for each in inputs[1:]:
            total = total + each
        return total * (1 / math.sqrt(len(inputs)))


class Concat(nn.Module):
    """Channels behind one another, then a 1x1 convolution back to as many as each has."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.join = conv_norm(count * width, width, 1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        joined: Tensor = self.join(torch.cat(list(inputs), 1))
        return joined


class Only(nn.Module):
    """What comes from one place needs no joining."""

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return inputs[0]


def merge(kind: MergeKind, count: int, width: int) -> nn.Module:
    """What joins ``count`` tensors of ``width`` channels."""
    if count == 1:
        return Only()
    if kind == "weighted":
        return WeightedSum(count)
    return Sum() if kind == "sum" else Concat(count, width)


def operation(options: RandomGraphOptions, width: int) -> nn.Sequential:
    """ReLU, convolution, batch norm: [B, width, H, W] -> the same shape.

    An inverted bottleneck has its activations inside, where it is wide (arXiv 1801.04381): none before it.
    """
    kernel = options.kernel
    if options.operation == "conv":
        return nn.Sequential(nn.ReLU(), conv_norm(width, width, kernel))
    if options.operation == "separable":
        depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        return nn.Sequential(nn.ReLU(), depthwise, conv_norm(width, width, 1))
    inner = _EXPANSION * width
    return nn.Sequential(
        conv_norm(width, inner, 1),
        nn.ReLU(),
        conv_norm(inner, inner, kernel, groups=inner),
        nn.ReLU(),
        conv_norm(inner, width, 1),
    )


class GraphModule(nn.Module):
    """A graph whose nodes all have the same shape: [B, C, H, W] -> [B, C, H, W].

    Args:
        nodes: one module for each.
    """

    def __init__(self, graph: Graph, nodes: Sequence[nn.Module], kind: MergeKind, width: int) -> None:
        super().__init__()
        self.graph = graph
        self.merges = nn.ModuleList(merge(kind, len(before), width) for before in graph.before if before)
        self.nodes = nn.ModuleList(nodes)
        self.leave = merge(kind, len(graph.last), width)

    def forward(self, inputs: Tensor) -> Tensor:
        held: dict[int, Tensor] = {}
        merges = iter(self.merges)
        for number, (node, before) in enumerate(zip(self.nodes, self.graph.before, strict=True)):
            held[number] = node(next(merges)([held[each] for each in before]) if before else inputs)
            for each in before:
                if self.graph.needed_until[each] == number:
                    del held[each]
        left: Tensor = self.leave([held[each] for each in self.graph.last])
        return left
