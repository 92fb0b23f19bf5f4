"""After the search: new members of the best families are trained to the end, and the best of them is the student.

A finalist is trained as the student of its own recipe would be, seeds and all, in a folder of its own; that recipe,
written out for the winner as ``best.yaml``, makes the same student anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stillhouse.foundation.errors import DivergedError, ModelError, RecipeError
from stillhouse.foundation.events import Event, Warned
from stillhouse.foundation.files import write_atomic
from stillhouse.foundation.search_events import FinalistTrained, StudentFound
from stillhouse.recipe.load import dump
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.materials import Materials
from stillhouse.runner.phases import PhaseWeights, Trainer, student_phase
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.search.candidate import costs_of
from stillhouse.runner.search.hunt import Hunt
from stillhouse.study.record import Trial

_FIRST = 1000
"""Number of the first member that no trial had."""
_TRIED = 4


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
    for trial in ranked:
        missing = section.families * section.finalists - len(finalists)
        if missing > 0:
            finalists += _of_family(hunt, trial, min(section.finalists, missing))
    if not finalists:
        raise RecipeError(
            "search: no finalist could be trained: a lower student.train.optimizer.learning_rate may help"
        )
    best = max(finalists, key=lambda each: each.accuracy)
    PhaseWeights(hunt.folder.weights(student_phase(0))).write(best.weights.path.read_bytes())
    hunt.emit(StudentFound(best.trial, best.member))
    write_atomic(hunt.folder.best, dump(_alone(best.materials.recipe, hunt.folder)))
    return best.materials


def _of_family(hunt: Hunt, trial: Trial, wanted: int) -> list[Finalist]:
    """New members of a family, trained to the end: so many, if it has as many that differ and meet the budget."""
    found: list[Finalist] = []
    known: list[object] = []
    for number in range(_TRIED * wanted):
        name = f"finalist-{trial.number}-{number}"
        try:
            materials = hunt.of(trial.point, trial.number, _FIRST + number, to_the_end=True)
            network = materials.networks.student(0)
        except ModelError as error:
            hunt.emit(Warned(f"{name}: {error}; left out"))
            continue
        model = materials.recipe.student.model
        what = {key: value for key, value in model.options.items() if key != "seed"}
        over = hunt.limits.beyond(costs_of(network, hunt.materials.networks))
        begun = (hunt.folder.path / "finalists" / name).exists()  # a latency differs from time to time
        if what in known or (any(share > 0 for share in over.values()) and not begun):
            continue
        known.append(what)
        if (each := _trained(hunt, trial, number, materials, name)) is not None:
            found.append(each)
        if len(found) == wanted:
            break
    return found


def _trained(hunt: Hunt, trial: Trial, number: int, materials: Materials, name: str) -> Finalist | None:
    folder = RunDir(hunt.folder.path / "finalists" / name)
    trainer = Trainer(materials, folder, _renamed(hunt.emit, name), hunt.signals)
    try:
        network = trainer.student(0, hunt.teacher, hunt.teachings.of(materials.recipe.data.augment))
    except DivergedError as error:
        hunt.emit(Warned(f"{name}: {str(error).partition('. ')[0]}"))
        return None
    accuracy, params = trainer.validate(network).accuracy, sum(each.numel() for each in network.parameters())
    model, epochs = materials.recipe.student.model, materials.recipe.student.train.epochs
    hunt.emit(FinalistTrained(trial.number, number, accuracy, params, model.arch, model.options, epochs))
    return Finalist(materials, PhaseWeights(folder.weights(student_phase(0))), trial.number, number, accuracy)


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
