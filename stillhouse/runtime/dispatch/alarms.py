"""When to look at which worker. A worker's time is mostly put off (it answered), so its entry stays where it is and
is moved when it comes to the top: about one heap operation for several answers.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush, heapreplace

from stillhouse.runtime.dispatch.leases import Worker


class Alarms:
    """Workers by the time at which something about them is due (``Worker.due_s``)."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Worker]] = []
        self._numbers = 0

    def put(self, worker: Worker) -> None:
        """Make sure that a worker is looked at when it is due."""
        due_s = worker.due_s()
        if due_s < worker.alarm_s:
            worker.alarm_s = due_s
            self._numbers += 1
            heappush(self._entries, (due_s, self._numbers, worker))

    def next_s(self) -> float:
        """The earliest time at which a worker is due; infinite if none is."""
        entries = self._entries
        while entries:
            at_s, number, worker = entries[0]
            if worker.alarm_s != at_s:
                heappop(entries)
                continue
            due_s = worker.due_s()
            if due_s <= at_s:
                return at_s
            worker.alarm_s = due_s
            if due_s < math.inf:
                heapreplace(entries, (due_s, number, worker))
            else:
                heappop(entries)
        return math.inf

    def pop_due(self, now: float) -> Worker | None:
        """A worker that is due, or None; whoever asks sets it again."""
        if self.next_s() > now:
            return None
        worker = heappop(self._entries)[2]
        worker.alarm_s = math.inf
        return worker

    def entries(self) -> set[tuple[int, float]]:
        """(id of the worker, time) of all entries, also of void ones."""
        return {(id(worker), at_s) for at_s, _, worker in self._entries}
