"""A device that is not here: what a network would take there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stillhouse.models.build import build
from stillhouse.models.interface import Interface
from stillhouse.models.roofline import Roofline, _Watch
from stillhouse.recipe.architectures import ModelSection, Normalisation


def seconds(device: Roofline, module: nn.Module, inputs: torch.Tensor) -> float:
    with torch.no_grad(), _Watch(device) as watch:
        module(inputs)
    return watch.seconds


def test_the_longer_of_both_counts() -> None:
    """A convolution of 8 x 8 x 9 x 16 multiply-adds; its bytes are those of input, weights and output."""
    module, inputs = nn.Conv2d(1, 16, 3, padding=1, bias=False), torch.zeros(1, 1, 8, 8)
    macs, moved = 8 * 8 * 9 * 16, 4 * (64 + 144 + 16 * 64)
    assert seconds(Roofline(1e6, 1e12), module, inputs) == pytest.approx(macs / 1e6)
    assert seconds(Roofline(1e12, 1e6), module, inputs) == pytest.approx(moved / 1e6)
    assert seconds(Roofline(1e6, 1e12, 0.5), module, inputs) == pytest.approx(macs / 1e6 + 0.5)


def test_views_are_free_and_what_is_written_in_place_is_not() -> None:
    """Flattening moves nothing; ReLU in place reads and writes."""
    device = Roofline(1e12, 1e6, 0.25)
    assert seconds(device, nn.Flatten(), torch.zeros(2, 3, 4)) == 0
    assert seconds(device, nn.ReLU(inplace=True), torch.zeros(10)) > 0.25


def test_a_wider_network_takes_longer() -> None:
    """By about as much as it has more multiply-adds, where these count."""
    device, interface = Roofline(1e9, 1e15), Interface((3, 16, 16), True, 10)
    found = []
    for width in (8, 16):
        model = ModelSection(arch="resnet", options={"width": width, "blocks": [1, 1]})
        network = build(model, interface, Normalisation(mean=(0.0,), std=(1.0,)), 0, "student")
        found.append(device.latency_ms(network, interface))
    assert 3 < found[1] / found[0] < 4.2
