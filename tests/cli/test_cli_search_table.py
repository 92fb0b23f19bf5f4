"""A search in a terminal while it works: rungs, and who trains what."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from stillhouse.cli.search_lines import SearchLines
from stillhouse.cli.search_table import SearchTable
from stillhouse.foundation import search_events as s
from stillhouse.foundation.events import Event, EventLog
from stillhouse.foundation.history import read_events


def drawn(events: Sequence[Event], *, over: bool = False, before: Sequence[dict[str, Any]] = ()) -> list[list[str]]:
    """The words of each line after these events."""
    table, console = SearchTable(before), Console(file=io.StringIO(), width=120)
    for event in events:
        table.hear(event)
    if over:
        table.hide()
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return [line.split() for line in console.file.getvalue().splitlines() if line.strip()]


BEGUN: list[Event] = [
    s.TrialWorkerCame("trial-worker-1", "here", 11),
    s.TrialWorkerCame("trial-worker-2", "here", 12),
    s.TrialLent(0, 0, 0, "trial-worker-1"),
    s.TrialLent(1, 0, 0, "trial-worker-2"),
    s.TrialReached(0, 0, 2, (0.5,), 2, 1.0),
]


def test_rungs_and_workers_are_shown() -> None:
    """How many trials reached a rung and how many are on the way, the best there, who trains what."""
    lines = drawn(BEGUN)
    assert ["2", "epochs", "1", "1", "50.0", "%", "0"] in lines
    assert ["trial-worker-1", "nothing", "11", "on", "here"] in lines
    assert ["trial-worker-2", "trial", "1,", "member", "0,", "up", "to", "rung", "1", "12", "on", "here"] in lines


def test_who_is_lost_is_gone_and_trials_that_ended_are_counted() -> None:
    """The trial of a lost worker is nobody's until it is lent again; the mean of several members counts."""
    more: list[Event] = [
        s.TrialWorkerLost("trial-worker-2", "killed by SIGKILL", 1),
        s.TrialLent(1, 0, 0, "trial-worker-1"),
        s.TrialEnded(1, "diverged", True),
        s.TrialReached(2, 1, 4, (0.6, 0.8), 6, 1.0),
    ]
    lines = drawn([*BEGUN, *more])
    assert ["ended", "1"] in lines and ["4", "epochs", "1", "70.0", "%", "2"] in lines
    assert not any(line[0].startswith("trial-worker") for line in lines), "one worker is no table"


def test_nothing_is_shown_before_and_after() -> None:
    """No empty tables."""
    assert drawn([]) == [] == drawn(BEGUN, over=True) == drawn([*BEGUN, s.SearchMeasured({})])


def test_the_best_so_far_is_remembered_by_a_run_that_goes_on(tmp_path: Path) -> None:
    """What earlier processes of the run told counts."""
    told = [s.TrialReached(0, 0, 1, (0.5,), 1, 1.0), s.TrialReached(1, 1, 2, (0.6, 0.8), 2, 1.0)]
    log = EventLog(tmp_path / "events.jsonl", [])
    for each in told:
        log.emit(each)
    log.emit(s.TrialEnded(0, "others were better", False))
    before = read_events(tmp_path / "events.jsonl")
    lines = drawn([s.TrialReached(2, 0, 1, (0.4,), 1, 1.0)], before=before)
    assert lines[1:] == [["1", "epochs", "2", "50.0", "%", "0"], ["2", "epochs", "1", "70.0", "%", "1"], ["ended", "1"]]
    line = SearchLines(before).line(s.TrialReached(2, 0, 1, (0.9,), 1, 1.0))
    assert line == "trial 2: 90.0 % after 1 epoch; best so far: 70.0 % after 2, trial 1"
