"""Students that trained one network together: a row for each process, from its first step to how it went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillhouse.report.numbers import MISSING, figure, grouped, listed, percent, three_digits
from stillhouse.report.read import Run, phase_words
from stillhouse.report.table import Table

_ROWS_MAX = 60
_COLUMNS = ("host", "process_id", "state", "step", "samples_per_s", "starved_share")


@dataclass
class _Student:
    """One process. ``samples`` and ``waited_s`` of the ``seconds`` from its first step on."""

    name: str
    place: str
    first: float
    step: float
    seconds: float = 0.0
    samples: float = 0.0
    waited_s: float = 0.0
    end: str = ""
    trains: bool = False

    def measured(self, row: Mapping[str, Any], seconds: float) -> None:
        self.step = figure(row, "step") or self.step
        if self.trains:
            self.seconds += seconds
            self.samples += seconds * (figure(row, "samples_per_s") or 0.0)
            self.waited_s += seconds * (figure(row, "starved_share") or 0.0)
        self.trains = row["state"] == "training"

    def cells(self) -> list[str]:
        rate = three_digits(self.samples / self.seconds) if self.seconds else MISSING
        waited = percent(self.waited_s / self.seconds, 0) if self.seconds else MISSING
        return [self.name, self.place, f"{grouped(self.first)} to {grouped(self.step)}", rate, waited, self.end]


def table(run: Run) -> Table | None:
    """All of them, in the order they started; None where a student trained alone."""
    rows, now = list[_Student](), list[_Student]()
    for event in run.events:
        if event["event"] == "GroupChanged" and event.get("kind") == "started":
            now = _started(event)
            rows += now
        elif event["event"] == "GroupMeasured":
            for student, row in zip(now, listed(event, "students"), strict=False):
                if isinstance(row, list) and len(row) >= len(_COLUMNS):
                    student.measured(dict(zip(_COLUMNS, row, strict=False)), figure(event, "seconds") or 0.0)
        elif end := _end(event):
            for each in now:
                each.end, each.step = end, max(each.step, figure(event, "step") or 0.0)
            now = []
    for each in now:
        each.end = "was there to the last"
    if not rows:
        return None
    more = len(rows) - _ROWS_MAX
    note = "Samples/s: of its own share. Waited: share of its time in which its part of a batch, or the answers about "
    note += "it, had not come. Both from its first step on." + (f" {more} later ones are left out." if more > 0 else "")
    head = ["Student", "Process", "Steps", "Samples/s", "Waited", "End"]
    cells = [each.cells() for each in rows[:_ROWS_MAX]]
    return Table("Students that trained together", head, cells, words=True, note=note)


def _started(event: Mapping[str, Any]) -> list[_Student]:
    members, first = listed(event, "members"), figure(event, "step") or 0.0
    name, count = phase_words(str(event.get("phase") or "")), len(members)
    places = [f"{each[1]} on {each[0]}" if isinstance(each, list) and len(each) == 2 else MISSING for each in members]
    return [_Student(f"{name}, {at} of {count}", place, first, first) for at, place in enumerate(places, 1)]


def _end(event: Mapping[str, Any]) -> str:
    """How the students of a training went, if this event is their end."""
    if event["event"] == "GroupChanged" and event.get("kind") == "lost":
        return f"begun again: {str(event.get('text') or '').partition(chr(10))[0]}"
    return {"PhaseFinished": "trained to the end", "RunStarted": "the run was stopped"}.get(event["event"], "")
