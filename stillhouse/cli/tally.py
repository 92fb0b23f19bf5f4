"""What the events of a run add up to now: for the table in the terminal and for the metrics.

Sums are those of this process. It costs a few numbers for each worker that ever joined.
"""

from __future__ import annotations

from collections import Counter
from statistics import mean

from stillhouse.foundation import events as e

READY = ("idle", "busy", "draining")


class Tally:
    """Hears events, and knows how things stand.

    Attributes:
        fleet: as it was measured last; None where there is none, or not yet.
        views: answered, by each worker that ever joined.
        rates: views/s since the measurement before, by worker; only those that are alive.
        gone: workers that are gone, with how, in the order they went.
        counts: sums of what progress counted, hits and misses of the store among it, and of what befell the fleet:
            workers lost, questions asked again ...
        progress: the last of each phase, the latest phase last.
        group: the students that train together now, as they were measured last; None where there are none.
    """

    def __init__(self) -> None:
        self.fleet: e.FleetMeasured | None = None
        self.views: dict[str, int] = {}
        self.rates: dict[str, float] = {}
        self.gone: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.progress: dict[str, e.Progress] = {}
        self.group: e.GroupMeasured | None = None

    def hear(self, event: e.Event) -> None:
        """Take one event."""
        if isinstance(event, e.FleetMeasured):
            self.fleet = event
            self.rates = {each.name: self._rate(each, event.seconds) for each in event.workers}
            for name, count in event.totals.items():
                self.counts[name] = count
            self.views |= {each.name: each.views for each in event.workers}
        elif isinstance(event, e.FleetChanged) and event.kind == "left":
            self.gone[event.worker] = event.text
        elif isinstance(event, e.Progress):
            self.counts.update({name: int(value) for name, value in event.counts.items()})
            self.progress.pop(event.phase, None)
            self.progress[event.phase] = event
        elif isinstance(event, e.GroupMeasured):
            self.group = event
        elif isinstance(event, e.PhaseFinished | e.GroupChanged):
            over = isinstance(event, e.PhaseFinished) or event.kind == "lost"
            self.group = None if over else self.group

    def _rate(self, worker: e.WorkerMeasured, seconds: float) -> float:
        """Views/s; as before where no time passed between two looks at the workers."""
        if not seconds > 0:
            return self.rates.get(worker.name, 0.0)
        return max(worker.views - self.views.get(worker.name, 0), 0) / seconds

    @property
    def rate(self) -> float:
        """Views/s of all workers together."""
        return sum(self.rates.values())

    @property
    def idle_share(self) -> float | None:
        """Share of the time since the measurement before in which workers that were ready had nothing to do (0..1)."""
        shares = [each.busy_share for each in self.fleet.workers if each.state in READY] if self.fleet else []
        return 1 - mean(shares) if shares else None
