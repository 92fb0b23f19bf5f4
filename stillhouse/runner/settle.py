"""``auto`` turned into values that change results: tried on the first batches, written into the run's recipe.

Each choice waits for what it needs: a training's engine for its data, the teacher's engine and the number of logits
kept for the trained teacher. From then on the recipe says it, so that ``resume`` and a second machine do the same.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from stillhouse.blocks.assemble import cut, joined
from stillhouse.blocks.calibrate import Activations, Apart, ApartObjective
from stillhouse.data.batch import Batch
from stillhouse.foundation.events import EngineTried, Event
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.encode import k_for_mass
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.network import Network, evaluating
from stillhouse.models.trials import Chosen, label_of
from stillhouse.recipe.engines import AUTO, StepEngineSection, TeacherEngineSection
from stillhouse.recipe.section import Section
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.answers import codec_of, disagreement, identity_of, views_asked
from stillhouse.runner.blockwise.replacements import offered
from stillhouse.runner.materials import Materials
from stillhouse.runner.networks import objective_of
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.signals import Signals
from stillhouse.runner.teaching import Teaching
from stillhouse.store.label_store import LabelStore, open_folder
from stillhouse.store.shelf import stores
from stillhouse.students.objective import LABELS_ONLY, Objective, StepObjective
from stillhouse.students.trial import choose_step_engine
from stillhouse.teachers.trial import choose_teacher_engine

_SAMPLES = 512
_STEPS = 10
_TRYING = "while engines were tried"
Emit = Callable[[Event], None]


def settle_teacher_step(materials: Materials, folder: RunDir, emit: Emit, signals: Signals) -> Materials:
    """Choose the engine of the teacher's training, where it is trained here; of several, by the first."""
    settings = materials.recipe.teacher.train
    if settings is None or settings.engine.settled:
        return materials
    batches = [
        (each, Knowledge(each.sample_ids, each.views)) for each in materials.stream(settings, 0).batches(0, _STEPS)
    ]

    def objective(network: Network) -> Objective:
        return Objective(LABELS_ONLY, settings.label_smoothing)

    make, role = next(iter(materials.networks.teachers().values())), "teacher's step"
    engine = _step_engine(materials, make, objective, batches, settings, role, emit, signals)
    train = settings.model_copy(update={"engine": engine})
    teacher = materials.recipe.teacher.model_copy(update={"train": train})
    return _settled(materials, folder, {"teacher": teacher})


def settle_answers(
    materials: Materials, folder: RunDir, teacher: Network, ask: Ask, emit: Emit, signals: Signals
) -> Materials:
    """Choose how many logits are kept and the engine of the teacher's answers."""
    recipe = materials.recipe
    logits = recipe.knowledge.logits
    if logits.kind == "top" and logits.k is None:
        assert logits.mass is not None
        k = k_for_mass(_plain_logits(materials, teacher), logits.mass) if ask.logits else 1
        knowledge = recipe.knowledge.model_copy(update={"logits": logits.model_copy(update={"k": k})})
        materials = _settled(materials, folder, {"knowledge": knowledge})
    if recipe.teacher.engine.settled:
        return materials
    engine = _engine_of_a_store(materials, teacher, ask, emit)
    if engine is None:
        chosen = choose_teacher_engine(
            teacher,
            ask,
            materials.device,
            recipe.teacher.engine,
            _first_views(materials),
            recipe.teacher.divergence_max,
            len(materials.data.splits.train) * views_asked(recipe),
            recipe.student.train.batch_size,
            check=lambda: signals.check(_TRYING),
        )
        _tell("teacher", chosen, emit)
        engine = chosen.engine
    return _settled(materials, folder, {"teacher": recipe.teacher.model_copy(update={"engine": engine})})


def settle_student_step(
    materials: Materials, folder: RunDir, teacher: Network, teaching: Teaching | None, emit: Emit, signals: Signals
) -> Materials:
    """Choose the engine of the students' training, on batches with the teacher's answers.

    Where the student is searched for nothing is compiled unless the recipe says so: there are many of them.
    """
    settings = materials.recipe.student.train
    if settings.engine.settled:
        return materials
    if materials.recipe.search is not None:
        settings = _compiled_if_asked(settings)
        if settings.engine.settled:
            return _settled(materials, folder, _students(materials, settings))
    batches = materials.stream(settings, 0).batches(0, _STEPS)
    known: Sequence[tuple[Batch, Knowledge]]
    if teaching is None:
        known = [(each, Knowledge(each.sample_ids, each.views)) for each in batches]
    else:
        known = list(teaching.aside().teach(batches))

    def student() -> Network:
        return materials.networks.student(0)

    def objective(network: Network) -> Objective:
        return objective_of(materials.networks, network, teacher, 0)

    engine = _step_engine(materials, student, objective, known, settings, "student's step", emit, signals)
    return _settled(materials, folder, _students(materials, settings.model_copy(update={"engine": engine})))


def _students(materials: Materials, train: TrainSection) -> dict[str, Section]:
    """The recipe's section with other settings of the training."""
    return {"student": materials.recipe.student.model_copy(update={"train": train})}


def _compiled_if_asked(settings: TrainSection) -> TrainSection:
    """The same, compiling no engine that is tried by itself."""
    engine = settings.engine.model_copy(update={"compile": settings.engine.compile is True})
    return settings.model_copy(update={"engine": engine})


def settle_blocks_step(
    materials: Materials, folder: RunDir, teacher: Network, emit: Emit, signals: Signals
) -> Materials:
    """Choose the engine of the replacements' training, on the first one of each block.

    Nothing is compiled unless the recipe says so: there are many replacements, and none is trained for long.
    """
    section = materials.recipe.blockwise
    assert section is not None
    if section.train.engine.settled:
        return materials
    settings = _compiled_if_asked(section.train)
    teacher = copy.deepcopy(teacher).to(materials.device).eval()
    blocks = cut(teacher, materials.interface, section.blocks)
    others = offered(blocks, materials.recipe)
    cores = [next(iter(each.values()), None) for each in others]
    first = next((at for at, core in enumerate(cores) if core is not None), 0)
    body = joined(blocks, [core or block.core for core, block in zip(cores, blocks, strict=True)])
    names = [name for name, _ in body.named_children()]
    asked = ApartObjective(names[first:], section.cosine)
    source = Activations(teacher.preprocess, dict(zip(names, blocks, strict=True)), asked.ask, materials.device)
    known = list(source.teach(materials.stream(settings, 0).batches(0, _STEPS)))

    def make() -> Network:
        return copy.deepcopy(Network(teacher.preprocess, Apart(body, first)))

    engine = settings.engine
    if not engine.settled:
        most = max(map(len, others))
        engine = _step_engine(materials, make, lambda _: asked, known, settings, "blocks' step", emit, signals, most)
    train = section.train.model_copy(update={"engine": engine})
    return _settled(materials, folder, {"blockwise": section.model_copy(update={"train": train})})


def _step_engine(
    materials: Materials,
    make: Callable[[], Network],
    objective_of: Callable[[Network], StepObjective],
    batches: Sequence[tuple[Batch, Knowledge]],
    settings: TrainSection,
    role: str,
    emit: Emit,
    signals: Signals,
    times: int = 1,
) -> StepEngineSection:
    """``times``: trainings that will use it."""
    steps = settings.epochs * materials.stream(settings, 0).steps_per_epoch * times
    device, check = materials.device, lambda: signals.check(_TRYING)
    chosen = choose_step_engine(make, objective_of, batches, settings, steps, device, check=check)
    _tell(role, chosen, emit)
    return chosen.engine


def _engine_of_a_store(materials: Materials, teacher: Network, ask: Ask, emit: Emit) -> TeacherEngineSection | None:
    """The engine of a store that holds all answers of the run already, as near to fp32 as the recipe wants them."""
    recipe, root = materials.recipe, Path(materials.recipe.store.path)
    if recipe.knowledge.source == "inline" or not root.is_dir() or not materials.data.samples_known:
        return None
    mine, codec = identity_of(materials, teacher, ask), codec_of(materials.networks, teacher, ask)
    for shelved in stores(root):
        if shelved.manifest is None:
            continue
        theirs = shelved.manifest.identity
        if any(not line.startswith(("engine.", "teacher.variant")) for line in mine.differences(theirs)):
            continue
        with contextlib.suppress(ValidationError), contextlib.closing(open_folder(shelved.folder)) as store:
            engine = TeacherEngineSection.model_validate(dict(theirs.engine))
            wanted = recipe.teacher.engine.model_dump().items()
            if all(value in (AUTO, getattr(engine, key)) for key, value in wanted) and _complete(materials, store):
                away = disagreement(materials, teacher, ask, codec, store)
                if away is not None and away.divergence <= recipe.teacher.divergence_max:
                    _tell_of_a_store(engine, shelved.folder, away.divergence, emit)
                    return engine
    return None


def _tell_of_a_store(engine: TeacherEngineSection, folder: Path, kl: float, emit: Emit) -> None:
    label = f"{label_of(engine)}, by which {folder.name} was filled with all answers"
    values: dict[str, Any] = dict.fromkeys(each.name for each in fields(EngineTried))
    values |= {"role": "teacher", "engine": label, "kl": kl, "chosen": True, "remembered": False, "refused": ""}
    emit(EngineTried(**values))


def _complete(materials: Materials, store: LabelStore) -> bool:
    """Whether a store holds all views that the run's students see."""
    train = materials.data.splits.train
    return not any(len(store.missing(train, view)) for view in range(views_asked(materials.recipe)))


def _first_views(materials: Materials) -> torch.Tensor:
    """The first few hundred views that a student will ask about, raw."""
    settings = materials.recipe.student.train
    stream = materials.stream(settings, 0)
    steps = min(-(-_SAMPLES // settings.batch_size), stream.steps_per_epoch)
    return torch.cat([batch.inputs for batch in stream.batches(0, steps)])[:_SAMPLES]


def _plain_logits(materials: Materials, teacher: Network) -> torch.Tensor:
    with evaluating(teacher):
        parts = torch.split(_first_views(materials), 64)
        return torch.cat([teacher(part.to(materials.device)).float().cpu() for part in parts])


def _tell(role: str, chosen: Chosen[Any], emit: Emit) -> None:
    for row in chosen.table:
        told = {each.name: getattr(row, each.name) for each in fields(row) if each.name not in ("label", "settings")}
        emit(EngineTried(role=role, engine=row.label, remembered=chosen.remembered, **told))


def _settled(materials: Materials, folder: RunDir, update: dict[str, Section]) -> Materials:
    """The materials with an updated recipe, which the run directory has already."""
    recipe = materials.recipe.model_copy(update=update)
    folder.resettle(recipe)
    return replace(materials, recipe=recipe, networks=replace(materials.networks, recipe=recipe))
