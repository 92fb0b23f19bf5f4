"""Students that train one network together: the run's process feeds them, hears them, and begins again when one dies.

It trains nothing itself meanwhile. It asks for the knowledge of whole batches in the order of the run, as ever, cuts
each into the students' shares, writes the checkpoints that the first of them sends, and looks at the network for it.
When a student is gone the others are ended, and all go on from the newest checkpoint.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import safetensors.torch

from stillhouse.data.ahead import ahead
from stillhouse.data.batch import Batch
from stillhouse.foundation import errors
from stillhouse.foundation.errors import FleetError, Interrupted, StillhouseError
from stillhouse.foundation.events import Evaluated, Event, GroupChanged, PhaseStarted, Progress
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.weights import load_into
from stillhouse.runner.course import Counted, Course, hand_over, show
from stillhouse.runner.roll import Roll
from stillhouse.runner.shares import pack_share
from stillhouse.runtime.gaps import Gaps
from stillhouse.runtime.local.crew import Came, Crew, Gone, Said
from stillhouse.students.group import share_of

RESTARTS_MAX = 3
"""Restarts without a new checkpoint before the run gives up."""

SILENT_S = 60.0
"""Students that are silent for so long in the middle of a step, and for much longer than ever before, are ended."""

_FIRST_STEPS, _FIRST_S = 2, 900.0
EVENTS: dict[str, type[Any]] = {each.__name__: each for each in (Evaluated, PhaseStarted, Progress)}
"""What whoever trains for the run tells that the run tells, too."""

_STEPS_AHEAD = 2
_WORDS_S = 1.0


class Gathered(NamedTuple):
    """Students that were started.

    Attributes:
        names: of the students, the first one first.
        meeting: where they find one another, plain JSON.
    """

    crew: Crew
    names: Sequence[str]
    meeting: Any


Gather = Callable[[int], Gathered]
"""Starts so many students, or fewer, at least the recipe's fewest."""


def train_together(course: Course, gather: Gather) -> bytes:
    """Train to the end, however many students die on the way; the weights, a canonical safetensors file.

    Raises:
        Interrupted: a signal came; a checkpoint was written.
        FleetError: students died again and again without getting further.
        StillhouseError: what any student's training raised.
    """
    least, most = course.recipe.fleet.students_range
    wanted, futile, unsaid = most, 0, Counter[str]()
    while True:
        state = course.checkpoints.load()
        begun = state["step"] if state else 0
        try:
            return _Attempt(course, gather(wanted), state, unsaid).run()
        except _LostError as lost:
            newest = course.checkpoints.newest()
            further = newest is not None and int(newest.stem.removeprefix("step-")) > begun
            futile = 0 if further else futile + 1
            wanted = most if further else max(wanted - 1, least)
            course.emit(GroupChanged(course.phase, "lost", lost.students, lost.step, lost.why))
            if futile > RESTARTS_MAX:
                raise FleetError(
                    f"{course.phase}: the students died {futile} times without getting any further, at last: "
                    f"{lost.why}; mend that, or say fleet.students: 1, and go on with 'stillhouse resume'"
                ) from None


class _LostError(Exception):
    """A student is gone, and with it the group."""

    def __init__(self, why: str, students: int, step: int) -> None:
        super().__init__(why)
        self.why, self.students, self.step = why, students, step


class _Attempt:
    """From a checkpoint to the end, or to a death.

    Args:
        unsaid: what was counted of no batch, and not told yet.
    """

    def __init__(self, course: Course, gathered: Gathered, state: dict[str, Any] | None, unsaid: Counter[str]) -> None:
        self._course, self._state, self._counted = course, state, Counted(course.source, unsaid)
        self._first_step = state["step"] if state else 0
        self._crew, self._names, self._meeting = gathered
        self._size = len(self._names)
        self._sent: deque[tuple[int, int]] = deque()
        self._took = dict.fromkeys(self._names, self._first_step - 1)
        self._in = dict[str, tuple[str, int]]()
        self._roll = Roll(course.phase, self._samples(), self._first_step)
        self._reads = dict[str, str]()
        self._weights: bytes | None = None
        self._patience = Patience()
        self._ended = set[str]()
        self._stopping = False
        self._network = copy.deepcopy(course.network).to(course.device)

    def run(self) -> bytes:
        """The weights."""
        course = self._course
        try:
            self._wait_for_all(self._in)
            members = tuple(self._in[name] for name in self._names)
            course.emit(GroupChanged(course.phase, "started", self._size, self._first_step, "", members))
            self._wait_for_all(self._reads)
            unseen = "sent" not in self._reads.values()
            batches = course.stream.batches(self._first_step, course.steps, unseen=unseen)
            made = ahead(batches, course.ahead_max_bytes)
            course.source.waits()
            self._counted.begin_anew()
            answers = course.source.teach(made)
            with contextlib.closing(made), contextlib.closing(answers):  # type: ignore[type-var]
                self._feed(answers)
        finally:
            self._crew.close()
        assert self._weights is not None
        return self._weights

    def _samples(self) -> dict[str, int]:
        """Of each step that each student takes."""
        count, size = self._course.settings.accumulate, self._course.settings.batch_size
        return {name: len(share_of(at, self._size, count)) * size // count for at, name in enumerate(self._names)}

    def _wait_for_all(self, said: Mapping[str, object]) -> None:
        """Until every student has said something."""
        while len(said) < self._size:
            self._hear(1.0)
            if (signal := self._course.interrupted()) is not None:
                raise Interrupted(f"stopped while the students of {self._course.phase} were starting", signal)

    def _feed(self, answers: Iterator[tuple[Batch, Knowledge]]) -> None:
        number, last = self._first_step, self._course.steps
        while len(self._ended) < self._size:
            room = self._has_room(number) and number < last
            self._hear(0.0 if room else 1.0)
            if self._sent and self._patience.is_over(min(self._took.values()) - self._first_step):
                raise self._lost("the students fell silent in the middle of a step")
            if not self._stopping and (signal := self._course.interrupted()) is not None:
                self._stopping = True
                for name in self._names:
                    self._crew.send(name, {"do": "stop", "signal": signal})
            if room:
                try:
                    batch, knowledge = next(answers)
                except Interrupted as stop:
                    self._pause(stop.exit_code - 128)
                    last = number
                    continue
                knowledge.check_aligned(batch)
                if not self._ended:
                    self._counted.note(number)
                self._hand_out(number, batch, knowledge)
                self._patience.heard()  # who had nothing to do is not silent
                number += 1

    def _pause(self, signal: int) -> None:
        """Have the students stop where their shares end: no more will come."""
        self._stopping = True
        for name in self._names:
            self._crew.send(name, {"do": "pause", "signal": signal})

    def _has_room(self, number: int) -> bool:
        """Whether the students may be given one more step's shares."""
        slowest = min(self._took.values())
        while self._sent and self._sent[0][0] <= slowest:
            self._sent.popleft()
        held = sum(size for _, size in self._sent)
        return number - slowest <= _STEPS_AHEAD or held < self._course.ahead_max_bytes

    def _hand_out(self, number: int, batch: Batch, knowledge: Knowledge) -> None:
        count = self._course.settings.accumulate
        size, total = len(batch) // count, 0
        for rank, name in enumerate(self._names):
            share = share_of(rank, self._size, count)
            forms, body = pack_share(
                batch, knowledge, share.start * size, share.stop * size, pixels=self._reads[name] == "sent"
            )
            self._crew.send(name, {"do": "share", "job": 0, "number": number, "forms": forms}, body)
            total += len(body)
        self._sent.append((number, total))

    def _hear(self, timeout_s: float) -> None:
        heard = self._crew.poll(timeout_s)
        for news in heard:
            if isinstance(news, Gone):
                if self._names[0] not in self._ended:
                    raise self._lost(self._story(news))
                self._ended.add(news.name)
            elif isinstance(news, Came):
                self._in[news.name] = str(news.hello.get("host")), int(news.hello.get("pid") or 0)
                self._roll.came(news.name, *self._in[news.name])
                rank = self._names.index(news.name)
                show(self._crew, news.name, self._course.sight)
                group = {"rank": rank, "size": self._size, "meeting": self._meeting}
                hand_over(self._crew, news.name, self._course, self._state, **group)
            else:
                self._understand(news)
                self._patience.heard()
        measured = self._roll.news()
        if measured is not None:
            self._course.emit(measured)
        if (measured is not None or not heard) and not self._ended:
            self._counted.note()  # who answers tells of itself then, too

    def _understand(self, news: Said) -> None:
        course, header = self._course, news.header
        match header["do"]:
            case "sees":
                self._reads[news.name] = str(header["reads"])
            case "took":
                self._took[news.name] = int(header["number"])
                self._roll.took(news.name, self._took[news.name], float(header["waited_s"]))
            case "event" if header.get("event") in EVENTS:
                self._tell(EVENTS[header["event"]](**header["values"]))
            case "checkpoint":
                course.checkpoints.write(int(header["step"]), news.body)
            case "evaluate":
                load_into(self._network, safetensors.torch.load(bytes(news.body)), "the student's weights")
                found = course.validate(self._network)
                self._crew.send(news.name, {"do": "evaluated", "loss": found.loss}, found.correct.tobytes())
            case "weights":
                self._weights = bytes(news.body) or self._weights
            case "ended":
                self._crew.send(news.name, {"do": "dismiss"})
                self._end(news.name, header)
            case said:
                raise FleetError(f"student {news.name} says '{said}', which this run does not know")

    def _end(self, name: str, header: Mapping[str, Any]) -> None:
        how, why = header["how"], str(header["why"]) if "why" in header else ""
        if how == "done":
            self._ended.add(name)
            self._roll.ended(name)
        elif how == "Interrupted":
            if name == self._names[0]:  # whose checkpoint came before
                for each in self._names[1:]:  # they end after the same step
                    self._crew.send(each, {"do": "dismiss"})
                raise Interrupted(why, int(header["signal"]))
        else:
            kind = getattr(errors, how, None)
            if isinstance(kind, type) and issubclass(kind, StillhouseError):
                raise kind(why)
            raise StillhouseError(f"{how}: {why}")

    def _tell(self, event: Event) -> None:
        """Emit what the first student told; what it waited for, only this process knows."""
        if isinstance(event, Progress):
            event = self._course.retold(event, self._counted.before(event.step))
        self._course.emit(event)

    def _lost(self, why: str) -> _LostError:
        return _LostError(why, self._size, max(*self._took.values(), self._first_step))

    def _story(self, first: Gone) -> str:
        """Who is gone, and why: of several that went together the one that was killed, or else the first."""
        found, until_s = [first], time.monotonic() + _WORDS_S
        while time.monotonic() < until_s and len(found) < self._size:
            found += [each for each in self._crew.poll(0.1) if isinstance(each, Gone)]
        killed = [each for each in found if each.why.startswith("killed")]
        chosen = (killed or found)[0]
        return f"student {self._names.index(chosen.name) + 1} of {self._size}: {chosen.why}"


class Patience:
    """How long students that have something to do may say nothing; a process that was stopped is never reported."""

    def __init__(self) -> None:
        self._last_s, self._longest_s = time.monotonic(), 0.0
        self._gaps = Gaps(time.monotonic)

    def heard(self) -> None:
        """Somebody said something."""
        now_s = time.monotonic()
        self._longest_s, self._last_s = max(self._longest_s, now_s - self._last_s), now_s

    def is_over(self, steps: int) -> bool:
        """Whether it is; in the first ``steps`` something may have to be compiled."""
        if steps <= _FIRST_STEPS:
            self._longest_s, limit_s = 0.0, _FIRST_S
        else:
            limit_s = max(SILENT_S, 20 * self._longest_s)
        now_s = time.monotonic()
        # What they said while nobody listened (Ctrl-Z) is still to be heard.
        self._last_s = min(self._last_s + self._gaps.missed_s(now_s), now_s)
        return now_s - self._last_s > limit_s
