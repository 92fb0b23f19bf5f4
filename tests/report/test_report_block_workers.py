"""The timeline of processes that trained blocks: who, when, how busy, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillhouse.report.blockwise.workers import ROWS_MAX, block_workers, draw_workers, workers_table
from stillhouse.report.html import write_report

from .test_report_blockwise import RECIPE, with_blocks
from .test_report_html import Outline

Json = dict[str, Any]
STARTED = {"event": "PhaseStarted", "phase": "blocks", "step": 0, "steps": 40}


def planned(*workers: list[Any], step: int = 0) -> Json:
    return {"event": "BlocksPlanned", "phase": "blocks", "step": step, "relayed": True, "workers": list(workers)}


def measured(seconds: float, *workers: tuple[int, float]) -> Json:
    return {
        "event": "BlocksMeasured",
        "phase": "blocks",
        "seconds": seconds,
        "workers": [list(each) for each in workers],
    }


def worker(pid: int, first: str, last: str, count: int) -> list[Any]:
    return ["here", pid, first, last, [[first, f"separable-{number}"] for number in range(count)]]


TWO = [
    STARTED,
    planned(worker(11, "stem", "stage1", 3), worker(12, "stage2", "stage2", 5)),
    measured(2.0, (10, 1.0), (9, 0.5)),
    measured(2.0, (20, 1.0), (19, 0.7)),
    {"event": "PlanMeasured", "phase": "blocks", "planned_s": 0.1, "measured_s": 0.125},
]


def test_who_trained_what_and_how_busy() -> None:
    """A row for each process with its blocks, its share of busy time, and its steps to the last."""
    found = block_workers(TWO)
    table = workers_table(found)
    assert table is not None and list(map(list, table.rows)) == [
        ["stem to stage1", "11 on here", "3", "40", "100 %", "trained to the end"],
        ["stage2", "12 on here", "5", "40", "60 %", "trained to the end"],
    ]
    drawing = draw_workers(found)
    assert drawing is not None and drawing.title == "2 workers trained the blocks; 20 % of the time went in waiting."
    assert "A step was planned to take 100 ms and took 125 ms." in drawing.note and "handed on" in drawing.note


def test_a_worker_that_was_lost_is_told() -> None:
    """After a loss the plan is made anew; the first rows say how they ended, and the time goes on."""
    lost = {"event": "BlockWorkersLost", "phase": "blocks", "workers": 2, "step": 20, "text": "12 is gone\nmore"}
    again = [planned(worker(13, "stem", "stage2", 8), step=16), measured(3.0, (30, 0.9))]
    found = block_workers([*TWO[:-1], lost, *again])
    assert [each.how for each in found.workers] == ["begun again: 12 is gone"] * 2 + ["was there to the last"]
    assert found.span_s == 7.0 and found.workers[2].stretches[0].start_s == 4.0
    drawing = draw_workers(found)
    assert drawing is not None and "1 of them lost on the way" in drawing.title and "planned anew" in drawing.note


def test_a_resumed_run_ends_the_rows_before() -> None:
    """Workers of a process of the run that was stopped are said to have been."""
    found = block_workers([*TWO[:-1], {"event": "RunStarted", "process_id": 1, "resumed": True}])
    assert {each.how for each in found.workers} == {"the run was stopped"}


def test_nothing_is_drawn_of_nothing() -> None:
    """One process alone has no timeline; workers that never told of themselves have a table only."""
    assert workers_table(block_workers([])) is None and draw_workers(block_workers([])) is None
    silent = block_workers(TWO[:2])
    assert draw_workers(silent) is None and workers_table(silent) is not None


def test_strange_events_and_many_workers_make_a_page(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """Rows of another form are left out, markup is escaped, and a hundred workers make no endless figure."""
    evil = "<script>alert(1)</script>"
    many = [worker(number, evil, evil, 1) for number in range(100)]
    events = [STARTED, planned(["too", "short"], *many), measured(2.0, *[(1, 0.5)] * 100)]
    folder = with_blocks(make_run(tmp_path / "run", None, events, recipe=RECIPE), chosen=False)
    page = write_report(folder).read_text()
    assert "<script" not in page and f"Shown are {ROWS_MAX} of 100." in Outline(page).words()
