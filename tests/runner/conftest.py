"""A whole run that takes a second, and helpers around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.models.trials import Chosen
from stillhouse.recipe.engines import StepEngineSection, TeacherEngineSection
from stillhouse.recipe.load import validate
from stillhouse.recipe.recipe import Recipe

TRAIN = {"epochs": 2, "batch_size": 400, "optimizer": {"kind": "sgd", "learning_rate": 0.05}}
FOUND = TeacherEngineSection(precision="bf16", batch_size=64)
STEP = StepEngineSection(precision="bf16")


def values(**sections: Any) -> dict[str, Any]:
    """A recipe of 6 steps for each of teacher, student and control; a checkpoint after every step."""
    recipe: dict[str, Any] = {
        "name": "tiny",
        "data": {"source": {"kind": "digits"}, "augment": {"pad_px": 1}},
        "teacher": {"model": {"arch": "mlp", "options": {"hidden": [32]}}, "train": dict(TRAIN)},
        "student": {"model": {"arch": "mlp", "options": {"hidden": [8]}}, "train": dict(TRAIN)},
        "checkpoint": {"every_s": 0},
        "compute": {"device": "cpu", "threads": 1},
    }
    return recipe | sections


@pytest.fixture
def tiny() -> Callable[..., Recipe]:
    """Makes the recipe, sections replaced by keyword."""
    return lambda **sections: validate(values(**sections))


@pytest.fixture
def tiny_values() -> Callable[..., dict[str, Any]]:
    """The same as plain values."""
    return values


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed; only to be read."""
    from stillhouse.runner.run import run

    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    run(validate(values()), folder)
    return folder


@pytest.fixture
def not_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Drawing the report takes longer than the run; what trials remember stays in the test."""
    monkeypatch.setattr("stillhouse.runner.run.write_report", lambda folder: (folder / "report.html").write_text("-"))
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trials that were held; instead of a stopwatch they choose bf16, which is not what nothing better is."""
    held: list[str] = []

    def teachers(*arguments: Any, check: Any) -> Chosen[TeacherEngineSection]:
        held.append("answers")
        return Chosen(FOUND)

    def steps(
        make: Any, objective: Any, batches: Any, settings: Any, *rest: Any, check: Any
    ) -> Chosen[StepEngineSection]:
        held.append("step")
        assert all(len(knowledge.sample_ids) == len(batch) for batch, knowledge in batches)
        return Chosen(STEP)

    monkeypatch.setattr("stillhouse.runner.settle.choose_teacher_engine", teachers)
    monkeypatch.setattr("stillhouse.runner.settle.choose_step_engine", steps)
    return held


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forbids every trial from now on."""

    def refuse(*arguments: Any, **more: Any) -> None:
        raise AssertionError("a trial was held")

    def forbid() -> None:
        for name in ("choose_teacher_engine", "choose_step_engine", "k_for_mass"):
            monkeypatch.setattr(f"stillhouse.runner.settle.{name}", refuse)

    return forbid
