"""Residual networks of basic blocks for small images (He et al., arXiv 1512.03385, section 4.2).

Unlike the networks for ImageNet the stem is one 3x3 convolution without pooling. Where the shape changes,
the shortcut is a 1x1 projection (option B of the paper), elsewhere the identity. The default (width 16, one block in
each of three stages) has 78 k parameters at 10 classes and costs 12.5 M multiply-adds on 32x32 RGB.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from stillhouse.models.zoo.parts import check_stages, conv_norm, initialise, start_as_identity
from stillhouse.recipe.architectures import ResNetOptions


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B, inputs, H, W] -> [B, outputs, ceil(H/stride), ceil(W/stride)]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, 3, stride)
        self.first_relu = nn.ReLU()
        self.second = conv_norm(outputs, outputs, 3)
        same_shape = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same_shape else conv_norm(inputs, outputs, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        branch = self.second(self.first_relu(self.first(values)))
        result: torch.Tensor = self.relu(branch + self.shortcut(values))
        return result


def build(options: ResNetOptions, channels: int, size_px: tuple[int, int], classes: int) -> nn.Module:
    """A residual network, [B, channels, height, width] -> [B, classes]; cut points ``stem``, ``stage1``, ``stage2``...

    Raises:
        ModelError: more stages than the input can be halved for.
    """
    check_stages("resnet", len(options.blocks), size_px)
    stem = nn.Sequential(conv_norm(channels, options.channels[0], 3), nn.ReLU())
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    inputs = options.channels[0]
    for stage, (blocks, outputs) in enumerate(zip(options.blocks, options.channels, strict=True)):
        strides = [1 if stage == 0 else 2] + [1] * (blocks - 1)
        members = [BasicBlock(inputs if i == 0 else outputs, outputs, stride) for i, stride in enumerate(strides)]
        layers[f"stage{stage + 1}"] = nn.Sequential(*members)
        inputs = outputs
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(inputs, classes))
    network = nn.Sequential(layers)
    initialise(network)
    for module in network.modules():
        if isinstance(module, BasicBlock):
            start_as_identity(module.second)
    return network
