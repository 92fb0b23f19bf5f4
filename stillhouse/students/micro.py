"""One step's micro-batches: what each found, kept apart and brought together in their order.

Gradients add up as autograd adds them in one process, where they need no memory of their own; in a group each student
keeps one copy for each micro-batch of its share. Buffers (batch norm's statistics): every micro-batch starts from those
of the step, and afterwards they are the mean of what the micro-batches made of them, in order; counters
are those of the first. With one micro-batch all is what the forward pass left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from stillhouse.students.group import Group, in_order

_ABSENT = -0.0
"""Added to a number it changes nothing, not even the sign of a zero."""


class MicroBatches:
    """Opened before a step's first micro-batch; :meth:`put` after each backward pass, :meth:`close` after the last.

    Args:
        parameters: whose gradients are wanted.
        modules: whose buffers a step changes.
        names: of the losses that each micro-batch tells; one that is not told counts as 0.
        count: micro-batches of the step, of all students.
    """

    def __init__(
        self, group: Group, parameters: Iterable[Tensor], modules: Iterable[nn.Module], names: Sequence[str], count: int
    ) -> None:
        self._group, self._names, self._count = group, names, count
        self._parameters = list(parameters)
        self._buffers = [each for module in modules for each in module.buffers()] if count > 1 else []
        self._before = [each.clone() for each in self._buffers]
        self._after: list[list[Tensor]] = []
        self._gradients: list[list[Tensor | None]] = []
        self._losses: list[dict[str, Tensor]] = []

    def put(self, losses: dict[str, Tensor]) -> None:
        """Take what one micro-batch left in gradients and buffers, and its losses, detached."""
        self._losses.append(losses)
        if self._group.size > 1:
            self._gradients.append([each.grad for each in self._parameters])
            for each in self._parameters:
                each.grad = None
        if self._buffers:
            self._after.append([each.clone() for each in self._buffers])
            for each, before in zip(self._buffers, self._before, strict=True):
                each.copy_(before)

    def close(self) -> list[dict[str, Tensor]]:
        """Leave the sum of all gradients, and all buffers' mean, where one micro-batch would; the losses of each."""
        if self._gradients:
            self._join_gradients()
        if self._buffers:
            self._join_buffers()
        if self._group.size == 1:
            return self._losses
        nothing = torch.zeros((), device=self._losses[0]["total"].device)
        rows = torch.stack(
            [torch.stack([each.get(name, nothing).float() for name in self._names]) for each in self._losses]
        )
        return [dict(zip(self._names, row, strict=True)) for row in self._group.gathered(rows, self._count)]

    def _join_gradients(self) -> None:
        seen = torch.tensor([[each is not None for each in row] for row in self._gradients], dtype=torch.uint8)
        anybody = self._group.gathered(seen, self._count).amax(0).tolist()  # never on the device: it need not wait
        for places in _by_dtype(self._parameters):
            wanted = [place for place in places if anybody[place]]
            if not wanted:
                continue
            rows = torch.stack([self._flat(row, wanted) for row in self._gradients])
            for place in wanted:  # of two copies one is enough
                for row in self._gradients:
                    row[place] = None
            total = self._group.summed(rows, self._count)
            for place, part in zip(wanted, _cut(total, [self._parameters[each] for each in wanted]), strict=True):
                parameter = self._parameters[place]
                # the same layout in memory that autograd gives it: a norm adds up in that order
                parameter.grad = torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(part)

    def _flat(self, row: list[Tensor | None], places: Sequence[int]) -> Tensor:
        parts = []
        for place in places:
            found, parameter = row[place], self._parameters[place]
            parts.append(torch.full_like(parameter, _ABSENT).reshape(-1) if found is None else found.reshape(-1))
        return torch.cat([part.detach() for part in parts])

    def _join_buffers(self) -> None:
        for places in _by_dtype(self._buffers):
            rows = torch.stack([torch.cat([row[place].reshape(-1) for place in places]) for row in self._after])
            before = torch.cat([self._before[place].reshape(-1) for place in places])
            joined = _joined(self._group.gathered(rows, self._count), before)
            targets = [self._buffers[place] for place in places]
            for buffer, part in zip(targets, _cut(joined, targets), strict=True):
                buffer.copy_(part)


def _joined(rows: Tensor, before: Tensor) -> Tensor:
    """[N]: of rows [count, N] the mean, or the first; what no micro-batch changed stays exactly as it was."""
    if not (rows.is_floating_point() or rows.is_complex()):
        return rows[0]
    return torch.where((rows != before).any(0), in_order(rows) / len(rows), before)


def _by_dtype(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Numbers of the tensors, those of one type together."""
    found: dict[torch.dtype, list[int]] = {}
    for place, tensor in enumerate(tensors):
        found.setdefault(tensor.dtype, []).append(place)
    return list(found.values())


def _cut(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(flat, [each.numel() for each in like])
    return [part.view(each.shape) for part, each in zip(parts, like, strict=True)]
