"""Asking in the group size that the teacher likes, whatever the sizes of the student's batches.

A teacher computes in groups of fixed size; a half-filled one costs as much as a full one. So views of consecutive
batches are asked together and the answers handed back batch by batch, in order. The price is looking a few batches
ahead; a batch that has nothing to ask passes at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.batch import Batch

Rows = NDArray[Any]
"""Answers about some views, one row each."""


@dataclass
class _Waiting:
    """A batch of whose views the first ``asked`` are answered."""

    batch: Batch
    asked: int = 0
    pieces: list[Rows] = field(default_factory=list)


def answered_in_groups(
    batches: Iterable[Batch], answer: Callable[[Batch], Rows], *, size: int, ahead: int
) -> Iterator[tuple[Batch, Rows]]:
    """Yield every batch with its answer, in order.

    Args:
        answer: asked about ``size`` views at a time; about fewer at the end, where a batch of none stands at the head,
            and when ``ahead`` batches wait; about none for a batch of none.
    """
    waiting: deque[_Waiting] = deque()

    def gathered() -> int:
        return sum(len(each.batch) - each.asked for each in waiting)

    def ask(count: int) -> None:
        """Ask about the next ``count`` views, however many batches they are of."""
        parts, owners = [], []
        for each in waiting:
            stop = min(each.asked + count, len(each.batch))
            if stop > each.asked:
                parts.append(each.batch.part(each.asked, stop))
                owners.append(each)
                count -= stop - each.asked
        told, start = answer(parts[0] if len(parts) == 1 else Batch.join(parts)), 0
        for each, part in zip(owners, parts, strict=True):
            each.pieces.append(told[start : start + len(part)])
            each.asked += len(part)
            start += len(part)

    def finished() -> Iterator[tuple[Batch, Rows]]:
        while waiting and waiting[0].asked == len(waiting[0].batch):
            done = waiting.popleft()
            pieces = done.pieces or [answer(done.batch)]
            yield done.batch, pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    for batch in batches:
        waiting.append(_Waiting(batch))
        while gathered() >= size:
            ask(size)
        if len(waiting) > ahead and (left := gathered()):
            ask(left)
        yield from finished()
    if left := gathered():
        ask(left)
    yield from finished()
