"""What a network costs: parameters, multiply-adds, bytes, peak memory and latency of inference as it stands.

Multiply-adds are half of what ``torch.utils.flop_counter`` counts: convolutions, matrix products and attention, not
element-wise work. On the CPU, peak memory is counted by watching every storage that an operator makes, which sees
neither scratch space inside an operator nor the allocator's rounding.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from stillhouse.models.interface import Interface
from stillhouse.models.network import Network, evaluating

_WARM_UPS = 3
_RUNS_MAX = 50
_BUDGET_S = 1.0


@dataclass(frozen=True)
class Cost:
    """Cost of inference.

    Args:
        params: parameters, tied ones once.
        macs: multiply-adds for one sample.
        bytes: parameters and buffers as they lie in memory.
        peak_bytes: ``bytes`` and the most bytes of input and activations alive at once, for the batch measured.
        latency_ms: median for the batch measured; on the CPU with one thread.
    """

    params: int
    macs: int
    bytes: int
    peak_bytes: int
    latency_ms: float


def measure_cost(
    network: Network, interface: Interface, batch_size: int = 1, latency_budget_s: float = _BUDGET_S
) -> Cost:
    """Measure a network where it lies, in evaluation mode, on a batch of zeros; modes and threads are restored.

    The latency is the median of 50 runs after 3 to warm up, or of as many as fit in the time for it, three at least.
    """
    held_bytes = weight_bytes(network)
    with evaluating(network):
        macs = count_macs(network, interface.zeros(1, network.device))
        activation_bytes = _peak_activation_bytes(network, interface, batch_size)
        median_ms = latency_ms(network, interface.zeros(batch_size, network.device), latency_budget_s)
    return Cost(
        params=sum(parameter.numel() for parameter in network.parameters()),
        macs=macs,
        bytes=held_bytes,
        peak_bytes=held_bytes + activation_bytes,
        latency_ms=median_ms,
    )


def weight_bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers, tied ones once."""
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def count_macs(module: nn.Module, inputs: torch.Tensor) -> int:
    """Multiply-adds of a pass over ``inputs``, in the mode that the module is in."""
    with FlopCounterMode(display=False) as counter:
        module(inputs)
    return int(counter.get_total_flops()) // 2


def _peak_activation_bytes(network: Network, interface: Interface, batch_size: int) -> int:
    if network.device.type == "cuda":
        torch.cuda.synchronize(network.device)
        before_bytes = torch.cuda.memory_allocated(network.device)
        torch.cuda.reset_peak_memory_stats(network.device)
        network(interface.zeros(batch_size, network.device))
        return torch.cuda.max_memory_allocated(network.device) - before_bytes
    inputs = interface.zeros(batch_size, network.device)
    watch = _LiveBytes([*network.parameters(), *network.buffers()])
    watch.add(inputs)
    with watch:
        network(inputs)
    return watch.peak_bytes


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Bytes of the storages that operators made and that still live; views share one storage and count once."""

    def __init__(self, ignored: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = 0
        self._live_bytes = 0
        self._ignored = {tensor.untyped_storage()._cdata for tensor in ignored}
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if address in self._ignored or address in self._alive:
            return

        def forget(_: object) -> None:
            del self._alive[address]
            self._live_bytes -= size

        self._alive[address] = weakref.ref(storage, forget)
        self._live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(answer):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return answer


def latency_ms(module: nn.Module, inputs: torch.Tensor, budget_s: float = _BUDGET_S) -> float:
    """Median time of a pass, in the mode that the module is in; on the CPU with one thread."""
    readings_s: list[float] = []
    start = time.perf_counter()
    with _one_thread(), torch.inference_mode():
        for _ in range(_WARM_UPS):
            module(inputs)
        while len(readings_s) < _RUNS_MAX and (len(readings_s) < 3 or time.perf_counter() - start < budget_s):
            _wait_for(inputs.device)
            before = time.perf_counter()
            module(inputs)
            _wait_for(inputs.device)
            readings_s.append(time.perf_counter() - before)
    return statistics.median(readings_s) * 1e3


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
