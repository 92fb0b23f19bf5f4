"""Several teachers in the report: each one's accuracy, and what their trainings are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillhouse.report.compare import rows
from stillhouse.report.plots import draw_accuracy
from stillhouse.report.read import Phase, Run, phase_words


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


def test_the_plot_is_labelled_with_what_all_get_right() -> None:
    """Several teachers have a line each; the label tells of all together, and of their mean before that."""
    told = {"teacher-0": 0.5, "teacher-1": 0.7}
    phases = {name: Phase(name, evaluations=[(4, 1.0, share)]) for name, share in told.items()}
    drawn = draw_accuracy(Run(Path(), "", None, (), phases))
    assert drawn is not None and "The teacher got 60.0 %" in drawn.title
    phases["teacher"] = Phase("teacher", evaluations=[(0, 0.0, 0.9)])
    drawn = draw_accuracy(Run(Path(), "", {}, (), phases))
    assert drawn is not None and "The teacher got 90.0 % of the validation samples right." in drawn.title
    assert "A line for each teacher" in drawn.note and "seeds" not in drawn.note
