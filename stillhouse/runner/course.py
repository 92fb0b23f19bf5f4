"""What students that train one network together are given: the course of the training, and each one's job."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from stillhouse.data.stream import Stream
from stillhouse.foundation.events import Event, Progress
from stillhouse.knowledge.source import KnowledgeSource
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network
from stillhouse.models.weights import weights_bytes
from stillhouse.recipe.load import dump
from stillhouse.recipe.recipe import DataSection, DigitsSource, Recipe, TeacherSection
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.job import sight_job
from stillhouse.runner.materials import Materials
from stillhouse.runner.shares import pack
from stillhouse.runtime.local.crew import Crew
from stillhouse.students.checkpoint import Checkpoints, packed
from stillhouse.students.evaluate import Evaluation
from stillhouse.students.fit import FitContext
from stillhouse.students.objective import Objective

_OF_BATCHES = ("hits", "misses", "unanswered")


@dataclass(frozen=True)
class Course:
    """One training, as the run's process sees it; fields as :func:`stillhouse.students.fit.fit` wants them.

    Attributes:
        validate: looks at a network.
        interrupted: the number of a signal that asks to stop, or None.
        sight: a job (``runner.job``) by which a student may see the data itself.
        ahead_max_bytes: of batches made ahead; students may hold as much that they have not come to.
        until_step, saves_epochs, averages: see :class:`stillhouse.students.fit.FitContext`.
    """

    recipe: Recipe
    phase: str
    network: Network
    objective: Objective
    source: KnowledgeSource
    stream: Stream
    interface: Interface
    checkpoints: Checkpoints
    validate: Callable[[nn.Module], Evaluation]
    emit: Callable[[Event], None]
    interrupted: Callable[[], int | None]
    ahead_max_bytes: int
    device: torch.device
    sight: Mapping[str, Any]
    until_step: int | None = None
    saves_epochs: bool = False
    averages: bool = False

    @property
    def settings(self) -> TrainSection:
        """Of the training."""
        return self.recipe.student.train

    @property
    def steps(self) -> int:
        """In all, or as far as it goes."""
        steps = self.settings.epochs * self.stream.steps_per_epoch
        return steps if self.until_step is None else min(steps, self.until_step)

    def retold(self, event: Progress, counts: Mapping[str, int]) -> Progress:
        """A student's progress, with what only this process knows: what it waited for, and what was counted."""
        waits = self.source.waits()
        waited = event.seconds.get("data", 0.0)
        share = min(waited / sum(waits.values()), 1.0) if sum(waits.values()) > 0 else 0.0
        waits = {name: seconds * share for name, seconds in waits.items()}
        seconds = {**event.seconds, "data": max(waited - sum(waits.values()), 0.0), **waits}
        return replace(event, seconds=seconds, counts=dict(counts))


class Counted:
    """What a source counted (views read, asked, left out), told with the steps that took the batches it was counted of.

    Of what is no batch's (bytes that a store wrote) the next progress tells.

    Args:
        unsaid: of what was counted before.
    """

    def __init__(self, source: KnowledgeSource, unsaid: Counter[str]) -> None:
        self._source, self._unsaid = source, unsaid
        self._batches: deque[tuple[int, Mapping[str, int]]] = deque()

    def note(self, number: int | None = None) -> None:
        """What was counted since belongs to a batch of this number; None: of the one before."""
        counts = self._source.counts()
        of_batch = {name: count for name, count in counts.items() if name in _OF_BATCHES}
        self._unsaid.update({name: count for name, count in counts.items() if name not in _OF_BATCHES})
        if of_batch:
            before = self._batches[-1][0] if self._batches else 0
            self._batches.append((before if number is None else number, of_batch))

    def begin_anew(self) -> None:
        """Batches that nobody took are handed out again, and count then."""
        self.note()
        self._batches.clear()

    def before(self, step: int) -> dict[str, int]:
        """What was counted of the batches before a step, and not told yet; more are under way."""
        counts = self._unsaid.copy()
        self._unsaid.clear()
        while self._batches and self._batches[0][0] < step:
            counts.update(self._batches.popleft()[1])
        return dict(counts)


def course_of(
    materials: Materials,
    network: Network,
    objective: Objective,
    source: KnowledgeSource,
    stream: Stream,
    context: FitContext,
    checkpoints: Checkpoints,
) -> Course:
    """The course of a student's training, of what :func:`stillhouse.students.fit.fit` would be given."""
    assert context.evaluate is not None
    return Course(
        materials.recipe,
        context.phase,
        network,
        objective,
        source,
        stream,
        materials.interface,
        checkpoints,
        context.evaluate,
        context.emit,
        context.interrupted,
        context.ahead_max_bytes,
        materials.device,
        sight_job(materials).as_json(),
        context.until_step,
        context.saves_epochs,
        context.averages,
    )


def show(crew: Crew, name: str, sight: Mapping[str, Any]) -> None:
    """Tell a process that came how it may see the data."""
    crew.send(name, {"do": "sight"}, json.dumps(sight).encode())


def hand_over(
    crew: Crew,
    name: str,
    course: Course,
    state: dict[str, Any] | None,
    *,
    rank: int = 0,
    size: int = 1,
    meeting: Any = None,
    job: int = 0,
    evaluates: bool = False,
) -> None:
    """Tell a student what it is to do, and all that it needs; it goes on from ``state``.

    Args:
        rank, size: its place among so many that train together, who find one another by ``meeting``.
        job: its number, where a process is given several, one after the other.
        evaluates: whether it looks at its network after each epoch.
    """
    newest = course.checkpoints.newest()
    told = {
        "do": "job",
        "job": job,
        "recipe": dump(_bare(course.recipe)),
        "phase": course.phase,
        "rank": rank,
        "size": size,
        "meeting": meeting,
        "steps_per_epoch": course.stream.steps_per_epoch,
        "shape": course.interface.shape,
        "image": course.interface.image,
        "classes": course.interface.classes,
        "teacher_shapes": course.objective.teacher_shapes,
        "checkpoints": str(course.checkpoints.folder),
        "newest": newest.name if newest else None,
        "until_step": course.until_step,
        "saves_epochs": course.saves_epochs,
        "averages": course.averages,
        "evaluates": evaluates,
    }
    crew.send(name, told)
    crew.send(name, {"do": "network"}, weights_bytes(course.network))
    forms, body = pack(course.objective.state_dict())
    crew.send(name, {"do": "objective", "forms": forms}, body)
    crew.send(name, {"do": "checkpoint"}, packed(state) if state else b"")


def _bare(recipe: Recipe) -> Recipe:
    """The recipe without files that a student need not have."""
    model = recipe.student.model.without_weights()
    student = recipe.student.model_copy(update={"model": model})
    teacher = TeacherSection(model=model, train=TrainSection())
    kept = {"augment": recipe.data.augment, "ahead_max_mb": recipe.data.ahead_max_mb}
    data = DataSection(source=DigitsSource(kind="digits"), **kept)
    return recipe.model_copy(update={"student": student, "teacher": teacher, "data": data})
