"""How long a network would take on a device that is not here, by its roofline (Williams et al., 2009).

Each operator takes as long as its multiply-adds or the bytes that it reads and writes, whichever take longer, and what
it costs to be called. Operators are those that torch calls: a device that joins some of them is faster than this says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from stillhouse.models.interface import Interface
from stillhouse.models.network import Network, evaluating


@dataclass(frozen=True)
class Roofline:
    """A device: multiply-adds and bytes a second, and seconds that a call of an operator costs."""

    macs_per_s: float
    bytes_per_s: float
    call_s: float = 0.0

    def latency_ms(self, network: Network, interface: Interface) -> float:
        """Of one sample, in evaluation mode."""
        watch = _Watch(self)
        with evaluating(network), torch.no_grad(), watch:
            network(interface.zeros(1, network.device))
        return 1e3 * watch.seconds


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Adds up what each operator would take; views cost nothing."""

    def __init__(self, device: Roofline) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds: float = 0.0
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        read = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        written = [each for each in tree_leaves(answer) if isinstance(each, Tensor)]
        known = {each.untyped_storage()._cdata for each in read}
        if not all(each.untyped_storage()._cdata in known for each in written) or func._schema.is_mutable:
            count = flop_registry.get(func._overloadpacket)
            macs = count(*args, **(kwargs or {}), out_val=answer) / 2 if count else 0
            moved = sum(each.numel() * each.element_size() for each in (*read, *written))
            self.seconds += max(macs / self._device.macs_per_s, moved / self._device.bytes_per_s) + self._device.call_s
        return answer
