"""The fleet in numbers, for whoever watches a run: differences of the driver's counters, as events.

A run may last for days and every event is a line in its file: so one is made every few seconds only, less often in a
long run, and none where nothing changed. A change of a worker's state doesn't wait for its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from stillhouse.foundation.events import FleetMeasured, WorkerMeasured
from stillhouse.runtime.asker import Asker
from stillhouse.runtime.dispatch.status import Status, WorkerStatus
from stillhouse.runtime.scaling.view import FleetView, WorkerView

_EVERY_S = (2.0, 10.0)
_AGE_PART = 300


def every_s(age_s: float) -> float:
    """How often the numbers of a run that is so old are told: in a long one less often."""
    least_s, most_s = _EVERY_S
    return min(max(age_s / _AGE_PART, least_s), most_s)


class Watch:
    """Makes events out of what a driver publishes.

    Args:
        low, high: water marks, shares of the window.
        clock: seconds; the driver's.
        wants: what a worker needs of a machine, in words.
    """

    def __init__(self, low: float, high: float, clock: Callable[[], float], wants: str = "") -> None:
        self._low, self._high, self._clock, self._wants = low, high, clock, wants
        self._begun_s = self._told_s = self._looked_s = clock()
        self._busy_s: dict[str, float] = {}
        self._waited_s = 0.0
        self._states: Mapping[str, str] = {}
        self._befell: dict[str, int] = {}
        self._last: FleetMeasured | None = None

    def news(
        self,
        status: Status,
        view: FleetView,
        askers: Sequence[Asker],
        inline: bool,
        own_views: int,
        totals: Mapping[str, int],
        last: bool = False,
    ) -> FleetMeasured | None:
        """An event, where it is time for one and something changed.

        Args:
            askers: all that the run's students ever had.
            inline: whether a waiting student answers itself.
            own_views: that students answered themselves.
            totals: what happened to workers and questions so far.
            last: the last one is made in any case.
        """
        now_s = self._clock()
        due = now_s - self._told_s >= every_s(now_s - self._begun_s)
        states = {each.name: _state(each) for each in view.workers}
        befell = {name: count for name, count in totals.items() if count and name.startswith("workers_")}
        if not (due or last or states != self._states or befell != self._befell):
            return None
        found = replace(self._measured(status, view, askers, now_s, inline, own_views), totals=dict(totals))
        if not last and self._last is not None and _counters(found) == _counters(self._last):
            return None
        self._last, self._told_s = found, now_s
        self._states, self._befell = states, befell
        self._busy_s, self._looked_s = {each.name: each.busy_s for each in status.workers}, status.at_s
        self._waited_s = sum(each.record().waited_s for each in askers)
        return found

    def _measured(
        self,
        status: Status,
        view: FleetView,
        askers: Sequence[Asker],
        now_s: float,
        inline: bool,
        own_views: int,
    ) -> FleetMeasured:
        known = {each.name: each for each in status.workers}
        there = [each for each in view.workers if each.name in known or each.state == "loading"]
        workers = tuple(self._worker(each, known.get(each.name), status.at_s) for each in there)
        records = [each.record() for each in askers]
        waited_s = sum(each.waited_s for each in records) - self._waited_s
        buffered = sum(each.buffered_units for each in view.consumers)
        window = sum(each.window_units for each in view.consumers)
        return FleetMeasured(
            seconds=round(max(status.at_s - self._looked_s, 0.0), 3),
            workers=workers,
            open=view.pending_units + buffered,
            pending=view.pending_units,
            buffered=buffered,
            window=window,
            low=round(self._low * window),
            high=round(self._high * max(window - view.loaned_units, 0)),
            waiting=any(each.waiting for each in records),
            starved_share=_share(waited_s, now_s - self._told_s),
            inline=inline,
            own_views=own_views,
            wants=self._wants,
        )

    def _worker(self, worker: WorkerView, found: WorkerStatus | None, now_s: float) -> WorkerMeasured:
        if found is None:
            return WorkerMeasured(worker.name, _state(worker), 0, None, 0, 0.0)
        state = found.state if worker.state == "ready" else worker.state
        busy_s = found.busy_s - self._busy_s.get(worker.name, 0.0)
        passed_s = now_s - max(self._looked_s, found.joined_s)
        pace_s = None if found.pace_s is None else float(f"{found.pace_s:.3g}")
        return WorkerMeasured(worker.name, state, found.units, pace_s, found.held, _share(busy_s, passed_s))


def _state(worker: WorkerView) -> str:
    return worker.state if worker.placed else "unplaced"


def _counters(event: FleetMeasured) -> tuple[object, ...]:
    """What must differ from one event to the next."""
    workers = [(each.name, each.state, each.views, each.held) for each in event.workers]
    student = event.open, event.pending, event.buffered, event.waiting, event.inline, event.own_views
    return workers, student, event.totals


def _share(part: float, whole: float) -> float:
    return round(min(max(part / whole, 0.0), 1.0), 3) if whole > 0 else 0.0
