"""What a block costs, or what may replace it: measured where it is to run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillhouse.models.cost import count_macs, latency_ms, weight_bytes
from stillhouse.models.network import evaluating

_BUDGET_S = 0.1


@dataclass(frozen=True)
class Cost:
    """Of inference, in the units of :class:`stillhouse.models.cost.Cost`, for one sample."""

    params: int
    macs: int
    bytes: int
    latency_ms: float


def cost_of(module: nn.Module, shape: Sequence[int], *, timed: bool = True) -> Cost:
    """Measure a module where it lies.

    Args:
        shape: of one sample's input.
        timed: whether the latency is wanted; else it is NaN.
    """
    inputs, params, nbytes = zeros(module, shape, 1), params_of(module), weight_bytes(module)
    with evaluating(module):
        taken_ms = latency_ms(module, inputs, _BUDGET_S) if timed else math.nan
        return Cost(params, count_macs(module, inputs), nbytes, taken_ms)


def params_of(module: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(each.numel() for each in module.parameters())


def macs_of(module: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds for one sample."""
    with evaluating(module):
        return count_macs(module, zeros(module, shape, 1))


def zeros(module: nn.Module, shape: Sequence[int], count: int) -> Tensor:
    """Inputs [count, *shape] where a module lies."""
    tensors = (*module.parameters(), *module.buffers())
    return torch.zeros(count, *shape, device=tensors[0].device if tensors else "cpu")
