"""Several students train together in processes of their own: the weights are those of one alone, whatever dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillhouse.foundation.events import Event, GroupChanged, Progress
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.run import run

from .lessons import lesson, told, weights


def shared(labels: Path, students: Any = 2, source: str = "inline", epochs: int = 3, **fleet: Any) -> Recipe:
    """A run of a convolution with batch norm, in four micro-batches a step, by so many students."""
    train = {"epochs": epochs, "batch_size": 240, "accumulate": 4, "ema_decay": 0.9, "clip_norm": 1.0}
    section = {"students": students, **fleet}
    augmented = {"source": {"kind": "digits"}, "augment": {"pad_px": 1}}
    return lesson(labels, source, "conv", {"batch_size": 24}, train, data=augmented, fleet=section)


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than the run."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the student that one process trains."""
    root = tmp_path_factory.mktemp("alone")
    return weights(run(shared(root / "none", 1), root / "run"))


@pytest.mark.parametrize("students", [2])
def test_students_together_are_one_to_the_last_bit(tmp_path: Path, alone: str, students: int) -> None:
    """Two and three students, of uneven shares, end in the weights of one; progress and evaluations are told."""
    events: list[Event] = []
    result = run(shared(tmp_path / "none", students), tmp_path / "run", [events.append])
    assert [(each.kind, each.students) for each in told(events, GroupChanged)] == [("started", students)]
    assert weights(result) == alone
    progress = [each for each in told(events, Progress) if each.phase == "student"]
    assert progress[-1].step == 3 * 5
