"""What the scaling policy looks at, measured: rates and shares of the last seconds, out of counters that only grow."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stillhouse.runtime.asker import Asker, Facts, Record
from stillhouse.runtime.dispatch.status import Status
from stillhouse.runtime.scaling.view import ConsumerView, FleetView, WorkerView

RECENT_S = 10.0


@dataclass(frozen=True)
class _Seen:
    """Counters at one moment."""

    at_s: float
    busy_s: Mapping[str, float]
    units: Mapping[str, int]
    waited_s: Mapping[str, float]


@dataclass
class Gauge:
    """Remembers counters for some seconds."""

    _history: deque[_Seen] = field(default_factory=deque)
    _starts_s: deque[float] = field(default_factory=lambda: deque(maxlen=9))

    def started(self, seconds: float) -> None:
        """A worker was ready so long after its start."""
        self._starts_s.append(seconds)

    def view(
        self,
        status: Status,
        loading: Sequence[str],
        facts: Mapping[str, Facts],
        askers: Sequence[Asker],
        inline_pace_s: float | None,
    ) -> FleetView:
        """The fleet as it is now and was of late.

        Args:
            loading: workers started that are not ready.
            facts: what each ready worker told of itself.
        """
        records = {asker.name: asker.record() for asker in askers}
        now = _Seen(
            status.at_s,
            {each.name: each.busy_s for each in status.workers},
            {name: record.units for name, record in records.items()},
            {name: record.waited_s for name, record in records.items()},
        )
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
        workers += [WorkerView(name, "", "loading") for name in loading]
        buffered = {each.name: each.buffered_units for each in status.consumers}
        pending = sum(each.open_units - each.buffered_units for each in status.consumers)
        consumers = [
            _consumer(name, record, before, now.at_s, buffered.get(name, 0)) for name, record in records.items()
        ]
        start_s = statistics.median(self._starts_s) if self._starts_s else None
        return FleetView(tuple(workers), tuple(consumers), pending, inline_pace_s, start_s)


def _consumer(name: str, record: Record, before: _Seen, now_s: float, buffered_units: int) -> ConsumerView:
    passed_s = now_s - before.at_s
    waited_s = record.waited_s - before.waited_s.get(name, 0.0)
    took, own_s = record.units - before.units.get(name, 0), passed_s - waited_s
    rate = took / own_s if took and own_s > 0 else None
    starved_share = _share(waited_s, passed_s)
    return ConsumerView(name, rate, buffered_units, record.window_units, record.waiting, starved_share)


def _share(part: float, whole: float) -> float:
    return min(max(part / whole, 0.0), 1.0) if whole > 0 else 0.0
