"""An average of a network over the steps of its training, as cheap as it can be: it is taken at each of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tensors = tuple[Tensor, ...] | list[Tensor]

_TAIL = 4


class Average(AveragedModel):
    """Parameters and buffers, averaged. What torch does at each step, with the network looked through only once.

    Args:
        decay: of a moving average; None: over the last steps, a fifth of those taken.
    """

    def __init__(self, network: nn.Module, decay: float | None) -> None:
        average = tail_average if decay is None else get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(network, multi_avg_fn=average, use_buffers=True)
        self._average = average
        self._groups: dict[tuple[torch.device, torch.dtype], list[tuple[_Place, _Place]]] = {}
        for mine, theirs in zip(_places(self.module), _places(network), strict=True):
            tensor = mine.held[mine.name]
            self._groups.setdefault((tensor.device, tensor.dtype), []).append((mine, theirs))

    @torch.no_grad()
    def add(self, count: int) -> None:
        """The network as it is now, after ``count`` that were added."""
        for pairs in self._groups.values():
            means = [mine.held[mine.name] for mine, _ in pairs]
            values = [theirs.held[theirs.name] for _, theirs in pairs]
            if count:
                self._average(means, values, count)
            else:
                torch._foreach_copy_(means, values)
        self.n_averaged += 1


class _Place(NamedTuple):
    """Where a tensor lies: a buffer may be another tensor after a step."""

    held: dict[str, Any]
    name: str


def _places(network: nn.Module) -> list[_Place]:
    """Of each tensor of a network, shared ones once."""
    found, known = list[_Place](), set[int]()
    for module in network.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and id(tensor) not in known:
                    known.add(id(tensor))
                    found.append(_Place(held, name))
    return found


@torch.no_grad()
def tail_average(means: Tensors, values: Tensors, count: Tensor | int) -> None:
    """Polynomial-decay averaging (arXiv 1212.1824): an average over the last steps, a fifth of those taken.

    So it needs no setting that fits one length of training only.

    Args:
        means: of the ``count`` steps before; changed in place.
        values: of this step.
    """
    if means[0].is_floating_point():
        torch._foreach_lerp_(means, values, (_TAIL + 1) / (float(count) + 1 + _TAIL))
    else:
        torch._foreach_copy_(means, values)
