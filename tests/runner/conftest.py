"""A whole run that takes a second, and helpers around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.recipe.load import validate
from stillhouse.recipe.recipe import Recipe

TRAIN = {"epochs": 2, "batch_size": 400, "optimizer": {"kind": "sgd", "learning_rate": 0.05}}


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
