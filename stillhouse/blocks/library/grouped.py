"""Grouped convolutions in place of dense ones, mixed by a pointwise one (as in ResNeXt)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from torch import nn

from stillhouse.blocks.library.alternative import Alternative, like, spatial, substituted
from stillhouse.blocks.partition import Block


def offers(block: Block) -> Iterator[Alternative]:
    """``grouped-8``, ``grouped-16``: as many groups, or as many as both widths can be split into."""
    for groups in (8, 16):
        if (made := substituted(block.core, partial(_grouped, groups=groups))) is not None:
            yield Alternative(f"grouped-{groups}", made)


def _grouped(convolution: nn.Conv2d, groups: int) -> nn.Module | None:
    width, wide = convolution.in_channels, convolution.out_channels
    groups = math.gcd(groups, math.gcd(width, wide))
    if not spatial(convolution) or groups == 1:
        return None
    mixed: list[nn.Module] = [
        like(convolution, width, wide, groups),
        nn.BatchNorm2d(wide),
        nn.ReLU(),
        nn.Conv2d(wide, wide, 1, bias=False),
    ]
    return nn.Sequential(*mixed, *([nn.BatchNorm2d(wide)] if convolution.bias is not None else []))
