"""How a control is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from torch import nn

from stillhouse.recipe.load import validate
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.materials import Materials
from stillhouse.runner.phases import Trainer

from .small_blocks import SMALL, TRAIN


class Noted(Trainer):
    """Notes how it was to train."""

    def train(self, phase: str, network: Any, source: Any, objective: Any, settings: TrainSection, *more: Any) -> Any:  # type: ignore[override]
        return phase, settings


class Materially:
    """What a control wants of a run's materials."""

    networks = type("Networks", (), {"untaught": lambda self, number: nn.Identity()})()

    def __init__(self, values: dict[str, Any]) -> None:
        self.recipe = validate(values)


def settings(values: dict[str, Any]) -> TrainSection:
    """Of the first control."""
    trainer = Noted(cast(Materials, Materially(values)), cast(Any, None), lambda event: None, cast(Any, None))
    return cast(Any, trainer.control(0))[1]


def optimizer(rate: float) -> dict[str, Any]:
    return {"kind": "sgd", "learning_rate": rate}


@pytest.mark.parametrize(
    ("teacher", "control", "expected"), [(0.2, None, 0.2), (None, None, 0.02), (0.2, 0.3, 0.3), (None, 0.3, 0.3)]
)
def test_a_blockwise_control_learns_as_the_teacher_did(
    tmp_path: Path, teacher: float | None, control: float | None, expected: float
) -> None:
    """It has the teacher's optimiser, the student's where the teacher is given, or its own; and everybody's epochs."""
    train = {**TRAIN, "epochs": 4, "optimizer": optimizer(teacher)} if teacher else None
    (given := tmp_path / "teacher.safetensors").write_bytes(b"")
    model = SMALL["teacher"]["model"] if teacher else {**SMALL["teacher"]["model"], "weights": str(given)}
    found = settings(
        {
            **SMALL,
            "teacher": {"model": model, "train": train},
            "student": {**SMALL["student"], "train": {**TRAIN, "epochs": 1, "optimizer": optimizer(0.02)}},
            "blockwise": {**SMALL["blockwise"], "train": {**TRAIN, "epochs": 2}, "calibrate_epochs": 3},
            "control": {"optimizer": optimizer(control) if control else None},
        }
    )
    assert (found.optimizer.learning_rate, found.epochs) == (expected, 1 + 2 + 3)


def test_a_control_learns_as_its_student_does() -> None:
    """Of any other run it has the student's settings, all of them, or an optimiser of its own."""
    values = {key: value for key, value in SMALL.items() if key != "blockwise"}
    student = {"model": {"arch": "mlp"}, "train": {**TRAIN, "optimizer": optimizer(0.02)}}
    assert settings({**values, "student": student}) == validate({**values, "student": student}).student.train
    own = settings({**values, "student": student, "control": {"optimizer": optimizer(0.3)}})
    assert own.optimizer.learning_rate == 0.3
