"""Several processes that train a search's trials: the run's process lends tasks, feeds and hears them.

A task is lent to one worker at a time. What it needs comes from here, step by step (keys, or pixels where a worker
can't see the data, and what the store knows of them), and its checkpoints come back, one an epoch at least; so a worker
holds nothing that another could not go on from. One that dies, or falls silent and is ended, is started anew, and its
task goes to whoever is free. A task whose workers die again and again without getting further can't be trained; nor can
one that every worker refuses: a place may lack a file, or memory.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import safetensors.torch
import torch

from stillhouse.data.ahead import ahead
from stillhouse.data.batch import Batch
from stillhouse.foundation import errors
from stillhouse.foundation.errors import DivergedError, FleetError, Interrupted, StillhouseError
from stillhouse.foundation.events import Progress
from stillhouse.foundation.search_events import TrialWorkerCame, TrialWorkerLost
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.weights import load_into
from stillhouse.recipe.fleet import FleetSection
from stillhouse.runner.course import Counted, course_of, hand_over, show
from stillhouse.runner.group import EVENTS, Patience
from stillhouse.runner.job import sight_job
from stillhouse.runner.materials import Materials
from stillhouse.runner.search.task import UNTRAINABLE, Emit, Outcome, Setting, Task
from stillhouse.runner.shares import pack, pack_share
from stillhouse.runtime.local.crew import Came, Gone, Said, StandingCrew
from stillhouse.runtime.local.frames import Bytes

DEATHS_MAX = 3
"""Deaths of a task's workers without a new checkpoint, and of workers before they began, that are put up with."""

_STEPS_AHEAD = 2
_STOPPING_S = 60.0
_JOINING_S = 60.0


class _Loan:
    """A task, on loan to a worker or waiting for one.

    Args:
        number: of the loans of this search, from 0: shares of one that ended are known by it.
        emit: takes the events of its training.
    """

    def __init__(self, task: Task, setting: Setting, emit: Emit) -> None:
        network, source, objective, context, checkpoints = setting.parts(task, emit)
        stream = task.materials.stream(task.materials.recipe.student.train, 0)
        self.task = task
        self.course = course_of(task.materials, network, objective, source, stream, context, checkpoints)
        self.counted = Counted(source, Counter())
        self.deaths = 0
        self.refused = set[str]()
        self.begun = -1
        self._answers: Iterator[tuple[Batch, Knowledge]] | None = None
        self._ends = contextlib.ExitStack()
        self._sent: deque[tuple[int, int]] = deque()

    def begin(self, state: dict[str, Any] | None, *, unseen: bool) -> None:
        """It is lent, and goes on from a checkpoint's state."""
        course = self.course
        self.begun = self.next = state["step"] if state else 0
        self.took = self.begun - 1
        batches = course.stream.batches(self.begun, course.steps, unseen=unseen)
        made = self._ends.enter_context(contextlib.closing(ahead(batches, 0 if unseen else course.ahead_max_bytes)))
        answers = course.source.teach(made)
        self._answers = self._ends.enter_context(contextlib.closing(answers))  # type: ignore[type-var]
        self._sent.clear()
        self.counted.begin_anew()

    def wants(self) -> bool:
        """Whether its worker may be given one more step's share."""
        while self._sent and self._sent[0][0] <= self.took:
            self._sent.popleft()
        held = sum(size for _, size in self._sent)
        room = self.next - self.took <= _STEPS_AHEAD or held < self.course.ahead_max_bytes
        return room and self.next < self.course.steps

    def share(self, *, pixels: bool) -> tuple[dict[str, Any], bytes]:
        """The next step's share, as it is sent."""
        assert self._answers is not None
        batch, knowledge = next(self._answers)
        knowledge.check_aligned(batch)
        self.counted.note(self.next)
        forms, body = pack_share(batch, knowledge, 0, len(batch), pixels=pixels)
        told = {"do": "share", "number": self.next, "forms": forms}
        self._sent.append((self.next, len(body)))
        self.next += 1
        return told, body

    def end(self) -> None:
        """Nobody has it any more."""
        self._ends.close()
        self._answers = None


@dataclass
class _Seat:
    """A worker.

    Attributes:
        came: whether it is there.
        reads: how it comes by pixels; empty until it has said so.
        loan: what it works on.
        job: number of its loan: shares of one that ended are known by it.
        told_split: whether it has heard of the validation split.
    """

    name: str
    place: int
    came: bool = False
    reads: str = ""
    loan: _Loan | None = None
    job: int = 0
    told_split: bool = False
    begun_s: float = field(default_factory=time.monotonic)
    silent: bool = False
    patience: Patience = field(default_factory=Patience)


class TrialWorkers:
    """All of them, until closed.

    Args:
        materials: of the run.
        crew: starts and hears processes that run ``runner.search.worker``.
        emit: takes the run's events.
        retold: takes those of a task's training.

    Raises:
        FleetError: none can be started.
    """

    def __init__(self, materials: Materials, setting: Setting, crew: StandingCrew, emit: Emit, retold: Emit) -> None:
        self._materials, self._setting, self._crew = materials, setting, crew
        self._emit, self._retold = emit, retold
        bare = materials.recipe.model_copy(update={"search": None, "fleet": FleetSection()})
        self._sight = sight_job(replace(materials, recipe=bare)).as_json()  # folders of other searches are here only
        self._waiting: deque[_Loan] = deque()
        self._outcomes: list[Outcome] = []
        self._jobs = self._stillborn = 0
        self._stopping = False
        self._seats: dict[str, _Seat] = {}
        for place in range(materials.recipe.fleet.trial_workers):
            self._start(place)

    def has_room(self) -> bool:
        """Whether a worker is there that has nothing to do, and nothing waits for it."""
        idle = [each.name for each in self._ready() if each.loan is None]
        # Who refused one that still waits for another gets no more: it may refuse all of them.
        able = {name for name in idle if not any(name in loan.refused for loan in self._waiting)}
        return len(able) > sum(bool(able - loan.refused) for loan in self._waiting)

    def give(self, task: Task) -> None:
        """Lend a task to a worker that has nothing to do."""
        try:
            loan = _Loan(task, self._setting, self._retold)
        except UNTRAINABLE as error:
            self._outcomes.append(Outcome(task, None, str(error), 0.0))
            return
        self._waiting.append(loan)
        self._lend()

    def ended(self) -> list[Outcome]:
        """Those that ended since; feeds the workers, and waits a while.

        Raises:
            Interrupted: a signal came, and all have stopped.
            FleetError: workers die before they begin.
        """
        if (signal := self._setting.signals.asked()) is not None:
            self._stop(signal)
        self._lend()
        fed = self._feed()
        self._hear(0.0 if fed or self._outcomes else 1.0)
        self._keep_awake()
        found, self._outcomes = self._outcomes, []
        return found

    def close(self) -> None:
        """End all."""
        for seat in self._seats.values():
            self._crew.send(seat.name, {"do": "dismiss"})
            self._crew.send(seat.name, {"do": "job", "job": None})
            if seat.loan is not None:
                seat.loan.end()
        self._crew.close()

    def _ready(self) -> list[_Seat]:
        return [each for each in self._seats.values() if each.reads]

    def _there(self) -> set[str]:
        """Names of those who are there, or will soon be: a cluster may have no room for all."""
        now_s = time.monotonic()
        return {each.name for each in self._seats.values() if each.reads or now_s - each.begun_s < _JOINING_S}

    def _start(self, place: int) -> None:
        name = f"trial-worker-{place + 1}"
        self._seats[name] = _Seat(name, place)
        self._crew.start(name)

    def _lend(self) -> None:
        """Waiting tasks to workers that have nothing to do."""
        there = self._there()
        for seat in self._ready():
            if seat.loan is not None or self._stopping:
                continue
            fitting = (each for each in self._waiting if seat.name not in each.refused or each.refused >= there)
            if (loan := next(fitting, None)) is None:
                continue
            self._waiting.remove(loan)
            seat.loan, seat.job = loan, self._jobs
            self._jobs += 1
            state = loan.course.checkpoints.load()
            loan.begin(state, unseen=seat.reads != "sent")
            hand_over(self._crew, seat.name, loan.course, state, job=seat.job, evaluates=loan.task.final)
            if not seat.told_split and seat.reads != "sent":
                self._tell_split(seat)
            seat.patience = Patience()
            self._emit(loan.task.lent(seat.name))

    def _tell_split(self, seat: _Seat) -> None:
        seat.told_split = True
        ids, crop = self._materials.data.splits.validation, self._materials.recipe.data.crop_px
        labels = self._materials.data.labels[ids]
        forms, body = pack({"sample_ids": torch.from_numpy(ids), "targets": torch.from_numpy(labels)})
        self._crew.send(seat.name, {"do": "validation", "forms": forms, "crop_px": crop}, body)

    def _feed(self) -> bool:
        """One share to each who has room for it; whether there was any."""
        fed = False
        for seat in self._ready():
            if seat.loan is not None and not self._stopping and seat.loan.wants():
                try:
                    told, body = seat.loan.share(pixels=seat.reads == "sent")
                except Interrupted as stop:  # while a teacher was waited for
                    self._stop(stop.exit_code - 128)
                except torch.OutOfMemoryError as error:
                    why = f"out of memory where the teacher answers (try a lower teacher.engine.batch_size): {error}"
                    raise StillhouseError(why) from error
                self._crew.send(seat.name, {**told, "job": seat.job}, body)
                seat.patience.heard()
                fed = True
        return fed

    def _keep_awake(self) -> None:
        """End those that fell silent in the middle of a task, or before they said how they see the data."""
        for seat in self._seats.values():
            beginning = seat.came and not seat.reads
            steps = seat.loan.took - seat.loan.begun if seat.loan is not None else 0
            if (beginning or seat.loan is not None) and seat.patience.is_over(steps) and not seat.silent:
                seat.silent = True
                self._crew.end(seat.name)

    def _hear(self, timeout_s: float) -> None:
        for news in self._crew.poll(timeout_s):
            seat = self._seats[news.name]
            if isinstance(news, Gone):
                self._lose(seat, "it fell silent" if seat.silent else news.why)
            elif isinstance(news, Came):
                threads = int(self._materials.recipe.compute.threads)
                seat.came, seat.patience = True, Patience()
                self._crew.send(seat.name, {"do": "begin", "threads": threads, "place": seat.place})
                show(self._crew, seat.name, self._sight)
                host, pid = str(news.hello.get("host")), int(news.hello.get("pid") or 0)
                self._emit(TrialWorkerCame(seat.name, host, pid))
            else:
                seat.patience.heard()
                self._understand(seat, news)

    def _lose(self, seat: _Seat, why: str) -> None:
        """A worker is gone: its task waits for another, and it is started anew."""
        loan = seat.loan
        self._stillborn = 0 if seat.reads else self._stillborn + 1
        trial, final = (loan.task.trial, loan.task.final) if loan else (None, False)
        self._emit(TrialWorkerLost(seat.name, why, trial, final))
        if self._stillborn > DEATHS_MAX:
            raise FleetError(f"workers that train trials die before they begin: {why}")
        if loan is not None:
            loan.end()
            newest = loan.course.checkpoints.newest()
            further = newest is not None and int(newest.stem.removeprefix("step-")) > loan.begun
            loan.deaths = 0 if further else loan.deaths + 1
            if loan.deaths > DEATHS_MAX:
                story = f"its workers died {loan.deaths} times without getting any further, at last: {why}"
                self._outcomes.append(Outcome(loan.task, None, story, 0.0))
            else:
                self._waiting.append(loan)
        if not self._stopping:
            self._start(seat.place)
        else:
            del self._seats[seat.name]

    def _understand(self, seat: _Seat, news: Said) -> None:
        header, loan = news.header, seat.loan
        if header["do"] == "sees":
            seat.reads = str(header["reads"])
            return
        if loan is None:  # said after its end
            return
        course = loan.course
        match header["do"]:
            case "took":
                loan.took = int(header["number"])
            case "event" if (kind := EVENTS.get(header["event"])) is not None:
                told = kind(**header["values"])
                if isinstance(told, Progress):
                    told = course.retold(told, loan.counted.before(told.step))
                course.emit(told)
            case "event" | "looks":
                pass  # it lives
            case "checkpoint":
                course.checkpoints.write(int(header["step"]), news.body)
            case "evaluate":
                self._crew.send(seat.name, *_evaluated(loan, news.body))
            case "ended":
                self._end(seat, loan, header)
            case said:
                raise FleetError(f"{seat.name} says '{said}', which this run does not know")

    def _end(self, seat: _Seat, loan: _Loan, header: dict[str, Any]) -> None:
        seat.loan = None
        loan.end()
        how, why = header["how"], str(header.get("why", ""))
        if how == "done":
            self._outcomes.append(Outcome(loan.task, float(header["accuracy"]), "", float(header["seconds"])))
            return
        if how == "Interrupted":
            self._waiting.append(loan)
            return
        kind = getattr(errors, how, None)
        if isinstance(kind, type) and issubclass(kind, UNTRAINABLE):
            loan.refused.add(seat.name)
            if issubclass(kind, DivergedError) or loan.refused >= self._there():
                self._outcomes.append(Outcome(loan.task, None, why, 0.0))
            else:
                self._waiting.append(loan)
            return
        raise kind(why) if isinstance(kind, type) and issubclass(kind, StillhouseError) else StillhouseError(why)

    def _stop(self, signal: int) -> None:
        """Have all stop after their step, wait for their checkpoints, and end."""
        self._stopping = True
        busy = [each for each in self._seats.values() if each.loan is not None]
        for seat in busy:
            for word in ("stop", "pause"):  # after its step, or where it waits for a share
                self._crew.send(seat.name, {"do": word, "signal": signal})
        end_s = time.monotonic() + _STOPPING_S
        while any(each.loan is not None for each in self._seats.values()) and time.monotonic() < end_s:
            self._hear(0.2)
        raise Interrupted("stopped while workers trained; what they had stands in checkpoints", signal)


def _evaluated(loan: _Loan, weights: Bytes) -> tuple[dict[str, Any], bytes]:
    """What a worker that can't see the data is told of its network; or why it can't be looked at here."""
    network = loan.task.materials.networks.student(loan.task.number)
    try:
        load_into(network.to(loan.course.device), safetensors.torch.load(bytes(weights)), "the trial's weights")
        found = loan.course.validate(network)
    except UNTRAINABLE as error:
        return {"do": "evaluated", "refused": str(error)}, b""
    return {"do": "evaluated", "loss": found.loss}, found.correct.tobytes()
