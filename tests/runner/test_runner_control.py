"""How a control is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillhouse.recipe.load import validate
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.control import control_settings
from stillhouse.runner.run import resume, run

from .small_blocks import SMALL, TRAIN, explode


def optimizer(rate: float) -> dict[str, Any]:
    return {"kind": "sgd", "learning_rate": rate}


@pytest.mark.parametrize(
    ("teacher", "control", "expected"),
    [(0.2, None, 0.2), (None, None, TrainSection().optimizer.learning_rate), (0.2, 0.3, 0.3), (None, 0.3, 0.3)],
)
def test_a_blockwise_control_learns_as_the_teacher_did(
    tmp_path: Path, teacher: float | None, control: float | None, expected: float
) -> None:
    """All of the teacher's training, the default optimiser where it is given, or its own; and everybody's epochs."""
    train = {**TRAIN, "epochs": 4, "batch_size": 30, "clip_norm": 2.0, "optimizer": optimizer(teacher or 0.0)}
    (given := tmp_path / "teacher.safetensors").write_bytes(b"")
    model = SMALL["teacher"]["model"] if teacher else {**SMALL["teacher"]["model"], "weights": str(given)}
    found = control_settings(
        validate(
            {
                **SMALL,
                "teacher": {"model": model, "train": train if teacher else None},
                "student": {**SMALL["student"], "train": {**TRAIN, "epochs": 1, "optimizer": optimizer(0.02)}},
                "blockwise": {**SMALL["blockwise"], "train": {**TRAIN, "epochs": 2}, "calibrate_epochs": 3},
                "control": {"optimizer": optimizer(control) if control else None},
            }
        )
    )
    assert (found.optimizer.learning_rate, found.epochs) == (expected, 1 + 2 + 3)
    assert (found.batch_size, found.clip_norm) == ((30, 2.0) if teacher else (TRAIN["batch_size"], None))


def test_a_control_learns_as_its_student_does() -> None:
    """Of any other run it has the student's settings, all of them, or an optimiser of its own."""
    values = {key: value for key, value in SMALL.items() if key != "blockwise"}
    student = {"model": {"arch": "mlp"}, "train": {**TRAIN, "optimizer": optimizer(0.02)}}
    recipe = validate({**values, "student": student})
    assert control_settings(recipe) == recipe.student.train
    own = validate({**values, "student": student, "control": {"optimizer": optimizer(0.3)}})
    assert control_settings(own).optimizer.learning_rate == 0.3


def test_a_control_that_diverges_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The student is delivered, and the result says that nobody knows whether its teacher helped; resumed, too."""
    values = {key: value for key, value in SMALL.items() if key != "blockwise"}
    student = {"model": {"arch": "mlp"}, "train": TRAIN}
    explode(monkeypatch, "control-1")
    result = run(validate({**values, "student": student, "control": {"seeds": 2}}), tmp_path / "run")
    assert result["control"] is None and result["verdict"]["helped"] is None
    assert "it diverged" in result["verdict"]["words"]
    assert "control-1: the loss exploded; for a control of its own rate say control.optimizer" in result["warnings"]
    (tmp_path / "run" / "result.json").unlink()
    assert resume(tmp_path / "run")["digests"] == result["digests"]
