"""What a search has done: one member of a trial trained up to a rung, in this process or in another."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from stillhouse.foundation.errors import (
    DataError,
    DivergedError,
    ModelError,
    RecipeError,
    RunDirError,
    StillhouseError,
)
from stillhouse.foundation.events import Event
from stillhouse.foundation.search_events import FinalistLent, TrialLent
from stillhouse.knowledge.source import KnowledgeSource, NoKnowledge
from stillhouse.models.network import Network
from stillhouse.runner.materials import Materials
from stillhouse.runner.networks import objective_of
from stillhouse.runner.phases import Trainer, student_phase
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.search.teachings import Teachings
from stillhouse.runner.signals import Signals
from stillhouse.students.checkpoint import Checkpoints
from stillhouse.students.fit import FitContext, fit
from stillhouse.students.objective import Objective
from stillhouse.study.record import FILE

Emit = Callable[[Event], None]

_TRIAL = "trial"

UNTRAINABLE = (DivergedError, ModelError, RecipeError, DataError, torch.OutOfMemoryError)
"""What ends a trial and not the search."""


@dataclass(frozen=True)
class Task:
    """Train one member of a trial up to a rung, from where it stands; or a finalist to its end.

    Attributes:
        rung: counted from 0.
        epochs: in all, at its end.
        materials: whose recipe is the member's.
        final: it is trained as the student of its recipe is, seeds and all, in a folder of its own.
    """

    trial: int
    member: int
    rung: int
    epochs: int
    materials: Materials
    final: bool = False

    @property
    def phase(self) -> str:
        """By which it is seeded; the name of its checkpoints' folder."""
        return student_phase(0) if self.final else phase_of(self.trial, self.member)

    @property
    def number(self) -> int:
        """Of its network, among those of its recipe."""
        return 0 if self.final else self.member

    def begun(self, run: RunDir) -> bool:
        """Whether a member was trained for a while, and is to go on."""
        return run.checkpoints(self.phase).exists()

    def lent(self, worker: str) -> Event:
        """What there is to tell when it is given to a worker."""
        if self.final:
            return FinalistLent(self.trial, self.member, worker)
        return TrialLent(self.trial, self.member, self.rung, worker)


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        accuracy: on the validation split (0..1); None where it could not be trained.
        why: then.
        seconds: of whoever trained it.
    """

    task: Task
    accuracy: float | None
    why: str
    seconds: float


class Place(Protocol):
    """Where tasks are done."""

    def has_room(self) -> bool:
        """Whether one more can be begun now."""

    def give(self, task: Task) -> None:
        """Begin one; there is room."""

    def ended(self) -> list[Outcome]:
        """Those that ended since; waits a while for one."""

    def close(self) -> None:
        """End whatever is under way."""


@dataclass(frozen=True)
class Setting:
    """What all tasks of a search share.

    Attributes:
        teacher: trained; not changed.
        teachings: who answers it.
    """

    folder: RunDir
    teacher: Network
    teachings: Teachings
    signals: Signals

    def parts(self, task: Task, emit: Emit) -> tuple[Network, KnowledgeSource, Objective, FitContext, Checkpoints]:
        """What a task's training needs; ``emit`` takes its events."""
        made, folder = task.materials, self.folder
        if task.final:
            folder, emit = folder_of(folder, task), renamed(emit, name_of(task))
        network = made.networks.student(task.number)
        objective = objective_of(made.networks, network, self.teacher, task.number)
        try:
            teaching = self.teachings.of(made.recipe.data.augment)
        except UNTRAINABLE as error:  # no fault of the trial: others would fail, too, and be remembered so
            raise StillhouseError(str(error)) from error
        source: KnowledgeSource = NoKnowledge() if teaching is None else teaching.source()
        checkpoints = checkpoints_of(made, folder, task.phase)
        steps = made.stream(made.recipe.student.train, 0).steps_per_epoch
        context = replace(
            Trainer(made, folder, emit, self.signals).context(task.phase, checkpoints, emit),
            until_step=task.epochs * steps,
            saves_epochs=True,
            averages=not task.final,
        )
        return network, source, objective, context, checkpoints


def phase_of(trial: int, member: int) -> str:
    """The name of a member's training."""
    return f"{_TRIAL}-{trial}-{member}"


def name_of(finalist: Task) -> str:
    """The name of a finalist in messages, and of its folder."""
    return f"finalist-{finalist.trial}-{finalist.member}"


def folder_of(run: RunDir, finalist: Task) -> RunDir:
    """Where a finalist is trained."""
    return RunDir(run.path / "finalists" / name_of(finalist))


def renamed(emit: Emit, name: str) -> Emit:
    """Events of a phase ``student``, told as another's."""

    def tell(event: Event) -> None:
        told: Any = event
        emit(replace(told, phase=name) if getattr(event, "phase", None) == student_phase(0) else event)

    return tell


def refuse_others(run: RunDir) -> None:
    """Look whether there is something to go on with, of a search whose record holds no trial.

    Raises:
        RunDirError: there is: networks would go on that are others.
    """
    left = [*run.path.glob("finalists/*"), *run.checkpoints(phase_of(0, 0)).parent.glob(f"{_TRIAL}-*")]
    if left:
        raise RunDirError(
            f"{run.path / FILE} holds no trials, but {left[0].relative_to(run.path)} is of one: bring the file back; "
            "or delete it with checkpoints/ and finalists/: then the search begins again, with the labels stored"
        )


def checkpoints_of(materials: Materials, folder: RunDir, phase: str) -> Checkpoints:
    """Where a member's training can be gone on with."""
    keep = materials.recipe.checkpoint
    return Checkpoints(folder.checkpoints(phase), phase, keep.every_s, keep.keep, lambda event: None)


class Here:
    """This process: one task at a time.

    Args:
        emit: takes the run's events.
        retold: takes those of a task's training.
    """

    def __init__(self, setting: Setting, emit: Emit, retold: Emit) -> None:
        self._setting, self._emit, self._retold = setting, emit, retold
        self._task: Task | None = None

    def has_room(self) -> bool:
        """Whether none is waiting to be done."""
        return self._task is None

    def give(self, task: Task) -> None:
        """It is done by :meth:`ended`."""
        self._task = task

    def ended(self) -> list[Outcome]:
        """Do it, if there is one.

        Raises:
            Interrupted: a signal came; a checkpoint was written.
        """
        if self._task is None:
            return []
        task, self._task = self._task, None
        self._emit(task.lent("this process"))
        begun_s, accuracy, why = time.monotonic(), None, ""
        try:
            network, source, objective, context, _ = self._setting.parts(task, self._retold)
            settings = task.materials.recipe.student.train
            stream = task.materials.stream(settings, 0)
            result = fit(network, source, stream, objective, settings, replace(context, evaluate=None))
            assert context.evaluate is not None
            accuracy = context.evaluate(result).accuracy
        except UNTRAINABLE as error:
            why = str(error)
        return [Outcome(task, accuracy, why, round(time.monotonic() - begun_s, 3))]

    def close(self) -> None:
        """Nothing is under way."""
