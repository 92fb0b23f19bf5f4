"""Students that trained together on the page of their run: who they were, how far each came, how it went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stillhouse.foundation.events import GroupChanged, GroupMeasured, PhaseFinished, RunStarted, StudentMeasured
from stillhouse.report.html import write_report
from stillhouse.report.read import read_run
from stillhouse.report.students import table

MakeRun = Callable[..., Path]


def event(made: Any) -> dict[str, Any]:
    return {"time": 100.0, "event": type(made).__name__, **asdict(made)}


def measured(seconds: float, *students: tuple[Any, ...]) -> dict[str, Any]:
    made = GroupMeasured("student", seconds, tuple(StudentMeasured(*each) for each in students))
    return event(made) | {"students": [list(each) for each in students]}


STORY = [
    event(RunStarted(1, False)),
    event(GroupChanged("student", "started", 2, 0, "", (("here", 11), ("there", 12)))),
    measured(2.0, ("here", 11, "training", 8, 1000.0, 0.5), ("there", 12, "loading", 0, 0.0, 0.0)),
    measured(2.0, ("here", 11, "training", 20, 2000.0, 0.0), ("there", 12, "training", 19, 400.0, 0.25)),
    measured(6.0, ("here", 11, "training", 21, 1000.0, 0.5), ("there", 12, "training", 21, 800.0, 0.5)),
    event(GroupChanged("student", "lost", 2, 21, "student 2 of 2: killed by SIGKILL")),
    event(GroupChanged("student", "started", 1, 10, "", (("here", 13),))),
    event(PhaseFinished("student", 9.0, None, "unavailable")),
]


def test_each_process_has_a_row(make_run: MakeRun, tmp_path: Path) -> None:
    """From its first step to its last, at which rate, waiting how much, and why it ended; loading is no training."""
    found = table(read_run(make_run(tmp_path / "run", None, STORY)))
    assert found is not None
    lost = "begun again: student 2 of 2: killed by SIGKILL"
    assert list(found.rows) == [
        ["Student, 1 of 2", "11 on here", "0 to 21", "1,250", "38 %", lost],
        ["Student, 2 of 2", "12 on there", "0 to 21", "800", "50 %", lost],
        ["Student, 1 of 1", "13 on here", "10 to 10", "–", "–", "trained to the end"],
    ]


def test_the_page_has_them(make_run: MakeRun, tmp_path: Path) -> None:
    """The page tells of students that trained together, and is silent where one trained alone."""
    together = write_report(make_run(tmp_path / "run", None, STORY)).read_text()
    alone = write_report(make_run(tmp_path / "alone", None, STORY[:1])).read_text()
    assert "Students that trained together" in together and "Students that trained" not in alone
