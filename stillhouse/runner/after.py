"""What can be done with a finished run: evaluate its student, export it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.data.open import open_data, survey
from stillhouse.export.onnx import check_onnx_installed, export_verified
from stillhouse.export.weights import load_student, student_interface
from stillhouse.foundation.errors import RunDirError
from stillhouse.foundation.files import read_json, write_json
from stillhouse.models.placement import fixed_numerics
from stillhouse.report.html import write_report
from stillhouse.runner.materials import Materials, gather
from stillhouse.runner.rundir import RunDir, open_run
from stillhouse.students.evaluate import evaluate


@dataclass(frozen=True)
class Scores:
    """Accuracy on a split; ``classes`` holds (name, samples, accuracy) of each."""

    accuracy: float
    samples: int
    classes: tuple[tuple[str, int, float], ...]


def evaluate_run(path: Path, split: str) -> Scores:
    """Classify a split ("test" or "validation") with the student of a finished run.

    Raises:
        RunDirError: no finished run there, or its data are no longer the same.
    """
    folder, materials = _reopen(path)
    network = load_student(folder.path)
    batches, again = itertools.tee(materials.test() if split == "test" else materials.validation())
    with fixed_numerics(int(materials.recipe.compute.threads)):
        correct = evaluate(network, batches, materials.device).correct
    targets = np.concatenate([batch.targets.numpy() for batch in again])
    names = materials.data.survey.class_names
    classes = []
    for label, name in enumerate(names):
        members = correct[targets == label]
        classes.append((name, len(members), float(members.mean()) if len(members) else 0.0))
    return Scores(float(correct.mean()), len(correct), tuple(classes))


def export_run(path: Path) -> dict[str, Any]:
    """Export the student of a finished run to ONNX, check it, and note that in result and report.

    Raises:
        ModelError: the extra is missing, or the model can't be exported.
        RunDirError: no finished run there.
    """
    check_onnx_installed()
    folder, materials = _reopen(path)
    with folder.held():
        network, target = load_student(folder.path), folder.path / "student.onnx"
        found = export_verified(network, student_interface(folder.path), target, materials.validation())
        result = read_json(folder.result)
        write_json(folder.result, {**result, "export": {"onnx": found}})
        write_report(folder.path)
    return found


def _reopen(path: Path) -> tuple[RunDir, Materials]:
    folder, recipe = open_run(path)
    if not folder.result.exists():
        raise RunDirError(f"{path} has not finished: 'stillhouse resume {path}' first")
    found = survey(recipe.data, recipe.seed)
    if found.digest != read_json(folder.manifest)["inputs"]["data"]:
        raise RunDirError(f"the data that {folder.recipe} names are no longer those the run was made with")
    data = open_data(found, recipe.data, folder.path, lambda name, done, count: None)
    if data.digest != read_json(folder.manifest)["inputs"]["samples"]:
        raise RunDirError(f"the samples that {folder.recipe} names no longer decode to what the run was made with")
    cpu = recipe.model_copy(update={"compute": recipe.compute.model_copy(update={"device": "cpu"})})
    return folder, gather(cpu, data, None)
