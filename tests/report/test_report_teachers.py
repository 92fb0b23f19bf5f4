"""The teachers of a run on its page: who worked when, how each went, what the student had and lacked meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.events import EventLog, FleetChanged, FleetMeasured, RunStarted, WorkerMeasured
from stillhouse.report.html import write_report
from stillhouse.report.read import read_run
from stillhouse.report.teacher_words import sentence, table
from stillhouse.report.teachers import Stretch, merged, teachers
from stillhouse.report.timeline import ROWS_MAX, draw_timeline

Json = dict[str, Any]
MakeRun = Callable[..., Path]
FLEET = {
    "workers_joined": 3, "workers_lost": 1, "workers_suspected": 1, "questions_reissued": 12, "questions_hedged": 2,
    "answers_dropped": 4, "unanswered": 0,
}  # fmt: skip


def event(made: Any, time: float) -> Json:
    return {"time": time, "event": type(made).__name__, **asdict(made)}


def measured(time: float, *workers: tuple[Any, ...], buffered: int = 0, starved: float = 0.0, **more: Any) -> Json:
    """What was told at a time of the two seconds before."""
    values: Json = {"inline": False, "own_views": 0} | more
    rows = tuple(WorkerMeasured(*each) for each in workers)
    told = event(FleetMeasured(2.0, rows, 900, 0, buffered, 1000, 250, 750, False, starved, **values), time)
    return told | {"workers": [list(each) for each in rows]}


def change(time: float, kind: str, worker: str, text: str = "", **facts: Any) -> Json:
    return event(FleetChanged(kind, worker, text, facts, 0.0), time)


STORY = [
    event(RunStarted(1, False), 90.0),
    measured(102.0, ("local-1", "loading", 0, None, 0, 0.0), starved=1.0),
    change(103.0, "joined", "local-1", host="here", device="a GPU", engine="fp16", pace_s=0.001),
    measured(104.0, ("local-1", "busy", 1000, 0.002, 2, 0.5), starved=0.5, buffered=300),
    measured(106.0, ("local-1", "busy", 2000, 0.002, 2, 1.0), buffered=800),
    change(107.0, "left", "local-1", "killed by SIGKILL"),
    change(107.5, "joined", "joined-2", host="there", device="cpu", engine="bf16", pace_s=0.01),
    measured(108.0, ("joined-2", "suspect", 50, 0.01, 1, 1.0), starved=1.0, inline=True, own_views=70),
    measured(110.0, ("joined-2", "busy", 90, 0.01, 1, 1.0), inline=True, own_views=90),
    change(110.5, "scaled", "joined-2", "too many"),
    change(111.0, "left", "joined-2", "too many"),
    change(111.5, "left", "local-3", "exit code 1: no memory"),
    measured(112.0),
]


@pytest.fixture
def told(result: Json, events: list[Json], make_run: MakeRun, tmp_path: Path) -> Path:
    """A finished run, one of whose teachers was killed."""
    result["fleet"] = FLEET
    return make_run(tmp_path / "run", result, [*STORY, *events])


def test_who_worked_when(told: Path) -> None:
    """Loading, working and suspect follow each other in seconds since the first question, up to the end of each."""
    found = teachers(read_run(told))
    first, second, third = found.workers
    assert first.stretches == [
        Stretch(0.0, 2.0, "loading"), Stretch(2.0, 4.0, "loading", 0.5), Stretch(4.0, 6.0, "working", 1.0),
        Stretch(6.0, 7.0, "working", 1.0),
    ]  # fmt: skip
    assert (first.how, first.ended_s, first.busy_share) == ("killed", 7.0, 1.0)
    assert [each.kind for each in second.stretches] == ["working", "suspect", "working"]
    assert (second.how, second.by_hand, second.ended_s) == ("dismissed", True, 11.0)
    assert (third.how, third.stretches) == ("failed", [])
    assert found.own_views == 90 and found.span_s == 12.0
    assert [(each.at_s, each.buffered) for each in found.readings[:3]] == [(2.0, 0.0), (4.0, 300.0), (6.0, 800.0)]


def test_who_waited_for_a_place_did_not_load(make_run: MakeRun, tmp_path: Path) -> None:
    """Time without a machine is drawn apart from loading, and counts for neither load nor work."""
    waits = measured(102.0, ("ray-1", "unplaced", 0, None, 0, 0.0))
    loads = [measured(at_s, ("ray-1", "loading", 0, None, 0, 0.0)) for at_s in (104.0, 106.0)]
    works = measured(108.0, ("ray-1", "busy", 9, 0.1, 1, 1.0))
    found = teachers(read_run(make_run(tmp_path / "run", None, [STORY[0], waits, *loads, works])))
    (worker,) = found.workers
    assert [each.kind for each in worker.stretches] == ["unplaced", "unplaced", "loading", "loading"]
    assert worker.busy_share is None


def test_water_marks_end_with_who_asks(make_run: MakeRun, tmp_path: Path) -> None:
    """Where no student is left that could ask there is no window: the marks end, they don't fall to 0."""
    ended = measured(120.0) | {"window": 0, "low": 0, "high": 0}
    drawing = draw_timeline(teachers(read_run(make_run(tmp_path / "run", None, [*STORY, ended]))))
    assert drawing is not None
    lines = re.findall(r'<path d="([^"]*)"[^>]*stroke-dasharray: 3', drawing.svg)
    assert lines and all(line.split()[2] == line.split()[-1] for line in lines)


def test_the_table_names_each(told: Path) -> None:
    """Host, device, engine, pace, views, busy share and end of each worker stand in a row."""
    run = read_run(told)
    found = table(run, teachers(run))
    assert found is not None
    assert list(found.rows) == [
        ["local-1", "here", "a GPU", "fp16", "500", "2,000", "100 %", "killed by SIGKILL"],
        ["joined-2", "there", "cpu", "bf16", "100", "90", "100 %", "dismissed: too many"],
        ["local-3", "–", "–", "–", "–", "0", "–", "failed: exit code 1: no memory"],
    ]


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"workers_lost": 0}, "Every view was answered."),
        ({"unanswered": 1}, "1 view had no answer. 1 teacher was lost on the way, and 12 questions were asked again."),
        (
            {"workers_lost": 2, "questions_reissued": 0},
            "No answer was lost. Every view was answered. 2 teachers were lost on the way.",
        ),
        ({"workers_joined": 0}, ""),
    ],
)
def test_what_was_lost_is_told(counts: Json, words: str, result: Json, make_run: MakeRun, tmp_path: Path) -> None:
    """Lost is what nobody answered, not a teacher; where no teacher joined there is nothing to tell."""
    result["fleet"] = FLEET | counts
    assert sentence(read_run(make_run(tmp_path / "run", result, STORY))) == words


def test_the_page_shows_the_fleet(told: Path) -> None:
    """The page has the timeline, with how each teacher went, and the result's counts; text in it is readable."""
    page = write_report(told).read_text()
    words = re.sub(r"<[^>]+>", " ", page).replace("\N{NO-BREAK SPACE}", " ")
    for each in (
        "Teachers</h2>", "2 teachers answered, 1 was lost on the way; the student waited 42 %.", "Lost on the way",
        "No answer was lost. Every view was answered. 1 teacher was lost on the way, and 12 questions were asked",
        "12", "Teachers of this run", "The student answered 90 views itself", "joined-…: a person started it",
    ):  # fmt: skip
        assert each in page or each in words, each
    (svg,) = re.findall(r'<figure class="card teachers">.*?(<svg.*?</svg>)', page, re.DOTALL)
    for each in ("local-1", "joined-2", "killed", "dismissed", "seconds since the first question"):
        assert f">{each}<" in svg
    assert 'viewBox="0 0 331.2' in svg and not re.findall(r"#(?:[0-9a-f]{6})\b", svg)
    assert min(float(size) for size in re.findall(r"font-size: ([\d.]+)px", svg)) >= 11
    assert write_report(told).read_text() == page


def test_a_resumed_run_goes_on_after_itself(make_run: MakeRun, tmp_path: Path) -> None:
    """Teachers of a later process are other ones though they have the same names; the pause takes no room."""
    again = [{**each, "time": each["time"] + 86400} for each in STORY]
    run = read_run(make_run(tmp_path / "run", None, [*STORY[:5], *again]))
    found = teachers(run)
    assert [each.name for each in found.workers] == ["local-1", "local-1 (2)", "joined-2 (2)", "local-3 (2)"]
    assert found.resumed_s == [6.0] and found.span_s == 18.0 and found.workers[1].ended_s == 13.0
    told = table(run, found)
    assert told is not None and told.rows[0][-1] == "the run was stopped"


def test_no_fleet_no_section(page: str) -> None:
    """A run whose teacher answered in its own process says nothing of workers."""
    assert "Teachers</h2>" not in page


def test_a_long_run_is_no_larger(make_run: MakeRun, tmp_path: Path) -> None:
    """Days of measurements and hundreds of workers make a figure of some hundred boxes."""
    names = [f"local-{each}" for each in range(100)]
    long = [
        measured(100.0 + 2 * at, *((name, "busy", at, 0.01, 1, (at % 7) / 7) for name in names)) for at in range(600)
    ]
    found = teachers(read_run(make_run(tmp_path / "run", None, long)))
    drawing = draw_timeline(found)
    assert drawing is not None and len(drawing.svg) < 300_000
    assert f"the {ROWS_MAX} of 100 teachers" in drawing.note


def test_alike_neighbours_are_one() -> None:
    """Stretches of one kind and shade become one, another kind never does."""
    short = [Stretch(at, at + 1.0, "working", 0.5) for at in range(5)]
    assert merged([*short, Stretch(5, 6, "suspect")], 0.1, 4) == [
        Stretch(0, 5, "working", 0.5), Stretch(5, 6, "suspect"),
    ]  # fmt: skip


@pytest.mark.parametrize("value", [None, 3, "odd", [["x"], 3, [None] * 6, ["a", "busy", "many", "fast", None, "x"]]])
def test_odd_values_are_no_obstacle(value: Any, make_run: MakeRun, tmp_path: Path) -> None:
    """Events of which little can be read are told as far as they go."""
    odd = [measured(102.0, ("a", "busy", 1, 0.1, 1, 1.0)) | {"workers": value, "seconds": value}]
    odd += [{"time": 103.0, "event": "FleetChanged", "kind": value, "worker": "a", "facts": value, "text": value}]
    odd += [{"event": "FleetMeasured"}, {"event": "FleetChanged", "worker": value}]
    write_report(make_run(tmp_path / "run", None, odd))


def test_events_as_the_log_writes_them(make_run: MakeRun, tmp_path: Path) -> None:
    """The report reads what the event log writes, not a likeness of it."""
    folder = make_run(tmp_path / "run", None, [])
    log = EventLog(folder / "events.jsonl")
    worker = WorkerMeasured("local-1", "busy", 640, 0.5, 2, 0.25)
    log.emit(FleetMeasured(2.0, (worker,), 9, 4, 5, 10, 2, 7, True, 0.5, True, 3))
    found = teachers(read_run(folder))
    assert [(each.name, each.views, each.pace_s, each.busy_share) for each in found.workers] == [
        ("local-1", 640, 0.5, 0.25)
    ]
    (reading,) = found.readings
    assert (reading.buffered, reading.low, reading.high, reading.starved_share, reading.inline) == (5, 2, 7, 0.5, True)
