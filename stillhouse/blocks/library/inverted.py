"""One inverted bottleneck (MobileNetV2) in place of a whole block: widen, look around in each channel, narrow."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from stillhouse.blocks.library.alternative import Alternative, depthwise
from stillhouse.blocks.partition import Block


def offers(block: Block) -> Iterator[Alternative]:
    """``inverted-2``, ``inverted-4``: so many times as wide inside; from one image to another."""
    if len(block.in_shape) == len(block.out_shape) == 3:
        stride = round(block.in_shape[1] / block.out_shape[1])
        for factor in (2, 4):
            yield Alternative(f"inverted-{factor}", Inverted(block, factor, stride))


class Inverted(nn.Module):
    """[B, C, H, W] -> [B, C', ceil(H / stride), ceil(W / stride)]; the input is added where shapes allow."""

    def __init__(self, block: Block, factor: int, stride: int) -> None:
        super().__init__()
        width, wide = block.in_shape[0], block.out_shape[0]
        inner = factor * width
        self.layers = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            depthwise(nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), block),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
        )
        self.adds = block.in_shape == block.out_shape
        self.activation = copy.deepcopy(block.activation) or nn.Identity()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """See above."""
        outputs = self.layers(inputs)
        result: torch.Tensor = self.activation(inputs + outputs if self.adds else outputs)
        return result
