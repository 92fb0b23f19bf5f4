"""Depthwise separable convolutions in place of dense ones: two for each, as paper 2 has it, with norms; or one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import nn

from stillhouse.blocks.library.alternative import Alternative, depthwise, like, spatial, substituted
from stillhouse.blocks.partition import Block


def offers(block: Block) -> Iterator[Alternative]:
    """``separable``: [depthwise, pointwise] twice for each spatial convolution; ``separable-1``: once."""
    for name, count in (("separable", 2), ("separable-1", 1)):
        if (made := substituted(block.core, partial(_separable, count=count, block=block))) is not None:
            yield Alternative(name, made)


def _separable(convolution: nn.Conv2d, count: int, block: Block) -> nn.Module | None:
    if not spatial(convolution):
        return None
    width, wide = convolution.in_channels, convolution.out_channels
    first = depthwise(like(convolution, width, width, groups=width), block)
    layers: list[nn.Module] = [first, nn.Conv2d(width, wide, 1, bias=False)]
    for _ in range(count - 1):
        again = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False)
        layers += [nn.BatchNorm2d(wide), nn.ReLU(), depthwise(again, block)]
        layers += [nn.Conv2d(wide, wide, 1, bias=False)]
    # Where it had a bias no norm follows.
    return nn.Sequential(*layers, *([nn.BatchNorm2d(wide)] if convolution.bias is not None else []))
