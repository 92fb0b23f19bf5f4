"""After the search: new members of the best families are trained to the end, and the best of them is the student.

A finalist is trained as the student of its own recipe would be, seeds and all, in a folder of its own; that recipe,
written out for the winner as ``best.yaml``, makes the same student anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stillhouse.foundation.errors import DivergedError, RecipeError
from stillhouse.foundation.events import Event, Warned
from stillhouse.foundation.files import write_atomic
from stillhouse.foundation.search_events import FinalistTrained, StudentFound
from stillhouse.recipe.load import dump
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.materials import Materials
from stillhouse.runner.phases import PhaseWeights, Trainer, student_phase
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.search.hunt import Hunt
from stillhouse.study.record import Trial

_FIRST = 1000
"""Number of the first member that no trial had."""


@dataclass(frozen=True)
class Finalist:
    """A member of a trial's family, trained to the end."""

    materials: Materials
    weights: PhaseWeights
    trial: int
    member: int
    accuracy: float


def settled(hunt: Hunt, trials: Sequence[Trial]) -> Materials:
    """Train the finalists, and make the best one the student: the materials whose recipe says what it is, and has no
    search. The run's own recipe stays as it is: what it says of the student is where the search begins.

    Raises:
        Interrupted: a signal came.
        RecipeError: every finalist diverged.
    """
    section = hunt.materials.recipe.search
    assert section is not None
    ranked = sorted((each for each in trials if len(each.values) == len(hunt.rungs)), key=lambda e: -e.values[-1])
    finalists: list[Finalist] = []
    for trial in ranked[: section.families]:
        for number in range(section.finalists):
            found = _trained(hunt, trial, _FIRST + number)
            if found is not None:
                finalists.append(found)
    if not finalists:
        raise RecipeError("search: every finalist diverged: a lower student.train.optimizer.learning_rate may help")
    best = max(finalists, key=lambda each: each.accuracy)
    PhaseWeights(hunt.folder.weights(student_phase(0))).write(best.weights.path.read_bytes())
    hunt.emit(StudentFound(best.trial, best.member))
    write_atomic(hunt.folder.path / "best.yaml", dump(_alone(best.materials.recipe, hunt.folder)))
    return best.materials


def _trained(hunt: Hunt, trial: Trial, member: int) -> Finalist | None:
    materials = hunt.of(trial.point, trial.number, member, to_the_end=True)
    name = f"finalist-{trial.number}-{member - _FIRST}"
    folder = RunDir(hunt.folder.path / "finalists" / name)
    trainer = Trainer(materials, folder, _renamed(hunt.emit, name), hunt.signals)
    try:
        network = trainer.student(0, hunt.teacher, hunt.teaching)
    except DivergedError as error:
        hunt.emit(Warned(f"{name}: {str(error).partition('. ')[0]}"))
        return None
    accuracy, params = trainer.validate(network).accuracy, sum(each.numel() for each in network.parameters())
    model = materials.recipe.student.model
    hunt.emit(FinalistTrained(trial.number, member - _FIRST, accuracy, params, model.arch, model.options))
    return Finalist(materials, PhaseWeights(folder.weights(student_phase(0))), trial.number, member - _FIRST, accuracy)


def _renamed(emit: Callable[[Event], None], name: str) -> Callable[[Event], None]:
    """Events of a phase ``student``, told as another's."""

    def tell(event: Event) -> None:
        told: Any = event
        emit(replace(told, phase=name) if getattr(event, "phase", None) == student_phase(0) else event)

    return tell


def _alone(recipe: Recipe, folder: RunDir) -> Recipe:
    """A recipe that makes the student again, by the teacher as it stands now."""
    weights = str(folder.weights("teacher").absolute())
    teacher = recipe.teacher
    if teacher.train is not None and teacher.model is not None:
        model = teacher.model.model_copy(update={"weights": weights})
        teacher = teacher.model_copy(update={"model": model, "train": None})
    return recipe.model_copy(update={"teacher": teacher, "name": f"{recipe.name}-best"})
