"""Plain stacks of 3x3 convolutions with batch norm (Simonyan and Zisserman, arXiv 1409.1556).

A 2x2 max-pool opens every stage but the first, as long as both sides have two pixels left, so any input and any
number of stages fit. The paper's fully connected layers give way to global average pooling and one linear head. The
default (width 16, two convolutions in each of three stages) has 73 k parameters at 10 classes and costs 9.9 M
multiply-adds on 32x32 RGB.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from stillhouse.models.zoo.parts import conv_norm, initialise
from stillhouse.recipe.architectures import VGGOptions


def build(options: VGGOptions, channels: int, size_px: tuple[int, int], classes: int) -> nn.Module:
    """A VGG, [B, channels, height, width] -> [B, classes]; cut points ``stage1``, ``stage2``..."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs, side_px = channels, min(size_px)
    for stage, (blocks, outputs) in enumerate(zip(options.blocks, options.channels, strict=True)):
        members: list[nn.Module] = []
        if stage > 0 and side_px >= 2:
            members.append(nn.MaxPool2d(2))
            side_px //= 2
        for _ in range(blocks):
            members += [conv_norm(inputs, outputs, 3), nn.ReLU()]
            inputs = outputs
        layers[f"stage{stage + 1}"] = nn.Sequential(*members)
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(inputs, classes))
    network = nn.Sequential(layers)
    initialise(network)
    return network
