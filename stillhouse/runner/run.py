"""A run from its recipe to its result: the composition of all rooms below, in the order things happen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stillhouse.data.open import open_data, survey
from stillhouse.export.onnx import check_onnx_installed, export_onnx, verify_onnx
from stillhouse.export.weights import save_student
from stillhouse.foundation.events import DataRead, Event, EventLog, RunStarted, SamplesSkipped, Warned
from stillhouse.foundation.files import read_json, write_json
from stillhouse.models.network import Network
from stillhouse.models.placement import fixed_numerics
from stillhouse.recipe.recipe import Recipe
from stillhouse.report.html import write_report
from stillhouse.runner.environment import named_files, resolve, versions
from stillhouse.runner.materials import Live, Materials, gather
from stillhouse.runner.measure import measure
from stillhouse.runner.phases import Trainer
from stillhouse.runner.rundir import RunDir, open_run
from stillhouse.runner.signals import Signals, listening

Listener = Callable[[Event], None]


def run(recipe: Recipe, out: Path, listeners: Sequence[Listener] = (), live: Live | None = None) -> dict[str, Any]:
    """Start a run and take it to its end.

    Args:
        out: folder of the run; made if missing, must be empty.
        listeners: called with each event, e.g. a progress bar.
        live: models and data handed over from Python, for what the recipe calls ``live``.

    Returns:
        What ``result.json`` holds.

    Raises:
        StillhouseError: see ``stillhouse.foundation.errors``; what was done so far stays and can be resumed.
    """
    folder = RunDir(out)
    with folder.begun(recipe), folder.held():
        return _go(folder, recipe, listeners, live)


def resume(path: Path, listeners: Sequence[Listener] = (), live: Live | None = None) -> dict[str, Any]:
    """Go on with a run that was stopped, however it was stopped; a finished one just returns its result.

    Raises:
        RunDirError: no run there, in use, or its recipe or inputs were changed.
    """
    folder, recipe = open_run(path)
    with folder.held():
        return _go(folder, recipe, listeners, live)


def _go(folder: RunDir, recipe: Recipe, listeners: Sequence[Listener], live: Live | None) -> dict[str, Any]:
    log = EventLog(folder.events, list(listeners))
    log.mend_tail()
    with listening() as signals:
        if not folder.result.exists():
            resumed = folder.manifest.exists()
            recipe = resolve(recipe)
            with fixed_numerics(int(recipe.compute.threads)):
                result = _work(folder, recipe, log, signals, live, resumed)
            write_json(folder.result, result)
        else:
            folder.check_unchanged(recipe)
        if not folder.report.exists():
            write_report(folder.path)
    found: dict[str, Any] = read_json(folder.result)
    return found


def _work(
    folder: RunDir, recipe: Recipe, log: EventLog, signals: Signals, live: Live | None, resumed: bool
) -> dict[str, Any]:
    if recipe.export.onnx:
        check_onnx_installed()
    materials = _prepare(folder, recipe, log, signals, live, resumed)
    trainer = Trainer(materials, folder, log.emit, signals)
    _check_before_training(trainer, log.emit)
    teacher = trainer.teacher()
    students = [trainer.student(number, teacher) for number in range(max(recipe.control.seeds, 1))]
    controls = [trainer.control(number) for number in range(recipe.control.seeds)]
    signals.check("before the test")
    exported = _export(folder, materials, students[0])
    return measure(materials, folder, teacher, students, controls, exported)


def _prepare(
    folder: RunDir, recipe: Recipe, log: EventLog, signals: Signals, live: Live | None, resumed: bool
) -> Materials:
    found = survey(recipe.data, recipe.seed, (live.train, live.test) if live else None)
    inputs = {"data": found.digest, **named_files(recipe), **(live.digests() if live else {})}
    folder.settle(recipe, inputs, versions())
    log.emit(RunStarted(process_id=os.getpid(), resumed=resumed))
    said = 0.0

    def tell(name: str, done: int, count: int) -> None:
        nonlocal said
        signals.check("reading the data")
        if done == count or time.monotonic() - said > 0.5:
            said = time.monotonic()
            log.emit(DataRead(name, done, count))

    data = open_data(found, recipe.data, folder.path, tell)
    if data.skipped:
        log.emit(SamplesSkipped(len(data.skipped), data.skipped[:5]))
        log.emit(Warned(f"{len(data.skipped)} unreadable samples were left out, first: {data.skipped[0]}"))
    return gather(recipe, data, live)


def _check_before_training(trainer: Trainer, emit: Callable[[Event], None]) -> None:
    """Build everything once, so that whatever does not fit is told before hours of training.

    Raises:
        ModelError: a model can't be built or does not fit; a feature term does not fit.
        DataError: fewer samples than a batch.
    """
    materials = trainer.materials
    teacher, student = materials.teacher(), materials.student(0)
    trainer.objective(student, teacher, 0)
    for settings in (materials.recipe.teacher.train, materials.recipe.student.train):
        if settings is not None:
            materials.stream(settings, 0)
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (teacher, student)]
    if sizes[1] >= sizes[0]:
        emit(Warned(f"the student ({sizes[1]:,} parameters) is not smaller than its teacher ({sizes[0]:,})"))


def _export(folder: RunDir, materials: Materials, student: Network) -> dict[str, Any] | None:
    recipe, interface = materials.recipe, materials.interface
    save_student(folder.path, student, recipe.student.model, interface, materials.data.survey.class_names)
    if not recipe.export.onnx:
        return None
    path = folder.path / "student.onnx"
    export_onnx(student, interface, path)
    return verify_onnx(path, student, materials.validation())
