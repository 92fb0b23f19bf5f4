"""Workers that may take an item, the one that should be done with it first at hand.

Idle workers lie in a heap by pace: for whatever item, the fastest is done first. Workers that are at work and have
room lie in a heap by when they should be done with all they hold and a usual item more. A key of the second heap may
be too early (a worker is overdue): it is set right when it comes to the top.
"""

from __future__ import annotations

from itertools import count
from typing import Final

from stillhouse.runtime.dispatch.heaps import VOID, LazyHeap
from stillhouse.runtime.dispatch.leases import Worker

SOON: Final = 1.01
"""A time this close to what was thought need not be set right."""


class FreeWorkers:
    """Workers with room.

    Attributes:
        usual_pace_s: seconds a unit of all workers, a running mean; taken for those whose pace is unknown.
        usual_size: units of a usual item.
    """

    def __init__(self) -> None:
        tickets = count()
        self._idle: LazyHeap[Worker] = LazyHeap(tickets)
        self._busy: LazyHeap[Worker] = LazyHeap(tickets)
        self.usual_pace_s = 0.0
        self.usual_size = 1

    def offer(self, worker: Worker, now: float) -> None:
        """Add a worker that may take an item, or set its place anew."""
        if worker.held:
            self._busy.put(self._done_s(worker, now), worker)
        else:
            self._idle.put(self._pace_s(worker), worker)

    def withdraw(self, worker: Worker) -> None:
        """Take a worker out, if it is in."""
        worker.ticket = VOID

    def best(self, size: int, now: float) -> Worker | None:
        """The one that should be done first with an item of ``size`` units; it stays in."""
        idle = self._idle.top()
        busy = self._soonest_busy(now)
        if idle is None or busy is None:
            found = idle or busy
            return found[2] if found else None
        return idle[2] if now + idle[0] * size <= busy[0] else busy[2]

    def fastest_idle(self) -> Worker | None:
        """The fastest of those that hold nothing; it stays in."""
        top = self._idle.top()
        return top[2] if top else None

    def workers(self) -> list[Worker]:
        """All of them, in no order."""
        return self._idle.owners() + self._busy.owners()

    def _soonest_busy(self, now: float) -> tuple[float, int, Worker] | None:
        while top := self._busy.top():
            thought_s, worker = top[0], top[2]
            true_s = self._done_s(worker, now)
            if true_s - now <= SOON * max(thought_s - now, self._pace_s(worker) * self.usual_size):
                return top
            self._busy.replace_top(true_s)
        return None

    def _pace_s(self, worker: Worker) -> float:
        return self.usual_pace_s if worker.pace_s is None else worker.pace_s

    def _done_s(self, worker: Worker, now: float) -> float:
        return worker.free_at_s(self.usual_pace_s, now) + self._pace_s(worker) * self.usual_size
