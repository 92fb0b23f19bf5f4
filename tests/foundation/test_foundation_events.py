"""The event file: appended, torn, told again."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse.foundation.errors import StorageError
from stillhouse.foundation.events import (
    CheckpointWritten,
    Evaluated,
    Event,
    EventLog,
    PhaseStarted,
    Progress,
    Warned,
)
from stillhouse.foundation.history import read_events


def progress(step: int, phase: str = "student", loss: float = 1.0) -> Progress:
    return Progress(phase, step, 0.5, {"total": loss}, 0.1, {"step": 0.2}, 16)


def steps(path: Path, phase: str = "student") -> list[tuple[int, float]]:
    return [
        (each["step"], each["losses"]["total"])
        for each in read_events(path)
        if each["event"] == "Progress" and each["phase"] == phase
    ]


def test_events_come_back_in_order_with_their_fields(tmp_path: Path) -> None:
    """What is emitted is read back, and the listeners hear the same."""
    heard: list[Event] = []
    log = EventLog(tmp_path / "events.jsonl", [heard.append])
    said: list[Event] = [
        PhaseStarted("student", 0, 10, 16),
        progress(5),
        Warned("Süß"),
        CheckpointWritten("s", 5, 9, 1.0),
    ]
    for event in said:
        log.emit(event)
    found = read_events(log.path)
    assert heard == said
    assert [each["event"] for each in found] == ["PhaseStarted", "Progress", "Warned", "CheckpointWritten"]
    assert found[1]["losses"] == {"total": 1.0}
    assert found[2]["message"] == "Süß"


@pytest.mark.parametrize("torn", [b'{"time": 1.0, "event": "Prog', b"\x00\x00\x00", b"{", b'{"time": 1, "x": "\xc3'])
def test_a_torn_last_line_is_dropped_and_mended(torn: bytes, tmp_path: Path) -> None:
    """A killed process's torn last line is not read, and what is appended later stands on a line of its own."""
    log = EventLog(tmp_path / "events.jsonl")
    log.emit(Warned("one"))
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + torn)
    assert [each["message"] for each in read_events(log.path)] == ["one"]
    log.mend_tail()
    assert log.path.read_bytes() == whole
    log.emit(Warned("two"))
    assert [each["message"] for each in read_events(log.path)] == ["one", "two"]


def test_a_missing_file_has_no_events(tmp_path: Path) -> None:
    """No file means no events, and nothing to mend."""
    EventLog(tmp_path / "none.jsonl").mend_tail()
    assert read_events(tmp_path / "none.jsonl") == []


def test_steps_told_again_after_a_resume_count_once(tmp_path: Path) -> None:
    """Steps that a resumed phase tells again are kept in their later telling only; other phases stay."""
    log = EventLog(tmp_path / "events.jsonl")
    log.emit(progress(30, "teacher"))
    log.emit(PhaseStarted("student", 0, 40, 16))
    for step in (10, 20, 30):
        log.emit(progress(step, loss=1.0))
    log.emit(Evaluated("student", 30, 3.0, "validation", 0.5, 1.0))
    log.emit(CheckpointWritten("student", 10, 100, 0.1))
    log.emit(PhaseStarted("student", 10, 40, 16))
    for step in (20, 30, 40):
        log.emit(progress(step, loss=2.0))
    assert steps(log.path) == [(10, 1.0), (20, 2.0), (30, 2.0), (40, 2.0)]
    assert steps(log.path, "teacher") == [(30, 1.0)]
    kinds = [each["event"] for each in read_events(log.path)]
    assert kinds.count("Evaluated") == 0
    assert kinds.count("CheckpointWritten") == 1


def test_a_disk_that_refuses_is_a_storage_error(tmp_path: Path) -> None:
    """An event that can't be appended is an error that names the file."""
    with pytest.raises(StorageError, match=r"events\.jsonl"):
        EventLog(tmp_path / "missing" / "events.jsonl").emit(Warned("x"))
