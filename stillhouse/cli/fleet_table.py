"""The fleet in a terminal while it works: a row for each worker, the student's waiting, its buffer, the store; above
them a row for each of several students.
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stillhouse.cli.group_table import group_table
from stillhouse.cli.tally import Tally
from stillhouse.foundation import events as e
from stillhouse.foundation.words import printable

_ROWS_MAX = 12
_GONE_MAX = 3
_CELLS = 24
_LOOKS = {
    "unplaced": ("waits for a place", "dim"),
    "loading": ("loading", "dim"),
    "busy": ("busy", "green"),
    "suspect": ("suspect", "yellow"),
    "draining": ("leaving", "dim"),
}
"""A state in words, and its colour."""


class FleetTable:
    """Stands below the bars as long as there is a fleet, or several students."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._over = False

    def hear(self, event: e.Event) -> None:
        """Take one event."""
        self._tally.hear(event)

    def hide(self) -> None:
        """The run is over."""
        self._over = True

    def __rich__(self) -> RenderableType:
        fleet, group, parts = self._tally.fleet, self._tally.group, list[RenderableType]()
        if group is not None:
            parts += [Text(""), group_table(group)]
        if fleet is not None:
            parts += [Text(""), self._workers(fleet), self._student(fleet), self._sums(fleet)]
        return Group(*([] if self._over else parts))

    def _workers(self, fleet: e.FleetMeasured) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("teacher", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for name in ("views/s", "views done", "questions", "busy"):
            table.add_column(name, justify="right", no_wrap=True)
        for each in fleet.workers[:_ROWS_MAX]:
            cells = [f"{self._tally.rates.get(each.name, 0.0):,.0f}", f"{each.views:,}", str(each.held)]
            known = each.state not in ("unplaced", "loading")
            cells = [*cells, f"{100 * each.busy_share:.0f} %"] if known else [""] * 4
            words, colour = _LOOKS.get(each.state, (each.state, ""))
            table.add_row(Text(printable(each.name)), Text(words, style=colour), *cells)
        if (more := len(fleet.workers) - _ROWS_MAX) > 0:
            table.add_row("...", f"{more} more")
        alive = {each.name for each in fleet.workers}
        gone = [(name, how) for name, how in list(self._tally.gone.items()) if name not in alive]
        for name, how in gone[-_GONE_MAX:]:
            first = printable(how.splitlines()[0]) if how else ""
            views = f"{self._tally.views.get(name, 0):,}"
            told = Text(f"gone: {first}"[:40] if first else "gone", style="red")
            table.add_row(Text(printable(name)), told, "", views, "", "")
        return table

    def _student(self, fleet: e.FleetMeasured) -> Text:
        line = Text(f"student waited {100 * fleet.starved_share:.0f} % of the time")
        line.append(", answers itself when it waits" if fleet.inline else "")
        if not fleet.window:
            return line
        marks = {min(_CELLS * mark // fleet.window, _CELLS - 1) for mark in (fleet.low, fleet.high)}
        line.append("\nready ")
        for cell in range(_CELLS):
            full = cell < -(-_CELLS * fleet.buffered // fleet.window)
            line.append("█" if full else "·", style="yellow" if cell in marks else "green" if full else "dim")
        line.append(f" {fleet.buffered:,} of {fleet.window:,} views; water marks {fleet.low:,} and {fleet.high:,}")
        return line

    def _sums(self, fleet: e.FleetMeasured) -> Text:
        tally, counts = self._tally, self._tally.counts
        idle = tally.idle_share
        unplaced = sum(each.state == "unplaced" for each in fleet.workers)
        parts = [
            "" if idle is None else f"teachers idle {100 * idle:.0f} %",
            f"{counts['workers_lost']:,} lost",
            f"{counts['questions_reissued']:,} questions asked again",
        ]
        store = f"\nlabel store: {counts['hits']:,} read, {counts['misses']:,} asked" if "hits" in counts else ""
        lone = unplaced == 1
        room = f"{unplaced:,} {'waits' if lone else 'wait'} for a machine with room for {'it' if lone else 'them'}"
        room = f"{room}: {fleet.wants}{'' if lone else ' each'}\n" if unplaced else ""
        return Text(room + ", ".join(part for part in parts if part) + store)
