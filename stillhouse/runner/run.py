"""A run from its recipe to its result: the composition of all rooms below, in the order things happen."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stillhouse.data.open import Data, open_data, survey
from stillhouse.export.onnx import check_onnx_installed, export_verified
from stillhouse.export.weights import save_student
from stillhouse.foundation.errors import RecipeError, RunDirError, StillhouseError
from stillhouse.foundation.events import DataRead, Event, EventLog, RunStarted, SamplesSkipped, Warned
from stillhouse.foundation.files import read_json, write_atomic, write_json
from stillhouse.foundation.stamp import code_stamp
from stillhouse.models.network import Network
from stillhouse.models.placement import fixed_numerics
from stillhouse.recipe.architectures import ModelSection, Normalisation
from stillhouse.recipe.recipe import Recipe
from stillhouse.report.html import write_report
from stillhouse.runner.blockwise.conversion import Conversion
from stillhouse.runner.blockwise.delivery import delivered
from stillhouse.runner.blockwise.rehearsal import check_unsettled, rehearse_blocks
from stillhouse.runner.environment import check_fleet_device, named_files, resolve, versions
from stillhouse.runner.filling import fill
from stillhouse.runner.joining import check_ray_installed
from stillhouse.runner.materials import Materials, gather
from stillhouse.runner.measure import measure
from stillhouse.runner.networks import Live, Networks, interface_of, objective_of
from stillhouse.runner.phases import Trainer
from stillhouse.runner.rehearse import rehearse_networks, rehearse_step
from stillhouse.runner.rundir import RunDir, open_run
from stillhouse.runner.settle import settle_answers, settle_blocks_step, settle_student_step, settle_teacher_step
from stillhouse.runner.signals import Signals, listening
from stillhouse.runner.teaching import Teaching
from stillhouse.runtime.cluster import find as find_cluster

_ANY = Normalisation(mean=(0.0,), std=(1.0,))
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


def resume(
    path: Path,
    listeners: Sequence[Listener] = (),
    live: Live | None = None,
    fleet: Sequence[str] = (),
    trials: int | None = None,
) -> dict[str, Any]:
    """Go on with a run that was stopped, however it was stopped; a finished one just returns its result.

    Args:
        fleet: ``fleet.key=value`` each, in place of what the recipe says: results don't depend on it.
        trials: how many a search begins in all, in place of what its recipe says.

    Raises:
        RunDirError: no run there, in use, or its recipe or inputs were changed; its search has chosen a student.
        RecipeError: ``trials`` of a run that does not search.
    """
    folder, recipe = open_run(path, fleet)
    with folder.held():
        if trials is not None:
            recipe = _with_trials(folder, recipe, trials)
        return _go(folder, recipe, listeners, live)


def _with_trials(folder: RunDir, recipe: Recipe, trials: int) -> Recipe:
    """The recipe of a search with so many trials, written down."""
    if recipe.search is None:
        raise RecipeError(f"{folder.path} does not search: it has no trials")
    if folder.manifest.exists():
        folder.check_unchanged(folder.settled(recipe))
    if folder.best.exists() and trials != recipe.search.trials:
        more, seed = json.dumps([str(folder.path)]), recipe.search.seed + 1
        how = f"stillhouse run {folder.recipe} --set {shlex.quote(f'search.after={more}')} --set search.seed={seed}"
        if recipe.teacher.train is not None and recipe.teacher.model is not None:
            weights = shlex.quote(f"teacher.model.weights={folder.weights('teacher')}")
            how += f" --set teacher.train=null --set {weights}"
        if any(model.arch == "live" for model in recipe.teacher.models.values()):
            how = f"the same call with search={{'after': {more}, 'seed': {seed}, ...}} and another out"
        told = f"{folder.path}: its student is chosen, of {recipe.search.trials} trials"
        raise RunDirError(f"{told}; a search of its own goes on from what this one found: {how}")
    recipe = recipe.model_copy(update={"search": recipe.search.model_copy(update={"trials": trials})})
    if folder.manifest.exists():
        folder.resettle(folder.settled(recipe))
    return recipe


def teach(
    path: Path, listeners: Sequence[Listener] = (), live: Live | None = None, fleet: Sequence[str] = ()
) -> dict[str, Any]:
    """Go on with a run until the teacher has answered everything, and no further.

    Args:
        fleet: as of :func:`resume`.

    Returns:
        What ``result.json`` will hold under ``store``.

    Raises:
        StillhouseError: as :func:`resume`; the run's recipe keeps no answers.
    """
    folder, recipe = open_run(path, fleet)
    if recipe.knowledge.source == "inline":
        raise RecipeError("knowledge.source: inline keeps no answers: use auto, stored or offline")
    if not recipe.objective.asks:
        raise RecipeError("the objective asks nothing of a teacher: give objective.kd or objective.features")
    with folder.held():
        log = EventLog(folder.events, list(listeners))
        log.mend_tail()
        recipe = resolve(folder.settled(recipe))
        with (
            listening() as signals,
            fixed_numerics(int(recipe.compute.threads)),
            lesson(folder, recipe, log, signals, live, all_kept=True, only_teach=True) as known,
        ):
            assert known.teaching is not None
            fill(known.teaching, log.emit, signals)
            return known.teaching.summary() or {}


def _go(folder: RunDir, recipe: Recipe, listeners: Sequence[Listener], live: Live | None) -> dict[str, Any]:
    recipe = folder.settled(recipe)
    log = EventLog(folder.events, list(listeners))
    log.mend_tail()
    with listening() as signals:
        if folder.result.exists():
            folder.check_unchanged(recipe)
        else:
            recipe = resolve(recipe)
            with fixed_numerics(int(recipe.compute.threads)):
                result = _work(folder, recipe, log, signals, live)
            folder.report.unlink(missing_ok=True)  # one written on the way tells of an unfinished run
            write_json(folder.result, result)
        if not folder.report.exists():
            write_report(folder.path)
    found: dict[str, Any] = read_json(folder.result)
    return found


def _work(folder: RunDir, recipe: Recipe, log: EventLog, signals: Signals, live: Live | None) -> dict[str, Any]:
    all_kept = recipe.knowledge.source == "offline"
    with contextlib.ExitStack() as ends:
        known = ends.enter_context(lesson(folder, recipe, log, signals, live, all_kept=all_kept))
        materials, teacher, teaching = known
        summary = teaching.summary if teaching is not None else lambda: None
        if teaching is not None and (all_kept or (recipe.fleet.trial_workers > 1 and teaching.has_room_for_all)):
            fill(teaching, log.emit, signals)
        if recipe.blockwise is not None:
            materials = settle_blocks_step(materials, folder, teacher, log.emit, signals)
            materials = Conversion(materials, folder, teacher, log.emit, signals).converted()
        materials = settle_student_step(materials, folder, teacher, teaching, log.emit, signals)
        if recipe.search is not None:
            # Not before it is needed: Optuna and its storage take a second to import.
            from stillhouse.runner.search.finals import settled
            from stillhouse.runner.search.hunt import Hunt

            hunt = Hunt(materials, folder, teacher, teaching, log.emit, signals)
            ends.callback(hunt.teachings.close)
            materials = settled(hunt, hunt.trials())
            teaching, summary = hunt.teachings.of(materials.recipe.data.augment), hunt.teachings.summary
        trainer = Trainer(materials, folder, log.emit, signals)
        students = [trainer.student(number, teacher, teaching) for number in range(max(recipe.control.seeds, 1))]
        store = summary()
    trained = [trainer.control(number) for number in range(recipe.control.seeds)]
    # The arms are compared seed by seed: one that is missing leaves nothing to compare.
    controls = [each for each in trained if each is not None] if None not in trained else []
    signals.check("before the test")
    section = materials.recipe.student.model
    if materials.recipe.blockwise is not None:
        students[0], section = delivered(materials, students[0], log.emit)
        controls = [delivered(materials, each, log.emit)[0] for each in controls]
    exported = _export(folder, materials, students[0], section, log.emit)
    return measure(materials, folder, teacher, students, controls, store, exported)


class Lesson(NamedTuple):
    """What stands once the teacher is trained. ``teaching`` is None where the objective asks nothing."""

    materials: Materials
    teacher: Network
    teaching: Teaching | None


@contextlib.contextmanager
def lesson(
    folder: RunDir,
    recipe: Recipe,
    log: EventLog,
    signals: Signals,
    live: Live | None = None,
    *,
    all_kept: bool = False,
    only_teach: bool = False,
) -> Iterator[Lesson]:
    """All that comes before the student: data, the trained teacher, how it answers, and the store of its answers.

    Args:
        recipe: with every ``auto`` of its environment resolved.
        all_kept: whether every answer must find room.
        only_teach: whether the run goes no further.

    Raises:
        StillhouseError: see ``stillhouse.foundation.errors``.
    """
    materials = _prepare(folder, recipe, log, signals, live, all_kept=all_kept, only_teach=only_teach)
    known = _teacher(materials, folder, log.emit, signals, all_kept=all_kept)
    with contextlib.closing(known.teaching) if known.teaching is not None else contextlib.nullcontext():
        yield known


def _teacher(materials: Materials, folder: RunDir, emit: Listener, signals: Signals, *, all_kept: bool) -> Lesson:
    """Train the teacher if need be, settle how it answers, open the store."""
    materials = settle_teacher_step(materials, folder, emit, signals)
    teacher = Trainer(materials, folder, emit, signals).teacher()
    ask = objective_of(materials.networks, materials.networks.student(0), teacher, 0).ask
    if not ask:
        return Lesson(materials, teacher, None)
    materials = settle_answers(materials, folder, teacher, ask, emit, signals)
    return Lesson(materials, teacher, Teaching(materials, teacher, ask, emit, folder.path, signals, all_kept=all_kept))


def _prepare(
    folder: RunDir,
    recipe: Recipe,
    log: EventLog,
    signals: Signals,
    live: Live | None,
    *,
    all_kept: bool,
    only_teach: bool = False,
) -> Materials:
    """Everything before the first training, the cheap checks first."""
    if recipe.export.onnx:
        check_onnx_installed()
    resumed = folder.manifest.exists()
    if not resumed:  # one that goes on may have lost it, and what then is promised
        check_fleet_device(recipe)
        check_unsettled(recipe)
    fleet = recipe.fleet
    several = max(fleet.students_range[1], fleet.block_workers, fleet.trial_workers) > 1
    shared = fleet.workers_range[1] > 0 or several
    if recipe.fleet.backend == "ray":
        check_ray_installed()
        code_stamp()  # of what was loaded: when the fleet starts, other code may lie here
        if shared and not resumed:  # one that goes on may need none
            find_cluster(lambda: signals.check("while connecting to the Ray cluster"))
    found = survey(recipe.data, recipe.seed, (live.train, live.test) if live else None)
    inputs = {"data": found.digest, **named_files(recipe), **(live.digests() if live else {})}
    if resumed:
        folder.check_unchanged(recipe, inputs)
    log.emit(RunStarted(process_id=os.getpid(), resumed=resumed, only_teach=only_teach))
    networks = Networks(recipe, interface_of(found, recipe), _ANY, live)
    if recipe.blockwise is not None and not resumed:
        rehearse_blocks(networks, log.emit)
    if recipe.search is not None and not resumed:
        from stillhouse.runner.search.rehearsal import rehearse_search

        rehearse_search(networks, log.emit)
    rehearse_networks(networks, found, log.emit, all_kept=all_kept)
    data = open_data(found, recipe.data, folder.path, _teller(log.emit, signals), shared=shared)
    folder.settle(recipe, {**inputs, "samples": data.digest}, versions())
    changed = folder.other_versions({**versions(), "device": recipe.compute.device})
    for message in [*changed, *_lost(folder, recipe, data, log.emit)]:
        log.emit(Warned(message))
    materials = gather(recipe, data, live)
    rehearse_step(materials)
    return materials


def _teller(emit: Callable[[Event], None], signals: Signals) -> Callable[[str, int, int], None]:
    said = 0.0

    def tell(name: str, done: int, count: int) -> None:
        nonlocal said
        signals.check("while reading the data")
        if done == count or time.monotonic() - said > 0.5:
            said = time.monotonic()
            emit(DataRead(name, done, count))

    return tell


def _lost(folder: RunDir, recipe: Recipe, data: Data, emit: Callable[[Event], None]) -> list[str]:
    """Write down the samples that were left out; what to say of them, and of those that lost their colour."""
    said = []
    if data.greyed and recipe.data.channels is None:
        said.append(f"{data.greyed:,} colour images were made grey: set data.channels: 3")
    if not data.skipped:
        return said
    write_atomic(folder.path / "skipped.txt", "\n".join(data.skipped) + "\n")
    emit(SamplesSkipped(len(data.skipped), data.skipped[:5]))
    return [*said, f"{len(data.skipped)} unreadable samples were left out (skipped.txt), first: {data.skipped[0]}"]


def _export(
    folder: RunDir, materials: Materials, student: Network, section: ModelSection, emit: Callable[[Event], None]
) -> dict[str, Any]:
    """The student's files. An ONNX file that can't be had or verified costs the run nothing but that file."""
    recipe, interface = materials.recipe, materials.interface
    save_student(folder.path, student, section, interface, materials.data.survey.class_names)
    if not recipe.export.onnx:
        return {"onnx": None}
    try:
        return {"onnx": export_verified(student, interface, folder.path / "student.onnx", materials.validation())}
    except StillhouseError as error:
        emit(Warned(f"there is no student.onnx: {error}"))
        return {"onnx": None, "error": str(error)}
