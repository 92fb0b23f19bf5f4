"""The label store and the table of engines: every figure of the events is told, nothing where there was none."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stillhouse.foundation.events import EngineTried, EventLog, SourceMeasured, StoreOpened
from stillhouse.report import engines, labels
from stillhouse.report.compare import print_result
from stillhouse.report.epochbars import courses
from stillhouse.report.html import write_report
from stillhouse.report.read import read_run

Json = dict[str, Any]
MakeRun = Callable[..., Path]
STORE = {
    "hits": 37504, "misses": 12500, "folder": "/somewhere/labels/de1df539", "row_bytes": 48, "bytes_written": 600000,
    "bytes_on_disk": 2100000, "rows_damaged": 0, "rows_without_room": 0,
}  # fmt: skip


def event(made: Any) -> Json:
    return {"event": type(made).__name__, **asdict(made)}


def tried(engine: str, speed: float | None = None, role: str = "teacher", **more: Any) -> Json:
    values: Json = dict.fromkeys(("first_call_s", "kl", "agreement", "feature_error", "loss_error", "steady"))
    values |= {"chosen": False, "remembered": False, "refused": ""} | more
    return event(EngineTried(role=role, engine=engine, samples_per_s=speed, **values))


def with_counts(events: list[Json]) -> list[Json]:
    """The student asks in its first epoch, of four steps, and reads in the others; its twin reads."""
    for each in events:
        if each["event"] == "Progress" and each["phase"].startswith("student"):
            asked = 128 if each["phase"] == "student" and each["step"] <= 4 else 0
            each["counts"] = {"hits": 128 - asked, "misses": asked}
    return events


OPENED = event(
    StoreOpened("/somewhere/labels/de1df539", 10, 90_000_000, "not read: /old: engine.precision: fp32", 0, 9)
)
MEASURED = event(SourceMeasured(0.0012, 0.035, "stored"))


@pytest.fixture
def stored(result: Json, events: list[Json], make_run: MakeRun, tmp_path: Path) -> Path:
    """A finished run with a store and a trial of engines."""
    told = with_counts(events)
    started = next(at for at, each in enumerate(told) if each.get("phase") == "student")
    told.insert(started + 3, MEASURED)
    trial = [
        tried("fp32, 128 at once", 400.0, first_call_s=0.3, steady=True),
        tried("bf16, 128 at once", 500.0, kl=2e-5, agreement=0.998, steady=False, refused="it is not steady"),
        tried(
            "bf16 compiled, 128 at once", 1400.0, first_call_s=31.2, kl=3e-5, agreement=1.0, steady=True, chosen=True
        ),
        tried("fp32", 90.0, "student's step", loss_error=0.0, chosen=True, remembered=True),
    ]
    result["store"] = STORE | {"rows_damaged": 3, "rows_without_room": 7}
    return make_run(tmp_path / "stored", result, [*trial, OPENED, *told])


def test_the_page_tells_store_and_engines(stored: Path) -> None:
    """Whatever is known of the store and of each engine stands on the page."""
    page = write_report(stored).read_text()
    words = re.sub(r"<[^>]+>", " ", page).replace("\N{NO-BREAK SPACE}", " ").replace("&#39;", "'")
    told = (
        "37,504 of 50,004 answers were read from the store (75.0 %); 12,500 were asked of the teacher.",
        "The student read 66.7 % of its answers", "The teacher was asked in 1 of 3 epochs", "2.10 MB", "600 kB", "48 B",
        "90.0 MB", "3 answers, asked again", "7 answers, asked each time", "/somewhere/labels/de1df539",
        "not read: /old: engine.precision: fp32", "Measured, student",
        "a view took 1,200.0 µs to read, 35,000.0 µs to ask: from then on answers were read", "The teacher's answers",
        "it is not steady", "3.50×", "31.2 s", "3.0e-05", "99.80 %", "remembered from an earlier trial",
    )  # fmt: skip
    assert [each for each in told if each not in words] == []


def test_views_by_training_and_by_epoch(stored: Path) -> None:
    """Views read and asked are the events', for each training and in the epochs' tables."""
    told = courses(read_run(stored))
    table = labels.by_training(told)
    assert table is not None
    assert table.rows == [["Student", "1,024", "512", "66.7 %"], ["Student, seed 2", "1,536", "0", "100.0 %"]]
    student = next(each for each in told if each.phase.name == "student")
    assert [each.counts for each in student.epochs] == [{"hits": 0, "misses": 512}] + 2 * [{"hits": 512, "misses": 0}]


def test_totals_of_an_unfinished_run(events: list[Json], make_run: MakeRun, tmp_path: Path) -> None:
    """Without a result the totals are those of the events so far, and what only the end knows is not told."""
    run = read_run(make_run(tmp_path / "run", None, [OPENED, *with_counts(events)]))
    assert labels.summary(run, courses(run)).startswith("2,560 of 3,072 answers were read from the store (83.3 %)")
    assert [label for label, _ in labels.facts(run)] == [
        "With every view answered", "Views of a sample", "Folder", "Another store",
    ]  # fmt: skip
    assert "not" in labels.summary(read_run(make_run(tmp_path / "new", None, [OPENED])), []).lower()


def test_no_store_no_engines(page: str) -> None:
    """A run from before there was a store has no empty sections."""
    assert "Label store</h2>" not in page
    assert "Engines tried</h2>" not in page
    assert "epoch by epoch</h2>" in page


@pytest.mark.parametrize("value", [None, {}, "odd", {"hits": None, "folder": 3, "rows_damaged": "x"}])
def test_odd_values_are_no_obstacle(value: Any, result: Json, make_run: MakeRun, tmp_path: Path) -> None:
    """A store and engines of which little is known are told as far as they go."""
    result["store"] = value
    odd = [{"event": name} for name in ("EngineTried", "StoreOpened", "SourceMeasured")]
    odd += [{"event": "EngineTried", "engine": 3, "samples_per_s": "fast", "steady": "maybe", "chosen": 1}]
    folder = make_run(tmp_path / "run", result, odd)
    write_report(folder)
    print_result(result, folder, Console(file=StringIO(), width=80))


def test_engine_table(make_run: MakeRun, tmp_path: Path) -> None:
    """Speed-up is over plain fp32, unmeasured columns are left out, the chosen row is marked, the rest says why not."""
    trial = [
        tried("fp32, 64 at once", 100.0), tried("fp32 channels-last, 64 at once", 110.0, kl=0.0),
        tried("bf16, 64 at once", refused="not tried: too little work"), tried("fp32, 256 at once", 200.0, chosen=True),
    ]  # fmt: skip
    (table,) = engines.tables(read_run(make_run(tmp_path / "run", None, trial)))
    assert table.head == ["Engine", "Samples/s", "Against fp32", "KL, nats", "Outcome"]
    assert list(table.rows) == [
        ["fp32, 64 at once", "100", "1.00×", "–", "slower"],
        ["fp32 channels-last, 64 at once", "110", "1.10×", "0", "slower"],
        ["bf16, 64 at once", "–", "–", "–", "not tried: too little work"],
        ["fp32, 256 at once", "200", "2.00×", "–", "chosen"],
    ]
    assert table.marked == {3}
    assert "KL:" in table.note
    assert "Steady:" not in table.note


def test_a_trial_told_twice_counts_once(make_run: MakeRun, tmp_path: Path) -> None:
    """Of a trial that a resumed run made again, the later telling counts, with one engine chosen."""
    first = [tried("fp32", 100.0), tried("bf16", 150.0, chosen=True)]
    again = [tried("fp32", 120.0, chosen=True), tried("bf16", 110.0)]
    (table,) = engines.tables(read_run(make_run(tmp_path / "run", None, [*first, *again])))
    assert list(table.rows) == [["fp32", "120", "1.00×", "chosen"], ["bf16", "110", "0.92×", "slower"]]


def test_none_taken(make_run: MakeRun, tmp_path: Path) -> None:
    """Where no engine could be taken, the page says what was done instead."""
    (table,) = engines.tables(read_run(make_run(tmp_path / "run", None, [tried("bf16", refused="no memory")])))
    assert not table.marked
    assert "None was taken" in table.note


def test_events_as_the_log_writes_them(tmp_path: Path, make_run: MakeRun) -> None:
    """The report reads what the event log writes, not a likeness of it."""
    folder = make_run(tmp_path / "run", None, [])
    log = EventLog(folder / "events.jsonl")
    log.emit(StoreOpened("/labels", 4, 4000, "", 5, 9))
    log.emit(SourceMeasured(0.5, 0.25, "inline"))
    facts = dict(labels.facts(read_run(folder)))
    assert facts == {
        "With every view answered": "4.00 kB", "Views of a sample": "4",
        "Measured": "a view took 500,000.0 µs to read, 250,000.0 µs to ask: from then on the teacher was asked",
        "Folder": "/labels",
    }  # fmt: skip


def test_terminal_lines(result: Json, tmp_path: Path) -> None:
    """The printed result has one line of the store and one of the student's waiting, within 80 columns."""
    result["store"] = STORE
    output = StringIO()
    print_result(result, tmp_path, Console(file=output, width=80))
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    assert "Label store    37,504 answers read, 12,500 asked, 2.10 MB on disk" in lines
    assert "Student waited 49 % of its training: teacher 41 %, data 8 %" in lines
