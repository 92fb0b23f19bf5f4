"""What a block costs, or what may replace it: measured where it is to run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stillhouse.models.network import evaluating

_WARM_UPS = 2
_RUNS_MAX = 20
_BUDGET_S = 0.1


@dataclass(frozen=True)
class Cost:
    """Of inference.

    Attributes:
        params: parameters, tied ones once.
        macs: multiply-adds for one sample: convolutions and matrix products.
        bytes: parameters and buffers as they lie in memory.
        latency_ms: median for one sample, in as many threads as torch is set to.
    """

    params: int
    macs: int
    bytes: int
    latency_ms: float


def cost_of(module: nn.Module, shape: Sequence[int]) -> Cost:
    """Measure a module where it lies.

    Args:
        shape: of one sample's input.
    """
    tensors = [*module.parameters(), *module.buffers()]
    nbytes = sum(each.numel() * each.element_size() for each in tensors)
    return Cost(params_of(module), macs_of(module, shape), nbytes, latency_ms(module, shape))


def params_of(module: nn.Module) -> int:
    """Parameters."""
    return sum(each.numel() for each in module.parameters())


def macs_of(module: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds for one sample."""
    with evaluating(module), FlopCounterMode(display=False) as counter:
        module(zeros(module, shape, 1))
    return int(counter.get_total_flops()) // 2


def latency_ms(module: nn.Module, shape: Sequence[int]) -> float:
    """Median time of one sample, of up to 20 runs in a tenth of a second, three at least."""
    inputs = zeros(module, shape, 1)
    times: list[float] = []
    with evaluating(module):
        for _ in range(_WARM_UPS):
            module(inputs)
        begun = time.perf_counter()
        while len(times) < 3 or (len(times) < _RUNS_MAX and time.perf_counter() - begun < _BUDGET_S):
            start = time.perf_counter()
            module(inputs)
            if inputs.is_cuda:
                torch.cuda.synchronize(inputs.device)
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def zeros(module: nn.Module, shape: Sequence[int], count: int) -> Tensor:
    """Inputs [count, *shape] where a module lies."""
    tensors = (*module.parameters(), *module.buffers())
    return torch.zeros(count, *shape, device=tensors[0].device if tensors else "cpu")
