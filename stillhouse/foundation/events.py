"""What happens in a run, as typed events: one JSON object a line, appended, readable while it grows (``history``).

Listeners (the progress bar, a live page) get the same events as the file.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from stillhouse.foundation.block_events import (
    BlocksChosen,
    BlocksMeasured,
    BlocksOffered,
    BlocksPlanned,
    BlockWorkersAwaited,
    BlockWorkersLost,
    PlanMeasured,
    ReplacementTrained,
)
from stillhouse.foundation.energy import EnergyRead
from stillhouse.foundation.errors import StorageError
from stillhouse.foundation.search_events import (
    FinalistLent,
    FinalistTrained,
    SearchMeasured,
    StudentFound,
    TrialBegun,
    TrialEnded,
    TrialLent,
    TrialReached,
    TrialWorkerCame,
    TrialWorkerLost,
)


@dataclass(frozen=True)
class RunStarted:
    """A process took the run up. ``resumed`` is false only for the first one; ``only_teach``: not to its end."""

    process_id: int
    resumed: bool
    only_teach: bool = False


@dataclass(frozen=True)
class DataRead:
    """Samples of a source decoded so far."""

    source: str
    done: int
    samples: int


@dataclass(frozen=True)
class PhaseStarted:
    """A phase begins or goes on: training of the teacher, the student, a control, or export."""

    phase: str
    step: int = 0
    steps: int = 0
    batch_size: int = 0


@dataclass(frozen=True)
class PhaseFinished:
    """A phase ended well; seconds and energy of the process that ended it. ``joules`` is None where unavailable."""

    phase: str
    seconds: float
    joules: float | None
    energy_source: str


@dataclass(frozen=True)
class Progress:
    """Training, every few steps.

    ``losses``: the mean of each part of the objective since the last event, unweighted, and ``total``, the
    weighted sum. ``seconds`` by what they went to (``data``, ``teacher``, ``store``, ``step``), since the last event.
    ``counts``: views read from the label store (``hits``) and asked of the teacher (``misses``), since the last event.
    """

    phase: str
    step: int
    epoch: float
    losses: Mapping[str, float]
    learning_rate: float
    seconds: Mapping[str, float]
    samples: int
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """Accuracy (0..1) and mean cross-entropy (nats) on a split, after ``step`` steps."""

    phase: str
    step: int
    epoch: float
    split: str
    accuracy: float
    loss: float


@dataclass(frozen=True)
class CheckpointWritten:
    """A checkpoint is safely on disk."""

    phase: str
    step: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class CheckpointRefused:
    """A checkpoint was damaged and an older one was used."""

    phase: str
    file: str
    reason: str


@dataclass(frozen=True)
class SamplesSkipped:
    """Samples that could not be read, left out because the recipe says ``bad_samples: skip``."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class EngineTried:
    """One way to compute, tried before it mattered; None where it was not measured.

    ``role``: ``teacher`` (its answers), ``teacher's step``, ``student's step``. Of answers: ``kl``, mean divergence
    from fp32 in nats at temperature 1; ``agreement``, share of views with fp32's top class (0..1); ``feature_error``,
    relative squared error of activations; ``steady``, whether an answer's bits don't depend on its neighbours. Of a
    step: ``loss_error``, the largest relative difference from fp32's losses. ``first_call_s``: with compiling.
    ``refused``: why it was not taken, "" where it could have been. ``remembered``: the speeds are an earlier trial's.
    """

    role: str
    engine: str
    samples_per_s: float | None
    first_call_s: float | None
    kl: float | None
    agreement: float | None
    feature_error: float | None
    loss_error: float | None
    steady: bool | None
    chosen: bool
    remembered: bool
    refused: str


@dataclass(frozen=True)
class AnswersFormed:
    """Known from now on: the bytes of a view in memory, and of the teacher's answer about it as it is sent."""

    view_bytes: int
    row_bytes: int


@dataclass(frozen=True)
class StoreOpened:
    """A label store stands before the teacher; ``bytes_planned`` when it holds all views of this run.

    ``answered`` of the ``wanted`` views that this run's students see, training samples only, are there already.
    """

    folder: str
    views: int
    bytes_planned: int
    note: str
    answered: int
    wanted: int


@dataclass(frozen=True)
class SourceMeasured:
    """Seconds of reading a view from the store against asking about it; ``source`` is what is used from now on."""

    reading_s: float
    asking_s: float
    source: str


@dataclass(frozen=True)
class FleetChanged:
    """Something happened to the workers that answer for the teacher.

    ``kind``: ``joined``, ``refused``, ``leaving``, ``left``, ``suspect`` (it let its time pass), ``trusted`` (it
    answered after all), ``scaled``. ``worker``: its name, "" where it is about all. ``facts``: what it told of itself:
    ``host``, ``pid``, ``device``, ``engine``, ``threads``, ``reads`` (how it sees the data), ``pace_s`` (s a view).
    ``ago_s``: how long before this line it happened.
    """

    kind: str
    worker: str
    text: str
    facts: Mapping[str, Any]
    ago_s: float


class WorkerMeasured(NamedTuple):
    """One worker in a :class:`FleetMeasured`; in the file a list in this order.

    Attributes:
        state: ``unplaced`` (no machine has room for it yet), ``loading``, ``idle``, ``busy``, ``suspect`` or
            ``draining``.
        views: answered since it joined, needed or not.
        pace_s: seconds a view; None: not known yet.
        held: questions on loan to it.
        busy_share: of the time since the event before (0..1), while it held work.
    """

    name: str
    state: str
    views: int
    pace_s: float | None
    held: int
    busy_share: float


@dataclass(frozen=True)
class FleetMeasured:
    """The fleet and its student in numbers: every few seconds and when a worker's state changes, if anything did.

    ``seconds`` from the look at the workers that the event before told of to this one's, in the same process.
    ``workers``: all that are alive. Views that students have ``open`` (asked and not taken), ``pending`` (those not
    answered yet) and ``buffered`` (those answered), of at most ``window``; ``low`` and ``high``: the water marks for
    ``buffered``. ``waiting``: whether a student waits now, ``starved_share``: for what share (0..1) of the time since
    the event before one did; ``inline``: whether it answers itself then, ``own_views``: so many, in all. ``totals``:
    what befell this process's fleet so far: workers that joined, went without leave, let their time pass; questions
    asked again, asked of a second worker; answers that came too late. ``wants``: what an ``unplaced`` worker waits for.
    """

    seconds: float
    workers: tuple[WorkerMeasured, ...]
    open: int
    pending: int
    buffered: int
    window: int
    low: int
    high: int
    waiting: bool
    starved_share: float
    inline: bool
    own_views: int
    totals: Mapping[str, int] = field(default_factory=dict)
    wants: str = ""


@dataclass(frozen=True)
class GroupChanged:
    """Something happened to the students that train one network together.

    ``kind``: ``started`` (so many ``students`` go on from ``step``), ``lost`` (one died at ``step``, ``text`` says
    which and why; the others are ended, and all begin again from the newest checkpoint). ``members``: (host, process
    id) of each that started, the first student first.
    """

    phase: str
    kind: str
    students: int
    step: int
    text: str
    members: tuple[tuple[str, int], ...] = ()


class StudentMeasured(NamedTuple):
    """One of the students in a :class:`GroupMeasured`; in the file a list in this order.

    Attributes:
        host, process_id: "" and 0 until it has come.
        state: ``starting`` (not here yet), ``loading``, ``training`` or ``done``.
        step: steps that it has done.
        samples_per_s: of its own share, since the event before.
        starved_share: of that time (0..1), waiting for its share of a batch and the answers about it.
    """

    host: str
    process_id: int
    state: str
    step: int
    samples_per_s: float
    starved_share: float


@dataclass(frozen=True)
class GroupMeasured:
    """Students that train one network together in numbers, the first one first: every few seconds while they move.

    ``seconds`` since the event before; 0 where rates and shares are still those of that one.
    """

    phase: str
    seconds: float
    students: tuple[StudentMeasured, ...]


@dataclass(frozen=True)
class Warned:
    """Something a person should look at; the run goes on."""

    message: str


Event = (
    RunStarted
    | DataRead
    | PhaseStarted
    | PhaseFinished
    | EnergyRead
    | Progress
    | BlocksOffered
    | BlocksChosen
    | ReplacementTrained
    | Evaluated
    | CheckpointWritten
    | CheckpointRefused
    | SamplesSkipped
    | EngineTried
    | AnswersFormed
    | StoreOpened
    | SourceMeasured
    | FleetChanged
    | FleetMeasured
    | GroupChanged
    | GroupMeasured
    | BlockWorkersAwaited
    | BlocksPlanned
    | BlocksMeasured
    | PlanMeasured
    | BlockWorkersLost
    | TrialBegun
    | TrialReached
    | TrialLent
    | TrialWorkerCame
    | TrialWorkerLost
    | TrialEnded
    | FinalistLent
    | FinalistTrained
    | StudentFound
    | SearchMeasured
    | Warned
)


@dataclass
class EventLog:
    """Appends events to a file and tells the listeners."""

    path: Path
    listeners: list[Callable[[Event], None]] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """Append one event.

        Raises:
            StorageError: the disk refused.
        """
        record = {"time": round(time.time(), 3), "event": type(event).__name__, **_plain(event)}
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(record).encode() + b"\n")
        except OSError as error:
            raise StorageError(f"could not append to {self.path}: {error.strerror or error}") from error
        for listener in self.listeners:
            listener(event)

    def mend_tail(self) -> None:
        """Cut off a torn last line, so that what is appended next starts a line of its own."""
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            os.truncate(self.path, whole)


def _plain(event: Event) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for each in dataclasses.fields(event):
        value = getattr(event, each.name)
        values[each.name] = dict(value) if isinstance(value, Mapping) else value
    return values
