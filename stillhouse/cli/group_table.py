"""Students that train one network together, in a terminal: a row for each."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from stillhouse.foundation.events import GroupMeasured
from stillhouse.foundation.words import printable

_ROWS_MAX = 8
_COLOURS = {"starting": "dim", "loading": "dim", "training": "green"}


def group_table(group: GroupMeasured) -> Table:
    """The table of the students as they were measured last."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("student", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("samples/s", "step", "starved"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("process", no_wrap=True)
    for number, each in enumerate(group.students[:_ROWS_MAX], 1):
        cells = [f"{each.samples_per_s:,.0f}", f"{each.step:,}", f"{100 * each.starved_share:.0f} %"]
        cells = cells if each.state in ("training", "done") else [""] * 3
        where = Text(printable(f"{each.process_id} on {each.host}") if each.process_id else "")
        table.add_row(str(number), Text(each.state, style=_COLOURS.get(each.state, "")), *cells, where)
    if (more := len(group.students) - _ROWS_MAX) > 0:
        table.add_row("...", f"{more} more")
    return table
