"""After the search: new members of the best families are trained to the end, and the best of them is the student.

A finalist is trained as the student of its own recipe would be, seeds and all, in a folder of its own, by this process
or by one of those that trained trials; that recipe, written out for the winner as ``best.yaml``, makes the same student
anew.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stillhouse.foundation.errors import DivergedError, ModelError, RecipeError
from stillhouse.foundation.events import PhaseStarted, Warned
from stillhouse.foundation.files import write_atomic
from stillhouse.foundation.search_events import FinalistTrained, StudentFound
from stillhouse.models.graphs.member import member
from stillhouse.recipe.load import dump
from stillhouse.recipe.random_graph import RandomGraphOptions
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.energy import meter_of, metered
from stillhouse.runner.materials import Materials
from stillhouse.runner.phases import PhaseWeights, Trainer, student_phase
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.search.candidate import costs_of, has_members, seed_of
from stillhouse.runner.search.fitting import GRAPH
from stillhouse.runner.search.hunt import Hunt
from stillhouse.runner.search.task import Emit, Task, folder_of, name_of, renamed
from stillhouse.study.families import promises
from stillhouse.study.record import Trial
from stillhouse.study.space import varied

FINALISTS = "finalists"
_FIRST = 1000
"""Number of the first member that no trial had."""
_TRIED = 4


@dataclass(frozen=True)
class Finalist:
    """A member of a trial's family, trained to the end."""

    task: Task
    weights: PhaseWeights
    accuracy: float


def settled(hunt: Hunt, trials: Sequence[Trial]) -> Materials:
    """Train the finalists, and make the best one the student: the materials whose recipe says what it is, and has no
    search. The run's own recipe stays as it is: what it says of the student is where the search begins.

    Raises:
        Interrupted: a signal came.
        RecipeError: every finalist diverged.
    """
    recipe = hunt.materials.recipe
    assert recipe.search is not None
    ranked = _ranked(hunt, [each for each in trials if len(each.values) == len(hunt.rungs)])
    candidates, wanted = _candidates(hunt, ranked), recipe.search.families * recipe.search.finalists
    apart = recipe.fleet.trial_workers > 1 and recipe.fleet.students_range[1] == 1
    finalists = _by_workers(hunt, candidates, wanted) if apart else _read(hunt, candidates, wanted)
    if not finalists:
        raise RecipeError(
            "search: no finalist could be trained: a lower student.train.optimizer.learning_rate may help"
        )
    best = max(finalists, key=lambda each: each.accuracy)
    PhaseWeights(hunt.folder.weights(student_phase(0))).write(best.weights.path.read_bytes())
    hunt.emit(StudentFound(best.task.trial, best.task.member))
    write_atomic(hunt.folder.best, dump(_alone(best.task.materials.recipe, hunt.folder)))
    hunt.close()
    return best.task.materials


def _ranked(hunt: Hunt, trials: Sequence[Trial]) -> list[Trial]:
    """The family first that promises the best finalist."""
    assert hunt.materials.recipe.search is not None
    drawn = hunt.materials.recipe.search.finalists
    promised = promises([each.members for each in trials], [_kinds(hunt, each, drawn) for each in trials])
    return [trial for _, trial in sorted(zip(promised, trials, strict=True), key=lambda each: -each[0])]


def _kinds(hunt: Hunt, trial: Trial, draws: int) -> int:
    """How many of a family's first new members are networks of their own, as far as that is seen without building
    them: by their graphs.
    """
    recipe = hunt.materials.recipe
    if not has_members(recipe, trial.point):
        return 1
    model = varied(recipe, trial.point).student.model
    if model.arch != GRAPH:
        return draws
    seeds = [seed_of(recipe, trial.number, _FIRST + number) for number in range(draws)]
    options = [RandomGraphOptions(**{**model.options, "seed": seed, "graphs": None}) for seed in seeds]
    return len({member(each).digest for each in options})


def _candidates(hunt: Hunt, ranked: Sequence[Trial]) -> Iterator[Task]:
    """So many new members of each of the best families; then, in place of those that diverge or are not there, more of
    them; then members of further families.
    """
    section = hunt.materials.recipe.search
    assert section is not None
    known: list[object] = []
    families = [_members(hunt, each, _TRIED * section.finalists, known) for each in ranked]
    best, further = families[: section.families], families[section.families :]
    for members in best:
        yield from itertools.islice(members, section.finalists)
    for members in (*best, *further):
        yield from members


def _members(hunt: Hunt, trial: Trial, draws: int, known: list[object]) -> Iterator[Task]:
    """Of so many new members of a family those that meet the budget and are none of the known."""
    for number in range(draws):
        epochs = hunt.materials.recipe.student.train.epochs
        try:
            materials = hunt.members.of(trial.point, trial.number, _FIRST + number, to_the_end=True)
            task = Task(trial.number, number, len(hunt.rungs), epochs, materials, final=True)
            network = materials.networks.student(0)
        except ModelError as error:
            hunt.emit(Warned(f"finalist-{trial.number}-{number}: {error}; left out"))
            continue
        if (what := _without_seed(materials.recipe)) in known:
            continue
        over = hunt.limits.beyond(costs_of(network, hunt.materials.networks))
        begun = folder_of(hunt.folder, task).path.exists()  # a latency differs from time to time
        if begun or not any(share > 0 for share in over.values()):
            known.append(what)
            yield task


def _without_seed(recipe: Recipe) -> object:
    """All that makes one student another than the next; graphs are told by their digest, not by what drew them."""
    model, drawn = recipe.student.model, "graphs" in recipe.student.model.options
    options = {key: value for key, value in model.options.items() if not (drawn and key == "seed")}
    student = recipe.student.model_copy(update={"model": model.model_copy(update={"options": options})})
    return student, recipe.objective, recipe.data.augment


def _by_workers(hunt: Hunt, candidates: Iterator[Task], wanted: int) -> list[Finalist]:
    """Train so many at once, then read them; one phase of the run."""
    with metered(meter_of(hunt.materials.recipe), FINALISTS, hunt.emit) as tell:
        tell(PhaseStarted(FINALISTS))
        return _read(hunt, iter(_trained_apart(hunt, candidates, wanted, tell)), wanted)


def _trained_apart(hunt: Hunt, candidates: Iterator[Task], wanted: int, tell: Emit) -> list[Task]:
    """Have so many trained by workers, as far as a checkpoint of their last step; in the order of the candidates."""
    tasks = list(itertools.islice(candidates, wanted))
    trained = [each for each in tasks if _weights(hunt, each).done()]
    waiting = [each for each in tasks if each not in trained]
    if not waiting:
        return trained
    under_way = 0
    with hunt.workers(tell, tell) as place, contextlib.closing(place):
        while waiting or under_way:
            while waiting and place.has_room():
                place.give(waiting.pop(0))
                under_way += 1
            for outcome in place.ended():
                under_way -= 1
                if outcome.accuracy is not None:
                    trained.append(outcome.task)
                    continue
                _warn(hunt, outcome.task, outcome.why)
                further = list(itertools.islice(candidates, 1))
                tasks, waiting = tasks + further, waiting + further
    return sorted(trained, key=tasks.index)


def _read(hunt: Hunt, candidates: Iterator[Task], wanted: int) -> list[Finalist]:
    """So many that are trained, one after the other, as far as they are not."""
    found = (_trained(hunt, each) for each in candidates)
    return list(itertools.islice((each for each in found if each is not None), wanted))


def _trained(hunt: Hunt, task: Task) -> Finalist | None:
    """Train one to the end, or read what was trained; None where it diverges."""
    folder, materials = folder_of(hunt.folder, task), task.materials
    trainer = Trainer(materials, folder, renamed(hunt.emit, name_of(task)), hunt.signals)
    try:
        network = trainer.student(0, hunt.teacher, hunt.teachings.of(materials.recipe.data.augment))
    except DivergedError as error:
        _warn(hunt, task, str(error))
        return None
    accuracy, params = trainer.validate(network).accuracy, sum(each.numel() for each in network.parameters())
    model, epochs = materials.recipe.student.model, materials.recipe.student.train.epochs
    hunt.emit(FinalistTrained(task.trial, task.member, accuracy, params, model.arch, model.options, epochs))
    return Finalist(task, _weights(hunt, task), accuracy)


def _weights(hunt: Hunt, task: Task) -> PhaseWeights:
    return PhaseWeights(folder_of(hunt.folder, task).weights(student_phase(0)))


def _warn(hunt: Hunt, task: Task, why: str) -> None:
    hunt.emit(Warned(f"{name_of(task)}: {why.partition('. ')[0]}"))


def _alone(recipe: Recipe, folder: RunDir) -> Recipe:
    """A recipe that makes the student again, by the teacher as it stands now."""
    weights = str(folder.weights("teacher").absolute())
    teacher = recipe.teacher
    if teacher.train is not None and teacher.model is not None:
        model = teacher.model.model_copy(update={"weights": weights})
        teacher = teacher.model_copy(update={"model": model, "train": None})
    return recipe.model_copy(update={"teacher": teacher, "name": f"{recipe.name}-best"})
