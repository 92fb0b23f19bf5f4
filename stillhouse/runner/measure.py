"""The end of a run: the test split read once, costs measured, everything put into ``result.json``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.foundation.events import WorkerMeasured
from stillhouse.foundation.files import digest_json
from stillhouse.foundation.history import read_events
from stillhouse.models.cost import measure_cost
from stillhouse.models.network import Network
from stillhouse.models.weights import weights_digest
from stillhouse.recipe.recipe import Recipe, as_dict
from stillhouse.report.blockwise.read import described
from stillhouse.report.search.read import sought, with_student
from stillhouse.runner.energy import energy_use
from stillhouse.runner.environment import versions
from stillhouse.runner.fleet import FLEET_TOTALS
from stillhouse.runner.materials import Materials
from stillhouse.runner.members import member_rows
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.verdict import BLOCKS, DISTILLATION, accuracy_interval, judge
from stillhouse.students.evaluate import evaluate

FORMAT = 1


def measure(
    materials: Materials,
    folder: RunDir,
    teacher: Network,
    students: Sequence[Network],
    controls: Sequence[Network],
    store: dict[str, Any] | None,
    exported: dict[str, Any],
) -> dict[str, Any]:
    """The whole result as plain values.

    Args:
        store: what is known of the label store besides hits and misses; None where there is none.
    """
    right = {name: [_correct(materials, each) for each in arm] for name, arm in _arms(teacher, students, controls)}
    recipe, survey, splits = materials.recipe, materials.data.survey, materials.data.splits
    verdict = judge(right["student"], right["control"], DISTILLATION if recipe.blockwise is None else BLOCKS)
    events = with_student(read_events(folder.events))
    searched = sought(events)
    return {
        "format": FORMAT,
        "method": _method(recipe, searched),
        "name": recipe.name,
        "teacher": {
            **_row(materials, teacher, right["teacher"]),
            "trained_here": recipe.teacher.train is not None,
            "members": member_rows(materials, teacher),
        },
        "student": {**_row(materials, students[0], right["student"]), "seeds": _accuracies(right["student"])},
        "control": _control(materials, controls, right["control"]),
        "verdict": asdict(verdict),
        "engines": _engines(recipe, events),
        "throughput": throughput(events, "student", materials.device.type == "cpu"),
        "store": None if store is None else store | store_use(events, store),
        "fleet": fleet_use(events),
        "students": students_use(events),
        "blockwise": described(folder.path, events),
        "search": searched,
        "energy": energy_use(_processes(events)),
        "wall_s": round(_wall_s(events, time.time()), 3),
        "phase_s": {phase: round(sum(_seconds(events, phase).values()), 3) for phase in _phases(events)},
        "digests": {
            "student_weights": weights_digest(students[0]),
            "teacher_weights": weights_digest(teacher),
            "data": survey.digest,
            "samples": materials.data.digest,
            "views": materials.data.views_digest,
            "recipe": digest_json(as_dict(recipe)),
        },
        "export": exported,
        "data": {
            "name": survey.train.name,
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
            "classes": list(survey.class_names),
            "shape": list(materials.interface.shape),
            "skipped": len(materials.data.skipped),
        },
        "environment": {**versions(), "device": recipe.compute.device, "threads": recipe.compute.threads},
        "warnings": list(dict.fromkeys(event["message"] for event in events if event["event"] == "Warned")),
    }


def throughput(events: Sequence[dict[str, Any]], phase: str, synchronous: bool = True) -> dict[str, Any]:
    """Where a training's time went.

    ``starved_share``: of the time between steps and in them, the part in which the student had no batch or no
    knowledge yet; evaluation and checkpoints don't count. ``teacher_idle_share``: of the same time, the part in
    which the teacher did nothing; of a fleet, the part of its workers' time in which they held no work; None where
    nobody was asked. Steps that a crash made the run repeat count once.

    Args:
        synchronous: whether the device works while the process waits for it. On an accelerator the process only
            launches work, so that its clock can't tell who used the device: the shares are None there, but a fleet's.
    """
    told = [event for event in events if event["event"] == "Progress" and event["phase"] == phase]
    seconds = _seconds(events, phase)
    waiting = sum(seconds.get(name, 0.0) for name in ("data", "teacher", "store"))
    training = waiting + seconds.get("step", 0.0)
    samples = sum(event["samples"] for event in told)
    return {
        "samples_per_s": round(samples / training, 1) if training else None,
        "starved_share": round(waiting / training, 4) if training and synchronous else None,
        "teacher_idle_share": _teacher_idle(events, phase, synchronous),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def _teacher_idle(events: Sequence[dict[str, Any]], phase: str, synchronous: bool) -> float | None:
    """Over all processes of the run: of those with workers by these, of others by who asked; None if nobody was."""
    idle_s, whole_s = 0.0, 0.0
    for process in _processes(events):
        told = [event for event in process if event["event"] == "FleetMeasured"]
        looks = [(event["seconds"], WorkerMeasured._make(row)) for event in told for row in event["workers"]]
        looks = [(seconds, worker) for seconds, worker in looks if worker.state in ("idle", "busy", "draining")]
        parts = _seconds(process, phase)
        whole_s += sum(seconds for seconds, _ in looks)
        idle_s += sum(seconds * (1 - worker.busy_share) for seconds, worker in looks)
        if not looks and parts.get("teacher") and synchronous:
            training_s = sum(parts.get(name, 0.0) for name in ("data", "teacher", "store", "step"))
            whole_s, idle_s = whole_s + training_s, idle_s + training_s - parts["teacher"]
    return round(idle_s / whole_s, 4) if whole_s else None


def _processes(events: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The events of each process of the run."""
    found: list[list[dict[str, Any]]] = [[]]
    for event in events:
        if event["event"] == "RunStarted":
            found.append([])
        found[-1].append(event)
    return found


def store_use(events: Sequence[dict[str, Any]], untold: dict[str, Any]) -> dict[str, int]:
    """Views that were read from the store (``hits``) and asked of the teacher (``misses``), and what that wrote."""
    told = [event.get("counts", {}) for event in events if event["event"] == "Progress"]
    names = ("hits", "misses", "bytes_written", "rows_damaged")
    return {name: sum(counts.get(name, 0) for counts in [*told, untold]) for name in names}


def fleet_use(events: Sequence[dict[str, Any]]) -> dict[str, int] | None:
    """What befell the workers, over all processes of the run; ``unanswered``: views that nobody was left to be asked.

    Each process tells its sums again and again, so that a kill costs what happened since it last did, not all of it.
    None where no process of the run had workers to ask.
    """
    told = [[each["totals"] for each in process if each["event"] == "FleetMeasured"] for process in _processes(events)]
    if not any(told):
        return None
    sums = Counter[str]()
    for totals in filter(None, told):
        sums.update(totals[-1])
    unanswered = sum(event["counts"].get("unanswered", 0) for event in events if event["event"] == "Progress")
    return {name: sums[name] for name in FLEET_TOTALS} | {"unanswered": unanswered}


def students_use(events: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """How many students trained the delivered one; None where each student of the run was trained by one alone.

    ``together``: at last; ``course``: [step, how many from there on] for each change; ``lost``: how often any was.
    """
    if not any(event["event"] == "GroupChanged" for event in events):
        return None
    lost = sum(event["event"] == "GroupChanged" and event["kind"] == "lost" for event in events)
    course, grouped = list[list[int]](), False
    for event in events:
        together = event["event"] == "GroupChanged" and event["kind"] == "started"
        if event["event"] == "RunStarted":
            grouped = False
        elif event.get("phase") == "student" and (together or (event["event"] == "PhaseStarted" and not grouped)):
            grouped, number = together, event["students"] if together else 1
            course = [each for each in course if each[0] < event["step"]]
            course += [[event["step"], number]] if not course or course[-1][1] != number else []
    return {"together": course[-1][1] if course else 1, "course": course, "lost": lost}


def _seconds(events: Sequence[dict[str, Any]], phase: str) -> dict[str, float]:
    """Seconds of a training by what they went to."""
    seconds: dict[str, float] = {}
    for event in events:
        if event["event"] == "Progress" and event["phase"] == phase:
            for name, value in event["seconds"].items():
                seconds[name] = seconds.get(name, 0.0) + value
    return seconds


def _engines(recipe: Recipe, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How the teacher answered (None where it was not asked), by which engines workers did, and the student's steps."""
    came = [each["facts"] for each in events if each["event"] == "FleetChanged" and each["kind"] == "joined"]
    workers = sorted({str(facts["engine"]) for facts in came if "engine" in facts})
    teacher = recipe.teacher.engine.model_dump(mode="json") if recipe.objective.asks else None
    student = recipe.student.train.engine.model_dump(mode="json")
    return {"teacher": teacher, "student": student} | ({"workers": workers} if workers else {})


def _method(recipe: Recipe, found: dict[str, Any] | None) -> str:
    if found is not None:
        return "search"
    return "distill" if recipe.blockwise is None else "blockwise"


def _arms(
    teacher: Network, students: Sequence[Network], controls: Sequence[Network]
) -> tuple[tuple[str, Sequence[Network]], ...]:
    return ("teacher", [teacher]), ("student", students), ("control", controls)


def _correct(materials: Materials, network: Network) -> NDArray[np.bool_]:
    return evaluate(network, materials.test(), materials.device).correct


def _row(materials: Materials, network: Network, right: Sequence[NDArray[np.bool_]]) -> dict[str, Any]:
    low, high = accuracy_interval(right[0])
    accuracy = {"accuracy": float(right[0].mean()), "accuracy_low": low, "accuracy_high": high}
    return accuracy | asdict(measure_cost(network, materials.interface))


def _control(
    materials: Materials, controls: Sequence[Network], right: Sequence[NDArray[np.bool_]]
) -> dict[str, Any] | None:
    if not controls:
        return None
    accuracies = _accuracies(right)
    costs = asdict(measure_cost(controls[0], materials.interface))
    return {"accuracy": float(np.mean(accuracies)), "seeds": accuracies} | costs


def _accuracies(right: Sequence[NDArray[np.bool_]]) -> list[float]:
    return [float(each.mean()) for each in right]


def _phases(events: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(event["phase"] for event in events if event["event"] == "Progress"))


def _wall_s(events: Sequence[dict[str, Any]], now: float) -> float:
    """Seconds in which a process worked on the run, up to now: pauses between a crash and the resume are left out."""
    total, start, last = 0.0, None, 0.0
    for event in sorted(events, key=lambda each: each["time"]):
        if event["event"] == "RunStarted":
            total += last - start if start is not None else 0.0
            start = event["time"]
        last = event["time"]
    return total + (now - start if start is not None else 0.0)
