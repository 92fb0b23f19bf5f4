"""Fully connected layers with ReLU on the flattened input, for images and any other float data.

The first layer holds nearly all weights, channels x height x width x hidden[0]: nothing is shared over positions.
With ``hidden: []`` it is multinomial logistic regression.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from stillhouse.models.zoo.parts import initialise
from stillhouse.recipe.architectures import MLPOptions


def build(options: MLPOptions, channels: int, size_px: tuple[int, int], classes: int) -> nn.Module:
    """An MLP, [B, ...] with channels x height x width values a sample -> [B, classes]; cut points ``stage1``..."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    inputs = channels * size_px[0] * size_px[1]
    for stage, outputs in enumerate(options.hidden):
        layers[f"stage{stage + 1}"] = nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())
        inputs = outputs
    layers["head"] = nn.Linear(inputs, classes)
    network = nn.Sequential(layers)
    initialise(network)
    return network
