"""Figures made from events: throughput, wall time."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse.runner.measure import _wall_s, fleet_use, students_use, throughput


def progress(phase: str, samples: int, **seconds: float) -> dict[str, Any]:
    return {"time": 0.0, "event": "Progress", "phase": phase, "samples": samples, "seconds": seconds}


def at(time: float, event: str, **values: Any) -> dict[str, Any]:
    return {"time": time, "event": event, **values}


def test_throughput_is_samples_over_time_in_and_between_steps() -> None:
    """Evaluation and checkpoints don't count; waiting for data or teacher is starving; other phases don't matter."""
    events = [
        progress("student", 600, data=1.0, teacher=2.0, step=3.0),
        progress("student", 400, data=0.0, teacher=2.0, step=2.0, evaluate=50.0, checkpoint=7.0),
        progress("control-0", 9999, step=1.0),
    ]
    found = throughput(events, "student")
    assert found["samples_per_s"] == 100.0
    assert found["starved_share"] == 0.5
    assert found["teacher_idle_share"] == 0.6
    assert found["seconds"] == {"data": 1.0, "teacher": 4.0, "step": 5.0, "evaluate": 50.0, "checkpoint": 7.0}


def test_throughput_of_nothing() -> None:
    """A phase that told nothing has no throughput, rather than a division by zero."""
    assert throughput([], "student")["samples_per_s"] is None


def test_what_a_killed_process_saw_of_its_fleet_counts() -> None:
    """Sums over all processes of a run, each as it told them last, whatever steps were repeated after a kill."""
    events = [
        at(0.0, "RunStarted"), at(1.0, "FleetMeasured", totals={"workers_joined": 2, "workers_lost": 0}),
        at(2.0, "FleetMeasured", totals={"workers_joined": 3, "workers_lost": 1, "questions_reissued": 4}),
        at(3.0, "RunStarted"), at(4.0, "RunStarted"),
        at(5.0, "FleetMeasured", totals={"workers_joined": 2, "workers_lost": 1}),
        at(6.0, "Progress", counts={"unanswered": 7}),
    ]  # fmt: skip
    found = fleet_use(events)
    assert found is not None and (found["workers_joined"], found["workers_lost"], found["questions_reissued"]) == (
        5,
        2,
        4,
    )
    assert found["unanswered"] == 7 and found["answers_dropped"] == 0
    assert fleet_use(events[-1:]) is None  # nobody worked for this run


def group(kind: str, students: int, step: int, phase: str = "student") -> dict[str, Any]:
    return at(0.0, "GroupChanged", kind=kind, students=students, step=step, phase=phase)


def begun(step: int) -> dict[str, Any]:
    return at(0.0, "PhaseStarted", phase="student", step=step)


def test_how_many_students_trained_from_where_on() -> None:
    """Each process of a run may train with another number; what a kill made it repeat counts as it was done last."""
    pair, alone = [group("started", 2, 0), begun(0)], [at(1.0, "RunStarted"), begun(11)]
    assert students_use([begun(0), *alone]) is None
    assert students_use(pair) == {"together": 2, "course": [[0, 2]], "lost": 0}
    assert students_use([*pair, *alone]) == {"together": 1, "course": [[0, 2], [11, 1]], "lost": 0}
    lost = [group("lost", 3, 11), group("started", 2, 30), begun(30)]
    more = [at(2.0, "RunStarted"), group("started", 3, 11), begun(11), *lost]
    found = students_use([*pair, *alone, *more])
    assert found == {"together": 2, "course": [[0, 2], [11, 3], [30, 2]], "lost": 1}
    again = [at(2.0, "RunStarted"), group("started", 3, 0), begun(0), group("started", 1, 0, "student-1")]
    assert students_use([*pair, *alone, *again]) == {"together": 3, "course": [[0, 3]], "lost": 0}


def test_an_idle_teacher_was_asked_something() -> None:
    """A fleet's idle share is of its workers' time; where nobody was asked there is none, rather than 100 %."""
    stored = [progress("student", 600, store=1.0, step=3.0)]
    assert throughput(stored, "student")["teacher_idle_share"] is None
    rows = [["a", "busy", 5, 0.1, 1, 0.75], ["b", "idle", 0, None, 0, 0.25], ["c", "loading", 0, None, 0, 0.0]]
    looks = [
        at(1.0, "FleetMeasured", seconds=2.0, workers=rows),
        at(2.0, "FleetMeasured", seconds=4.0, workers=rows[:1]),
    ]
    waited = progress("student", 600, teacher=3.0, step=1.0)
    for synchronous in (True, False):
        assert throughput([waited, *looks], "student", synchronous)["teacher_idle_share"] == 0.375
    alone = [at(3.0, "RunStarted"), progress("student", 600, teacher=1.0, step=7.0)]  # 7 s more of 8 s more
    assert throughput([waited, *looks, *alone], "student")["teacher_idle_share"] == pytest.approx(10 / 16)


def test_wall_time_leaves_out_pauses() -> None:
    """Wall time is the sum over processes; the night between a crash and the resume is not in it."""
    events = [
        at(100.0, "RunStarted"), at(130.0, "CheckpointWritten"),
        at(5000.0, "RunStarted"), at(5020.5, "Warned"),
        at(9000.0, "RunStarted"), at(9001.0, "PhaseFinished"),
    ]  # fmt: skip
    assert _wall_s(events, now=9003.0) == pytest.approx(53.5)
    assert _wall_s(events[:2], now=131.0) == 31.0
    assert _wall_s([], now=5.0) == 0.0
