"""What a run, finished or under way, tells about speeds: its student, its teachers, how much is answered already.

Rates are of the machine as it was: on cores that more workers share each gives less. On an accelerator a student's own
rate is too high where it also waited: the process's clock can't tell who used the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from stillhouse.foundation.errors import RunDirError
from stillhouse.foundation.events import WorkerMeasured
from stillhouse.recipe.load import differences
from stillhouse.recipe.recipe import Recipe
from stillhouse.report.read import Phase, Run, read_run
from stillhouse.report.waiting import on_accelerator
from stillhouse.runner.rundir import RunDir, open_run, that_matters

_OWN = ("data", "store", "step")
_UNNAMED = "teacher"


@dataclass(frozen=True)
class Rates:
    """Views and samples a second; None where the run does not tell.

    Attributes:
        student: samples/s if it never waited for the teacher.
        inline: views/s that the teacher answers in the student's process, and the student does nothing else.
        teachers: views/s of one worker, by kind; the run's own process where no worker joined.
        samples: of an epoch.
        answered: share of all views that this run's students ask, which the store holds, 0 to 1.
        accelerator: whether the student's rate is from one.
        view_bytes, row_bytes: of a view in memory, and of the answer about it.
    """

    student: float | None = None
    inline: float | None = None
    teachers: Mapping[str, float] | None = None
    samples: int | None = None
    answered: float = 0.0
    accelerator: bool = False
    view_bytes: int | None = None
    row_bytes: int | None = None


def same_recipe(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with what the run in ``path`` settled of it.

    Raises:
        RunDirError: no run there, or a run of another recipe; says what differs.
    """
    folder, of_run = open_run(path)
    settled = folder.settled(recipe)
    changed = differences(that_matters(of_run), that_matters(settled))
    if changed:
        raise RunDirError(f"{path} is a run of another recipe (there, here):\n  " + "\n  ".join(changed))
    return settled


def rates_of(path: Path, recipe: Recipe) -> Rates:
    """What the run in ``path`` tells.

    Args:
        recipe: the run's.

    Raises:
        RunDirError: not the directory of a run, or damaged.
    """
    if not RunDir(path).events.exists():
        return Rates()
    run = read_run(path)
    workers = _workers(run.events)
    inline = _answering(run.events)
    if not workers:
        inline = _rate(run.like("student"), ("teacher",), asked_only=True) or inline
    known = workers or ({_UNNAMED: inline} if inline else {})
    samples = _samples(run.events, recipe.student.train.epochs)
    answered = _answered(run, recipe, samples)
    student = _rate(run.like("student"), _OWN)
    formed = [event for event in run.events if event["event"] == "AnswersFormed"]
    view_bytes, row_bytes = (formed[-1].get(name) if formed else None for name in ("view_bytes", "row_bytes"))
    return Rates(student, inline, known or None, samples, answered, on_accelerator(run), view_bytes, row_bytes)


def _rate(phases: Iterable[Phase], parts: Sequence[str], *, asked_only: bool = False) -> float | None:
    """Units by seconds that went to some parts of the time; units are samples, or those not read from a store."""
    points = [point for phase in phases for point in phase.points]
    spent = sum(point.seconds.get(part, 0.0) for point in points for part in parts)
    units = sum(point.samples - (point.counts.get("hits", 0) if asked_only else 0) for point in points)
    return units / spent if units and spent > 0 else None


def _workers(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Rates of the workers that joined, the median of a kind: a device and its threads, on a host if there are more.

    Each by its pace at work as it was told last, else as it measured itself when it joined.
    """
    told: list[Mapping[str, Any]] = []
    paces: list[float] = []
    places: dict[str, int] = {}
    for event in events:
        if event["event"] == "FleetChanged" and event.get("kind") == "joined":
            pace_s = event["facts"].get("pace_s")
            if isinstance(pace_s, float) and pace_s > 0:
                places[event["worker"]] = len(told)
                told.append(event["facts"])
                paces.append(pace_s)
        elif event["event"] == "FleetMeasured":
            for each in map(WorkerMeasured._make, event["workers"]):
                if each.pace_s and each.views and each.name in places:
                    paces[places[each.name]] = each.pace_s
    several = len({facts.get("host") for facts in told}) > 1
    kinds: dict[str, list[float]] = {}
    for facts, pace_s in zip(told, paces, strict=True):
        device = str(facts.get("device", _UNNAMED)).replace(":", "-")
        name = f"{device}/{facts.get('threads')}" if device == "cpu" else device
        kinds.setdefault(f"{name}@{facts.get('host')}" if several else name, []).append(pace_s)
    return {name: 1.0 / median(found) for name, found in kinds.items()}


def _answering(events: Iterable[Mapping[str, Any]]) -> float | None:
    """Views/s of the engine that was chosen for the teacher's answers."""
    tried = [event for event in events if event["event"] == "EngineTried" and event.get("role") == "teacher"]
    rates = [event.get("samples_per_s") for event in tried if event.get("chosen")]
    return float(rates[-1]) if rates and rates[-1] else None


def _samples(events: Iterable[Mapping[str, Any]], epochs: int) -> int | None:
    begun = [event for event in events if event["event"] == "PhaseStarted" and event.get("phase") == "student"]
    return begun[-1].get("steps", 0) * begun[-1].get("batch_size", 0) // epochs or None if begun else None


def _answered(run: Run, recipe: Recipe, samples: int | None) -> float:
    """From the store's opening on, as long as its folder is there; all of it where the run is finished."""
    opened = [place for place, event in enumerate(run.events) if event["event"] == "StoreOpened"]
    if not opened or not Path(run.events[opened[-1]].get("folder", "")).is_dir():
        return 0.0
    if run.result is not None and not _unanswered(run.result):
        return 1.0
    store, later = run.events[opened[-1]], run.events[opened[-1] + 1 :]
    asked = sum(event.get("counts", {}).get("misses", 0) for event in later if event["event"] == "Progress")
    wanted = float(min(store.get("wanted", 0), (samples or 0) * recipe.data.views_in(recipe.student.train.epochs)) or 1)
    return min(float(store.get("answered", 0) + asked) / wanted, 1.0)


def _unanswered(result: Mapping[str, Any]) -> int:
    return int((result.get("fleet") or {}).get("unanswered", 0))
