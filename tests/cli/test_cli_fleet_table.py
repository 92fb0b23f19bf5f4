"""The fleet in a terminal while it works, and only there."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from stillhouse.cli.fleet_table import FleetTable
from stillhouse.cli.progress import Bars, Lines
from stillhouse.foundation import events as e

FIRST = e.FleetMeasured(
    2.0,
    (e.WorkerMeasured("local-1", "busy", 100, 0.01, 2, 1.0), e.WorkerMeasured("local-2", "loading", 0, None, 0, 0.0)),
    900, 600, 300, 1000, 250, 750, True, 0.5, False, 0,
)  # fmt: skip
COUNTS = {"hits": 1000, "misses": 24}
TOTALS = {"workers_lost": 1, "questions_reissued": 3}
THEN = [
    e.FleetChanged("left", "local-1", "killed by SIGKILL", {}, 0.0),
    e.Progress("student", 1, 0.1, {"total": 1.0}, 0.1, {"step": 1.0}, 8, COUNTS),
    e.FleetMeasured(
        2.0, (e.WorkerMeasured("local-2", "busy", 3000, 0.01, 1, 0.75),), 900, 600, 900, 1000, 250, 750, False, 0.0,
        True, 0, TOTALS,
    ),
]  # fmt: skip


def drawn(table: FleetTable) -> str:
    """The table as text of 80 columns."""
    out = io.StringIO()
    Console(file=out, width=80).print(table)
    return out.getvalue()


def row(words: str, name: str) -> list[str]:
    """The cells of a worker's row."""
    return next(line.split() for line in words.splitlines() if line.startswith(name))


def test_each_worker_has_a_row() -> None:
    """State, rate, views, loans and busy share of each worker; how the lost ones went; nothing wraps in 80 columns."""
    table = FleetTable()
    table.hear(FIRST)
    words = drawn(table)
    assert row(words, "local-1") == ["local-1", "busy", "50", "100", "2", "100", "%"]
    assert row(words, "local-2") == ["local-2", "loading"]
    assert "student waited 50 % of the time" in words and "teachers idle 0 %" in words
    for event in THEN:
        table.hear(event)
    words = drawn(table)
    assert row(words, "local-2") == ["local-2", "busy", "1,500", "3,000", "1", "75", "%"]
    assert row(words, "local-1")[1:5] == ["gone:", "killed", "by", "SIGKILL"]
    for each in (
        "answers itself when it waits", "900 of 1,000 views; water marks 250 and 750", "teachers idle 25 %", "1 lost",
        "3 questions asked again", "label store: 1,000 read, 24 asked",
    ):  # fmt: skip
        assert each in words
    assert words.count("█") == 22


def test_who_waits_for_a_place_says_so() -> None:
    """A worker that no machine has room for is no slow load; what it waits for stands below, in 80 columns."""
    table = FleetTable()
    waits = e.WorkerMeasured("ray-1", "unplaced", 0, None, 0, 0.0)
    wants = "1 CPU (fleet.threads) and a GPU (fleet.device)"
    table.hear(e.FleetMeasured(2.0, (waits,), 0, 0, 0, 1, 0, 1, True, 1.0, False, 0, {}, wants))
    words = drawn(table)
    assert row(words, "ray-1") == ["ray-1", "waits", "for", "a", "place"]
    assert f"1 waits for a machine with room for it: {wants}" in " ".join(words.split())


def test_several_students_have_rows() -> None:
    """State, rate, step, waiting and process of each student, with a fleet or without, until the training is over."""
    table = FleetTable()
    students = (
        e.StudentMeasured("here", 4711, "training", 1200, 1782.0, 0.25), e.StudentMeasured("", 0, "starting", 0, 0, 0),
    )  # fmt: skip
    table.hear(e.GroupMeasured("student", 2.0, students))
    words = drawn(table)
    assert row(words, "1") == ["1", "training", "1,782", "1,200", "25", "%", "4711", "on", "here"]
    assert row(words, "2") == ["2", "starting"]
    table.hear(e.GroupChanged("student", "lost", 2, 1200, "student 2 of 2: killed by SIGKILL"))
    assert drawn(table) == ""


def test_very_many_workers_take_some_rows() -> None:
    """A fleet of a hundred does not fill the terminal."""
    table = FleetTable()
    workers = tuple(e.WorkerMeasured(f"local-{each}", "idle", 0, None, 0, 0.0) for each in range(100))
    table.hear(e.FleetMeasured(2.0, workers, 0, 0, 0, 1000, 250, 750, False, 0.0, False, 0))
    assert len(drawn(table).splitlines()) < 20 and "88 more" in drawn(table)


def test_it_stands_below_the_bars_while_the_run_goes_on(tmp_path: Path) -> None:
    """A terminal shows the table below the bars until the run is over; without a fleet there is no line of it."""
    out = io.StringIO()
    bars = Bars(Console(file=out, width=80, force_terminal=True), tmp_path)
    with bars.live():
        assert drawn(bars.fleet) == ""
        bars.hear(e.PhaseStarted("student", 0, 10, 8))
        bars.hear(FIRST)
        assert "local-1" in drawn(bars.fleet)
    assert drawn(bars.fleet) == ""
    assert "student" in out.getvalue()


def test_lines_stay_lines(tmp_path: Path) -> None:
    """A file that takes what a run prints gets no table."""
    out = io.StringIO()
    lines = Lines(Console(file=out, width=80), tmp_path)
    for event in (FIRST, THEN[-1]):
        lines.hear(event)
    assert out.getvalue() == ""


def test_names_are_shown_as_they_are() -> None:
    """A worker whose name or last word has brackets or escapes in it is shown with them, and ends nothing."""
    table = FleetTable()
    table.hear(
        e.FleetMeasured(
            2.0, (e.WorkerMeasured("a[/1]", "idle", 0, None, 0, 0.0),), 0, 0, 0, 1, 0, 1, False, 0.0, False, 0
        )
    )
    table.hear(e.FleetChanged("left", "b[red]\x1b[2J", "[/x]\x1b[2J went", {}, 0.0))
    words = drawn(table)
    assert "a[/1]" in words and "b[red]" in words and "gone: [/x] went" in words and "\x1b" not in words
