"""A search in a terminal while it works: how many trials reached each rung, the best there, and who trains what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stillhouse.foundation import events as e
from stillhouse.foundation import search_events as s
from stillhouse.foundation.words import printable

_ROWS_MAX = 12


class SearchTable:
    """Stands below the bars as long as trials are trained.

    Args:
        before: events of the run, told by earlier processes.
    """

    def __init__(self, before: Sequence[Mapping[str, Any]] = ()) -> None:
        self._values: dict[int, dict[int, float]] = {}
        self._epochs: dict[int, int] = {}
        self._lent: dict[str, s.TrialLent] = {}
        self._workers: dict[str, str] = {}
        self._ended = set[int]()
        self._over = False
        for each in before:
            if each["event"] == s.TrialReached.__name__:
                self._remember(each["trial"], each["rung"], each["epochs"], each["members"])
            elif each["event"] == s.TrialEnded.__name__:
                self._ended.add(each["trial"])

    def hear(self, event: e.Event) -> None:
        """Take one event."""
        if isinstance(event, s.TrialReached):
            self._remember(event.trial, event.rung, event.epochs, event.members)
            self._free(event.trial)
        elif isinstance(event, s.TrialLent):
            self._lent[event.worker] = event
            self._workers.setdefault(event.worker, "")
        elif isinstance(event, s.TrialEnded):
            self._ended.add(event.trial)
            self._free(event.trial)
        elif isinstance(event, s.TrialWorkerCame):
            self._workers[event.worker] = f"{event.process_id} on {event.host}"
        elif isinstance(event, s.TrialWorkerLost):
            self._workers.pop(event.worker, None)
            self._lent.pop(event.worker, None)
        elif isinstance(event, s.SearchMeasured):
            self.hide()

    def hide(self) -> None:
        """The trials are over; finalists have bars of their own."""
        self._over = True

    def __rich__(self) -> RenderableType:
        if self._over or (not self._values and not self._workers):
            return Group()
        return Group(Text(""), self._rungs(), *([self._who()] if len(self._workers) > 1 else []))

    def _remember(self, trial: int, rung: int, epochs: int, members: Sequence[float]) -> None:
        self._epochs[rung] = epochs
        self._values.setdefault(rung, {})[trial] = sum(members) / len(members)

    def _free(self, trial: int) -> None:
        self._lent = {name: each for name, each in self._lent.items() if each.trial != trial}

    def _rungs(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("rung", "trials there", "on the way", "best", "by trial"):
            table.add_column(name, justify="right", no_wrap=True)
        under_way = [each.rung for each in self._lent.values()]
        for rung in sorted({*self._values, *under_way}):
            there = self._values.get(rung, {})
            best = max(there, key=lambda trial: there[trial]) if there else None
            epochs = f"{self._epochs[rung]} epochs" if rung in self._epochs else ""
            found = [f"{100 * there[best]:.1f} %", str(best)] if best is not None else ["", ""]
            table.add_row(epochs, str(len(there)), str(under_way.count(rung) or ""), *found)
        if self._ended:
            table.add_row("ended", str(len(self._ended)), "", "", "")
        return table

    def _who(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("worker", "trains", "process"):
            table.add_column(name, no_wrap=True)
        for name, where in sorted(self._workers.items())[:_ROWS_MAX]:
            lent = self._lent.get(name)
            what = f"trial {lent.trial}, member {lent.member}, up to rung {lent.rung + 1}" if lent else "nothing"
            table.add_row(Text(printable(name)), Text(what, style="green" if lent else "dim"), Text(printable(where)))
        if (more := len(self._workers) - _ROWS_MAX) > 0:
            table.add_row("...", f"{more} more", "")
        return table
