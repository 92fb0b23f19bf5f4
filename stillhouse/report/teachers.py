"""The workers of a run as its events tell of them: when each was loading, working, suspect, and how it went.

Times are seconds since the first question; where a run was resumed its processes follow each other without the pause
between, and workers are told apart by the process that they worked for. What can't be read counts as not told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stillhouse.report.numbers import figure, listed
from stillhouse.report.read import Run

LOST = ("killed", "lost")
_STARTING = ("unplaced", "loading")
_AS_TOLD = (*_STARTING, "suspect")


@dataclass
class Stretch:
    """``kind``: ``unplaced`` (no machine had room), ``loading``, ``suspect``, or ``working`` for ``busy_share`` of the
    time (0..1).
    """

    start_s: float
    end_s: float
    kind: str
    busy_share: float = 0.0


@dataclass
class Worker:
    """One teacher, from its start to its end.

    Attributes:
        process: of the run, from 1, that it worked for.
        how: it went: ``killed``, ``lost``, ``left``, ``dismissed``, ``turned away``, ``failed`` (it never got ready);
            "" if it stayed to the end.
        why: the same in the run's words.
        facts: what it told of itself when it joined; ``ready``: whether it did.
    """

    name: str
    process: int = 1
    stretches: list[Stretch] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
    views: int = 0
    pace_s: float | None = None
    how: str = ""
    why: str = ""
    ended_s: float | None = None
    ready: bool = False
    last_state: str = ""

    @property
    def by_hand(self) -> bool:
        """Whether a person started it."""
        return self.name.startswith("joined-")

    @property
    def busy_share(self) -> float | None:
        """Share of its time after loading in which it held work (0..1)."""
        working = [each for each in self.stretches if each.kind not in _STARTING]
        length_s = sum(each.end_s - each.start_s for each in working)
        return sum((each.end_s - each.start_s) * each.busy_share for each in working) / length_s if length_s else None


@dataclass(frozen=True)
class Reading:
    """The student's end at ``at_s``; shares are of the ``seconds`` before. ``asking``: whether there was one that could
    ask; without it there are no water marks.
    """

    at_s: float
    seconds: float
    buffered: float
    low: float
    high: float
    starved_share: float
    inline: bool
    asking: bool


@dataclass
class Teachers:
    """All workers in the order they came, readings in the order of time.

    Attributes:
        resumed_s: where another process of the run went on.
        own_views: that students answered themselves.
    """

    workers: list[Worker] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    resumed_s: list[float] = field(default_factory=list)
    own_views: int = 0

    @property
    def span_s(self) -> float:
        """Seconds with a fleet."""
        return max((each.at_s for each in self.readings), default=0.0)

    @property
    def lost(self) -> list[Worker]:
        """Those that went without leave."""
        return [each for each in self.workers if each.how in LOST]


def teachers(run: Run) -> Teachers:
    """What the events tell of the fleet."""
    found, process, number = Teachers(), None, 0
    for event in run.events:
        if event["event"] == "RunStarted":
            process = None
        elif event["event"] in ("FleetMeasured", "FleetChanged"):
            if process is None:
                if number:
                    found.resumed_s.append(found.span_s)
                number += 1
                process = _Process(found, _time(event) - found.span_s, number)
            process.hear(event)
    return found


class _Process:
    """Reads what one process of the run told."""

    def __init__(self, found: Teachers, zero_s: float, number: int) -> None:
        self._found, self._zero_s, self._number = found, zero_s, number
        self._workers: dict[str, Worker] = {}
        self._own_before = found.own_views

    def hear(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "FleetMeasured":
            self._measured(event)
        elif isinstance(event.get("worker"), str) and event["worker"]:
            self._changed(event, event["worker"])

    def _measured(self, event: Mapping[str, Any]) -> None:
        seconds = figure(event, "seconds") or 0.0
        at_s = _time(event) + seconds - self._zero_s
        for row in listed(event, "workers"):
            if isinstance(row, list) and len(row) >= 6 and isinstance(row[0], str):
                self._row(self._worker(row[0]), dict(zip(_COLUMNS, row, strict=False)), at_s - seconds, at_s)
        own_views = self._own_before + int(figure(event, "own_views") or 0)
        self._found.own_views = max(self._found.own_views, own_views)
        buffered, low, high, starved = (figure(event, name) or 0.0 for name in _READ)
        inline, asking = event.get("inline") is True, bool(figure(event, "window"))
        self._found.readings.append(Reading(at_s, seconds, buffered, low, high, starved, inline, asking))

    def _row(self, worker: Worker, row: Mapping[str, Any], start_s: float, at_s: float) -> None:
        state, before = str(row["state"]), worker.last_state
        kind = before if before in _AS_TOLD else state if state in _STARTING else "working"
        if worker.ended_s is None:
            worker.stretches.append(Stretch(start_s, at_s, kind, figure(row, "busy_share") or 0.0))
        worker.last_state = state
        worker.views = int(figure(row, "views") or 0) or worker.views
        worker.pace_s = figure(row, "pace_s") or worker.pace_s

    def _changed(self, event: Mapping[str, Any], name: str) -> None:
        kind, text, at_s = event.get("kind"), str(event.get("text") or ""), _time(event) - self._zero_s
        worker = self._worker(name)
        if kind == "joined":
            worker.ready = True
            facts = event.get("facts")
            worker.facts = facts if isinstance(facts, Mapping) else {}
            worker.pace_s = worker.pace_s or figure(worker.facts, "pace_s")
        elif kind == "refused":
            worker.how, worker.why = "turned away", text
        elif kind == "leaving":
            worker.how, worker.why = worker.how or "left", text
        elif kind == "scaled":
            worker.how, worker.why = "dismissed", text
        elif kind == "left":
            worker.how = worker.how or (_how(text) if worker.ready else "failed")
            worker.why, worker.ended_s = worker.why or text, at_s
            last_s = worker.stretches[-1].end_s if worker.stretches else at_s
            if at_s > last_s:
                kind = worker.last_state if worker.last_state in _AS_TOLD else "working"
                worker.stretches.append(Stretch(last_s, at_s, kind, worker.stretches[-1].busy_share))

    def _worker(self, name: str) -> Worker:
        if name not in self._workers:
            shown = name if self._number == 1 else f"{name} ({self._number})"
            self._workers[name] = Worker(shown, self._number)
            self._found.workers.append(self._workers[name])
        return self._workers[name]


_READ = ("buffered", "low", "high", "starved_share")
_COLUMNS = ("name", "state", "views", "pace_s", "held", "busy_share")


def _time(event: Mapping[str, Any]) -> float:
    """When what it tells of began, in seconds."""
    return (figure(event, "time") or 0.0) - (figure(event, "seconds") or figure(event, "ago_s") or 0.0)


def _how(text: str) -> str:
    return "killed" if text.startswith("killed by") else "left" if text.startswith("exit code 0") else "lost"


def merged(stretches: Iterable[Stretch], least_s: float, levels: int) -> list[Stretch]:
    """Neighbours that look alike as one; those that are shorter than ``least_s``, too, if they are of one kind."""
    found: list[Stretch] = []
    for each in stretches:
        last = found[-1] if found else None
        near = last is not None and last.kind == each.kind and each.start_s - last.end_s < least_s
        if last is not None and near and (_level(last, levels) == _level(each, levels) or _length(last) < least_s):
            whole_s = _length(last) + _length(each)
            share = (_length(last) * last.busy_share + _length(each) * each.busy_share) / whole_s if whole_s else 0.0
            found[-1] = Stretch(last.start_s, each.end_s, each.kind, share)
        else:
            found.append(each)
    return found


def _length(stretch: Stretch) -> float:
    return max(stretch.end_s - stretch.start_s, 0.0)


def _level(stretch: Stretch, levels: int) -> int:
    return round(stretch.busy_share * levels)
