"""What the scaling policy looks at, measured: rates and shares of the last seconds, out of counters that only grow."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from stillhouse.runtime.asker import Asker, Facts, Record
from stillhouse.runtime.dispatch.status import Status
from stillhouse.runtime.scaling.view import ConsumerView, FleetView, WorkerView

RECENT_S: Final = 10.0
PAUSED: Final = 0.5  # a student that paused for more of recent time is as fast as it was before


@dataclass(frozen=True)
class _Seen:
    """Counters at one moment."""

    at_s: float
    busy_s: Mapping[str, float]
    records: Mapping[str, Record]


@dataclass
class Gauge:
    """Remembers counters for some seconds."""

    _history: deque[_Seen] = field(default_factory=deque)
    _rates: dict[str, float | None] = field(default_factory=dict)
    _starts_s: deque[float] = field(default_factory=lambda: deque(maxlen=9))

    def started(self, seconds: float) -> None:
        """A worker was ready so long after its start."""
        self._starts_s.append(seconds)

    def view(
        self,
        status: Status,
        loading: Mapping[str, bool],
        facts: Mapping[str, Facts],
        askers: Sequence[Asker],
        inline_pace_s: float | None,
    ) -> FleetView:
        """The fleet as it is now and was of late.

        Args:
            loading: workers started that are not ready, and whether each has a machine.
            facts: what each ready worker told of itself.
        """
        records = {asker.name: asker.record() for asker in askers}
        now = _Seen(status.at_s, {each.name: each.busy_s for each in status.workers}, records)
        self._history.append(now)
        while len(self._history) > 1 and now.at_s - self._history[1].at_s >= RECENT_S:
            self._history.popleft()
        before = self._history[0]
        workers = [
            WorkerView(
                each.name,
                " ".join(str(facts[each.name].get(key, "")) for key in ("device", "engine")),
                "ready" if each.state in ("idle", "busy") else "suspect" if each.state == "suspect" else "draining",
                each.pace_s,
                _share(each.busy_s - before.busy_s.get(each.name, 0.0), now.at_s - max(before.at_s, each.joined_s)),
                each.held_units,
            )
            for each in status.workers
            if each.name in facts and each.state != "dismissed"
        ]
        workers += [WorkerView(name, "", "loading", placed=placed) for name, placed in loading.items()]
        buffered = {each.name: each.buffered_units for each in status.consumers}
        pending = sum(each.open_units - each.buffered_units for each in status.consumers)
        consumers = [self._consumer(name, now, buffered.get(name, 0)) for name in records]
        self._rates = {each.name: each.rate for each in consumers}
        start_s = statistics.median(self._starts_s) if self._starts_s else None
        return FleetView(tuple(workers), tuple(consumers), pending, inline_pace_s, start_s)

    def _consumer(self, name: str, now: _Seen, buffered_units: int) -> ConsumerView:
        record, first = now.records[name], self._history[0]
        before = first.records.get(name, Record(0, 0.0, False, 0))
        passed_s = now.at_s - first.at_s
        waited_s, paused_s = record.waited_s - before.waited_s, record.paused_s - before.paused_s
        took, own_s = record.units - before.units, passed_s - waited_s - paused_s
        rate = took / own_s if took and own_s > 0 else None
        if self._is_done(name):
            rate = 0.0
        elif paused_s > PAUSED * passed_s:
            rate = self._rates.get(name)
        starved_share = _share(waited_s, passed_s)
        return ConsumerView(name, rate, buffered_units, record.window_units, record.waiting, starved_share)

    def _is_done(self, name: str) -> bool:
        """Whether a student has asked nothing for a while: all that it needs is stored."""
        seen = [each.records.get(name) for each in self._history]
        quiet = all(each is not None and not (each.asks or each.waiting) for each in seen)
        lasted_s = self._history[-1].at_s - self._history[0].at_s
        return quiet and lasted_s >= RECENT_S and len({each.units for each in seen if each}) == 1


def _share(part: float, whole: float) -> float:
    return min(max(part / whole, 0.0), 1.0) if whole > 0 else 0.0
