"""Several teachers in the report: each one's accuracy, and what their trainings are called."""

from __future__ import annotations

from typing import Any

from stillhouse.report.compare import rows
from stillhouse.report.read import phase_words


def result(*members: dict[str, Any]) -> dict[str, Any]:
    return {
        "teacher": {"accuracy": 0.9, "params": 10, "members": list(members)},
        "student": {"accuracy": 0.8, "params": 5},
        "data": {"classes": ["a", "b", "c"]},
    }


def test_each_teacher_has_its_accuracy() -> None:
    """A row tells what each teacher gets right alone, and among how many classes where not all."""
    told = [{"accuracy": 0.85, "classes": 3}, {"accuracy": 0.975, "classes": 2}, {"accuracy": None, "classes": 1}]
    (row,) = [row for row in rows(result(*told)) if row.label == "Each teacher"]
    assert row.teacher == "85.0 %, 97.5 % of 2 classes, – of 1 classes"
    assert [row.label for row in rows(result())].count("Each teacher") == 0


def test_their_trainings_are_numbered() -> None:
    """Trainings of several teachers are told apart from one teacher's and from seeds."""
    assert [phase_words(name) for name in ("teacher", "teacher-0", "teacher-1", "student-1")] == [
        "Teacher",
        "Teacher 1",
        "Teacher 2",
        "Student, seed 2",
    ]
