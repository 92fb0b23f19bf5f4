"""A heap whose entries are made void instead of removed: changing a key costs O(log n), amortised.

An owner has one valid entry in all heaps that share their tickets: the one that bears its ticket. Void entries are
dropped when they come to the top, and all together when they might be more than half.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Generic, Protocol, TypeVar

VOID: Final = -1
"""The ticket of an owner without an entry."""


class Owner(Protocol):
    """Whoever may have an entry."""

    ticket: int


T = TypeVar("T", bound=Owner)


class LazyHeap(Generic[T]):
    """Owners by key, the smallest first; equal keys in the order they were put.

    Args:
        tickets: counts up; shared by heaps of the same owners.
    """

    __slots__ = ("_entries", "_limit", "_tickets")

    def __init__(self, tickets: Iterator[int]) -> None:
        self._entries: list[tuple[float, int, T]] = []
        self._limit = 64
        self._tickets = tickets

    def put(self, key: float, owner: T) -> None:
        """Add an owner; its former entry becomes void."""
        ticket = owner.ticket = next(self._tickets)
        heappush(self._entries, (key, ticket, owner))
        if len(self._entries) > self._limit:
            self._entries = [entry for entry in self._entries if entry[2].ticket == entry[1]]
            heapify(self._entries)
            self._limit = 2 * len(self._entries) + 64

    def top(self) -> tuple[float, int, T] | None:
        """The first valid entry (key, ticket, owner); it stays."""
        entries = self._entries
        while entries:
            entry = entries[0]
            if entry[2].ticket == entry[1]:
                return entry
            heappop(entries)
        return None

    def drop_top(self) -> None:
        """Remove what :meth:`top` has just returned."""
        heappop(self._entries)[2].ticket = VOID

    def replace_top(self, key: float) -> None:
        """Give what :meth:`top` has just returned another key, and the last place among its equals."""
        owner = self._entries[0][2]
        ticket = owner.ticket = next(self._tickets)
        heapreplace(self._entries, (key, ticket, owner))

    def owners(self) -> list[T]:
        """All with a valid entry here, in no order."""
        return [owner for _, ticket, owner in self._entries if owner.ticket == ticket]
