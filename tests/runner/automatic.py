"""Recipes in which engines are ``auto``, and what became of it; fixtures beside them keep trials from the stopwatch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from .conftest import FOUND, STEP, TRAIN
from .lessons import STUDENTS, lesson

MASS = {"kind": "top", "mass": 0.9}


class Crash(BaseException):
    """The end of a process, as far as one process can play it."""


def automatic(labels: Path, source: str = "stored", **sections: Any) -> Any:
    """Everything ``auto`` that can be: engines of answers and of both steps, and the number of logits."""
    teachers = {
        "model": {"arch": "mlp", "options": {"hidden": [32]}}, "engine": "auto", "train": {**TRAIN, "engine": "auto"}
    }  # fmt: skip
    student = {"model": STUDENTS["mlp"], "train": {**TRAIN, "engine": "auto"}}
    knowledge = {"source": source, "logits": MASS}
    return lesson(labels, **({"teacher": teachers, "student": student, "knowledge": knowledge} | sections))


def written(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe as recipe.yaml and as run.json have it."""
    return yaml.safe_load((folder / "recipe.yaml").read_text()), json.loads((folder / "run.json").read_text())["recipe"]


def settled(recipe: dict[str, Any]) -> None:
    """Assert that the trials' choices stand in a recipe."""
    assert recipe["teacher"]["engine"] == FOUND.model_dump(mode="json")
    assert recipe["teacher"]["train"]["engine"] == STEP.model_dump(mode="json") == recipe["student"]["train"]["engine"]
    assert 1 <= recipe["knowledge"]["logits"]["k"] <= 10
