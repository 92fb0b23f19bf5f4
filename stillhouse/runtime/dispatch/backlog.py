"""Pending items, and whose turn it is. Every operation costs O(log n), amortised.

Items that were lent before come first, the oldest first: their consumers have waited longest, and whatever they hold
up is answered already. Then the consumers are served by need: the one whose pending item is the fewest places from
the one it takes next. So buffers of all consumers are kept equally full, a consumer that takes faster is served more
often, and one with a large window gains nothing by asking far ahead; equals take turns. Need is counted in items, not
seconds, since a starved consumer has no speed that could be measured.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Final

from stillhouse.runtime.dispatch.heaps import VOID, LazyHeap
from stillhouse.runtime.dispatch.leases import PENDING, Consumer, OpenItem

LOOK: Final = 16
"""So many items or workers are tried when the first does not suit: unsuitable ones are rare."""


class Backlog:
    """Items that wait for a worker.

    Attributes:
        again, solo: items that were lent before, by age; those that travel alone apart. Void entries among them.
    """

    def __init__(self) -> None:
        self.again: list[tuple[int, OpenItem]] = []
        self.solo: list[tuple[int, OpenItem]] = []
        self._needy: LazyHeap[Consumer] = LazyHeap(count())

    def add_fresh(self, opened: OpenItem) -> None:
        """Add an item that was never lent."""
        consumer = opened.consumer
        consumer.fresh.append(opened)
        if len(consumer.fresh) == 1:
            self._needy.put(opened.item.number - consumer.taken, consumer)

    def add_again(self, opened: OpenItem) -> None:
        """Add an item that was lent before; its former entry may still be there."""
        if not opened.queued:
            opened.queued = True
            heappush(self.solo if opened.solo else self.again, (opened.age, opened))

    def rank(self, consumer: Consumer) -> None:
        """Set a consumer's place by its need, which has changed. Without pending items it has none."""
        if consumer.fresh:
            self._needy.put(consumer.fresh[0].item.number - consumer.taken, consumer)

    def forget(self, consumer: Consumer) -> None:
        """Drop what a consumer has pending."""
        consumer.fresh.clear()
        consumer.ticket = VOID

    def pop_fresh(self) -> OpenItem | None:
        """The first of the items that were never lent."""
        top = self._needy.top()
        if top is None:
            return None
        consumer = top[2]
        opened = consumer.fresh.popleft()
        if consumer.fresh:
            self._needy.replace_top(consumer.fresh[0].item.number - consumer.taken)
        else:
            self._needy.drop_top()
        return opened

    def pop_again(self, suits: Callable[[OpenItem], bool]) -> OpenItem | None:
        """The oldest item that was lent before, is not solo and suits."""
        return self._pop(self.again, suits)

    def pop_solo(self, suits: Callable[[OpenItem], bool]) -> OpenItem | None:
        """The oldest solo item that suits."""
        return self._pop(self.solo, suits)

    def waiting(self) -> list[OpenItem]:
        """All items that wait, in no order."""
        again = [opened for _, opened in self.again + self.solo if opened.state == PENDING]
        return again + [opened for consumer in self._needy.owners() for opened in consumer.fresh]

    def _pop(self, heap: list[tuple[int, OpenItem]], suits: Callable[[OpenItem], bool]) -> OpenItem | None:
        passed: list[tuple[int, OpenItem]] = []
        found = None
        while heap and len(passed) < LOOK:
            entry = heappop(heap)
            opened = entry[1]
            if opened.state != PENDING:
                opened.queued = False
                continue
            if opened.solo and heap is self.again:
                heappush(self.solo, entry)
            elif suits(opened):
                found, opened.queued = opened, False
                break
            else:
                passed.append(entry)
        for entry in passed:
            heappush(heap, entry)
        return found
