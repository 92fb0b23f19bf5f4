"""A run directory as plain values: the recipe's text, the result if there is one, curves for each phase.

Everything that a killed run may leave is accepted: no result, a torn last line, steps told twice. Unknown events and
unknown keys are ignored, missing ones read as empty, so that old reports can be made of newer runs and the reverse.
Cost: one pass over the events.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillhouse.foundation.errors import RunDirError
from stillhouse.foundation.files import read_json
from stillhouse.foundation.history import read_events
from stillhouse.report.search.read import with_student

FORMAT = 1
NOT_TRAINING = ("evaluate", "checkpoint")
_NAMES = {"teach": "Teacher, answering ahead", "choose": "Choice", "calibrate": "Calibration"}
PARTS = ("data", "teacher", "store", "step", *NOT_TRAINING)


@dataclass(frozen=True)
class Point:
    """One ``Progress`` event: means and sums since the one before it. ``counts``: of views read and asked."""

    step: int
    epoch: float
    losses: Mapping[str, float]
    learning_rate: float
    seconds: Mapping[str, float]
    samples: int
    counts: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Phase:
    """One training: of the teacher, a student, a control. Evaluations are (step, epoch, accuracy in 0..1)."""

    name: str
    step: int = 0
    steps: int = 0
    finished: bool = False
    points: list[Point] = field(default_factory=list)
    evaluations: list[tuple[int, float, float]] = field(default_factory=list)
    checkpoint_s: float = 0.0

    @property
    def loss_names(self) -> list[str]:
        """Parts of the loss in the order they were first logged, ``total`` first."""
        names = list(dict.fromkeys(name for point in self.points for name in point.losses))
        return sorted(names, key=lambda name: name != "total")

    def loss(self, name: str) -> list[tuple[float, float]]:
        """(epoch, mean loss) of one part, finite values only."""
        return [(point.epoch, point.losses[name]) for point in self.points if name in point.losses]

    def validation(self) -> list[tuple[float, float]]:
        """(epoch, accuracy on the validation samples)."""
        return [(epoch, accuracy) for _, epoch, accuracy in self.evaluations]

    def learning_rate(self) -> list[tuple[float, float]]:
        """(epoch, learning rate)."""
        return [(point.epoch, point.learning_rate) for point in self.points]

    def throughput(self) -> list[tuple[float, float, int]]:
        """(seconds so far, seconds of this stretch without evaluation and checkpoints, samples of this stretch)."""
        so_far, stretches = 0.0, []
        for point in self.points:
            so_far += sum(point.seconds.values())
            spent = sum(value for name, value in point.seconds.items() if name not in NOT_TRAINING)
            if spent > 0 and point.samples > 0:
                stretches.append((so_far, spent, point.samples))
        return stretches

    def seconds(self) -> dict[str, float]:
        """Seconds by what they went to, over the whole phase, as far as the events tell."""
        total: dict[str, float] = {}
        for point in self.points:
            for name, value in point.seconds.items():
                total[name] = total.get(name, 0.0) + value
        if self.checkpoint_s and "checkpoint" not in total:
            total["checkpoint"] = self.checkpoint_s
        return total


@dataclass(frozen=True)
class Run:
    """What a run directory holds. ``result`` is None while the run is unfinished."""

    folder: Path
    recipe: str
    result: Mapping[str, Any] | None
    events: tuple[Mapping[str, Any], ...]
    phases: Mapping[str, Phase]

    def like(self, role: str) -> list[Phase]:
        """Phases of a role with their further seeds: ``student`` finds ``student``, ``student-1``, ..."""
        return [phase for name, phase in self.phases.items() if name == role or name.startswith(f"{role}-")]


def read_run(folder: Path) -> Run:
    """Read a run directory.

    Raises:
        RunDirError: not the directory of a run, damaged, or written by a newer Stillhouse.
    """
    for name in ("recipe.yaml", "events.jsonl"):
        if not (folder / name).is_file():
            raise RunDirError(f"{folder} is not the directory of a run: it has no {name}")
    try:
        recipe = (folder / "recipe.yaml").read_text()
        told = [event for event in read_events(folder / "events.jsonl") if isinstance(event["event"], str)]
        events = with_student(told)
    except (OSError, UnicodeDecodeError) as error:
        raise RunDirError(f"{folder} can't be read: {error}") from error
    except (KeyError, TypeError, IndexError) as error:
        raise RunDirError(f"{folder / 'events.jsonl'} holds a line that is no event of a run") from error
    result = read_json(folder / "result.json") if (folder / "result.json").exists() else None
    if result is not None and (not isinstance(result, dict) or result.get("format") != FORMAT):
        found = result.get("format") if isinstance(result, dict) else None
        where = folder / "result.json"
        raise RunDirError(f"{where} has format {found!r}, not {FORMAT}: read it with the Stillhouse that wrote it")
    return Run(folder, recipe, result, tuple(events), _phases(events))


def _phases(events: Iterable[Mapping[str, Any]]) -> dict[str, Phase]:
    phases: dict[str, Phase] = {}
    for event in events:
        name = event.get("phase")
        if not isinstance(name, str):
            continue
        phase = phases.setdefault(name, Phase(name))
        kind = event["event"]
        if kind == "PhaseStarted":
            _go_on(phase, event)
        elif kind == "PhaseFinished":
            phase.finished = True
        elif kind == "Progress":
            phase.points.append(_point(event))
            phase.step = phase.points[-1].step
        elif kind == "Evaluated" and event.get("split") == "validation":
            step = int(_number(event.get("step")))
            phase.evaluations.append((step, _number(event.get("epoch")), _number(event.get("accuracy"))))
        elif kind == "CheckpointWritten":
            phase.checkpoint_s += _number(event.get("seconds"))
    return phases


def _go_on(phase: Phase, event: Mapping[str, Any]) -> None:
    """A phase begins, or goes on after a crash."""
    phase.step, phase.steps = int(_number(event.get("step"))), int(_number(event.get("steps"))) or phase.steps
    phase.finished = False


def _point(event: Mapping[str, Any]) -> Point:
    return Point(
        step=int(_number(event.get("step"))),
        epoch=_number(event.get("epoch")),
        losses=_numbers(event.get("losses")),
        learning_rate=_number(event.get("learning_rate")),
        seconds=_numbers(event.get("seconds")),
        samples=int(_number(event.get("samples"))),
        counts=_numbers(event.get("counts")),
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _numbers(values: Any) -> dict[str, float]:
    """Those that are finite numbers: the loss of a training that exploded is no point of a curve."""
    told = values.items() if isinstance(values, dict) else ()
    return {str(name): float(each) for name, each in told if isinstance(each, int | float) and math.isfinite(each)}


def parts_in_order(names: Iterable[str]) -> list[str]:
    """What time went to, in the order of a batch's life; names that nobody knows come last."""
    found = set(names)
    return [name for name in PARTS if name in found] + sorted(found.difference(PARTS))


def phase_words(name: str) -> str:
    """A phase as people call it: ``control-0`` is "Control, seed 1"."""
    role, _, index = name.partition("-")
    if role in ("student", "control") and index.isdigit():
        return f"{role.capitalize()}, seed {int(index) + 1}"
    if role == "teacher" and index.isdigit():
        return f"Teacher {int(index) + 1}"
    if role == "blocks" and index.isdigit():
        return f"Blocks, sweep {int(index) + 1}"
    return _NAMES.get(name, name.capitalize())
