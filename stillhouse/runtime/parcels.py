"""What takes long to pack: packed in other threads, once a question, and sent to each worker in the order lent.

Pixels of a few hundred views are tens of megabytes. The driver's thread only sends what is ready, one at a time, so
that it hears the workers in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from stillhouse.runtime.work import Lease

Key = tuple[str, int]


class Pool(Protocol):
    """Runs things in other threads, as an executor does."""

    def submit(self, work: Callable[[], None], /) -> Any:
        """Begin when there is a thread for it."""


class Parcel(NamedTuple):
    """What can be sent."""

    worker: str
    lease: Lease
    content: bytes


class Parcels:
    """Loans that wait until they are packed. All but packing is done in the driver's thread.

    Args:
        pool: where things are packed.
        wake: called in any thread when something is packed.
    """

    def __init__(self, pool: Pool, wake: Callable[[], None]) -> None:
        self._pool, self._wake = pool, wake
        self._waiting: dict[str, deque[Lease]] = {}
        self._packed: dict[Key, bytes | None] = {}
        self._came: deque[tuple[Key, bytes | BaseException]] = deque()

    def add(self, worker: str, lease: Lease, pack: Callable[[], bytes]) -> None:
        """A loan that is to go out; ``pack`` is called unless its question is packed, or is about to be."""
        self._waiting.setdefault(worker, deque()).append(lease)
        key = (lease.consumer, lease.number)
        if key not in self._packed:
            self._packed[key] = None
            self._pool.submit(partial(self._pack, key, pack))

    def pop(self) -> Parcel | None:
        """The next loan that can go out; None if there is none.

        Raises:
            BaseException: what went wrong with packing.
        """
        while self._came:
            key, made = self._came.popleft()
            if isinstance(made, BaseException):
                raise made
            if key in self._packed:
                self._packed[key] = made
        for worker, leases in self._waiting.items():
            content = self._packed[leases[0].consumer, leases[0].number]
            if content is not None:
                lease = leases[0]
                self._drop(worker, lease)
                return Parcel(worker, lease, content)
        return None

    def withdraw(self, worker: str, lease: Lease) -> bool:
        """Don't send a loan; whether it had not been sent."""
        waits = lease in self._waiting.get(worker, ())
        if waits:
            self._drop(worker, lease)
        return waits

    def forget_worker(self, worker: str) -> None:
        """Send nothing more to a worker."""
        self._waiting.pop(worker, None)

    def forget(self, key: Key) -> None:
        """A question is answered, or nobody wants it any more: its loans are withdrawn before anything is sent."""
        self._packed.pop(key, None)

    def _drop(self, worker: str, lease: Lease) -> None:
        """One loan less that waits; a worker that was served goes to the end of the line."""
        leases = self._waiting.pop(worker)
        leases.remove(lease)
        if leases:
            self._waiting[worker] = leases

    def _pack(self, key: Key, pack: Callable[[], bytes]) -> None:
        if key not in self._packed:
            return
        try:
            self._came.append((key, pack()))
        except BaseException as error:  # told where it is waited for
            self._came.append((key, error))
        self._wake()
