"""Inverted bottlenecks with depthwise convolutions (Sandler et al., MobileNetV2, arXiv 1801.04381).

A block widens by ``expansion``, filters each channel alone and projects back without an activation. As in the
ResNet here the stem keeps the resolution, and stages halve it. Few multiply-adds for its accuracy, but depthwise
convolutions are bound by memory: measure the latency before choosing it for speed.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from stillhouse.models.zoo.parts import check_stages, conv_norm, initialise, start_as_identity
from stillhouse.recipe.architectures import MobileNetOptions


class InvertedBottleneck(nn.Module):
    """[B, inputs, H, W] -> [B, outputs, ceil(H/stride), ceil(W/stride)], residual where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = nn.Identity() if expansion == 1 else nn.Sequential(conv_norm(inputs, inner, 1), nn.ReLU6())
        self.depthwise = nn.Sequential(conv_norm(inner, inner, 3, stride, groups=inner), nn.ReLU6())
        self.project = conv_norm(inner, outputs, 1)
        self.residual = inputs == outputs and stride == 1

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        branch: torch.Tensor = self.project(self.depthwise(self.expand(values)))
        return values + branch if self.residual else branch


def build(options: MobileNetOptions, channels: int, size_px: tuple[int, int], classes: int) -> nn.Module:
    """A MobileNet, [B, channels, height, width] -> [B, classes]; cut points ``stem``, ``stage1``..., ``tail``.

    Raises:
        ModelError: more stages than the input can be halved for.
    """
    check_stages("mobilenet", len(options.blocks), size_px)
    stem = nn.Sequential(conv_norm(channels, options.channels[0], 3), nn.ReLU6())
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    inputs = options.channels[0]
    for stage, (blocks, outputs) in enumerate(zip(options.blocks, options.channels, strict=True)):
        members: list[nn.Module] = []
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            members.append(InvertedBottleneck(inputs, outputs, stride, options.expansion))
            inputs = outputs
        layers[f"stage{stage + 1}"] = nn.Sequential(*members)
    wide = inputs * options.expansion
    layers["tail"] = nn.Sequential(conv_norm(inputs, wide, 1), nn.ReLU6())
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), head=nn.Linear(wide, classes))
    network = nn.Sequential(layers)
    initialise(network)
    for module in network.modules():
        if isinstance(module, InvertedBottleneck) and module.residual:
            start_as_identity(module.project)
    return network
