"""A fleet of teachers as the source behind a store: keys go out ahead of the student, rows come back in order.

Questions are groups of the engine's size, filled with views of consecutive batches: a half-filled group costs a teacher
as much as a full one. While the head of the line is not answered the student waits, or answers a question itself where
that is faster. Pixels of batches in line are held up to a bound; of answers, the asker keeps its window.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import FleetError
from stillhouse.knowledge.source import EncodedRows, Held
from stillhouse.runtime.asker import Asker, Facts, Loan, Outcome, Payload, Question
from stillhouse.teachers.messages import pack

_LINE_MAX = 64
_LINE_LEAST = 2
_PULLS_MAX = 2
_LOOK_S = 0.25
_NAMED_MAX = 5


class NoTeacher(Exception):
    """Nobody is left who could answer: the student goes on without."""


@dataclass(frozen=True)
class Fleet:
    """What a student's conversation with the fleet needs.

    Attributes:
        asker: makes a student's way to the fleet; called when there is something to ask, closed at the end.
        answer: this process's own teacher, for questions that it answers itself: a batch -> rows; None: it can't, and
            others can.
        helps: whether a waiting student is to answer itself now; looked at while it waits; raises
            :class:`NoTeacher` to let it go on without answers, anything else to end it.
        teachers: whether somebody may answer again, after NoTeacher.
        tell: called now and then, for whoever tells how the fleet goes.
        group: views of a full question.
        row_bytes: of the answer about a view.
        line_bytes: of pixels in line, those included that are not asked about; at least two batches.
    """

    asker: Callable[[], Asker]
    answer: Callable[[Batch], EncodedRows | None]
    helps: Callable[[], bool]
    teachers: Callable[[], bool]
    tell: Callable[[], None]
    group: int
    row_bytes: int
    line_bytes: int


class FleetRows:
    """Rows from a fleet, for one student."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._waited_s = 0.0
        self._views_s: deque[float] = deque(maxlen=9)

    @property
    def view_s(self) -> float | None:
        """Median over the last few batches that were asked about: seconds of waiting for each view."""
        return statistics.median(self._views_s) if self._views_s else None

    def waits(self) -> dict[str, float]:
        """Seconds that the student waited for the answer it needed next, or made it itself."""
        waited, self._waited_s = self._waited_s, 0.0
        return {"teacher": waited}

    def counts(self) -> dict[str, int]:
        """Nothing: what happens to a fleet is told by itself, and is not lost with steps that are repeated."""
        self._fleet.tell()
        return {}

    def rows(self, batches: Iterable[Batch], held: Held | None = None) -> Iterator[tuple[Batch, EncodedRows | None]]:
        """Ask ahead; yield every batch with its rows, in order; without, while no teacher is left and none came."""
        left = iter(batches)
        while True:
            line = _Line(self._fleet, held)
            try:
                yield from self._served(line, left)
                return
            except NoTeacher:
                yield from line.end()
            finally:
                line.close()
            while not self._fleet.teachers():
                if (alone := next(left, None)) is None:
                    return
                yield alone, None

    def _served(self, line: _Line, batches: Iterator[Batch]) -> Iterator[tuple[Batch, EncodedRows]]:
        pulls, more = 0, True
        while True:
            while not line.head_is_answered() and line.hear(0.0):
                pass
            answered, room = line.head_is_answered(), more and line.has_room()
            if answered and (pulls or not room):
                pulls = 0
                yield line.pop()
            elif room and (pulls < _PULLS_MAX or not answered):
                batch = next(batches, None)
                more, pulls = batch is not None, pulls + 1
                if batch is not None:
                    line.add(batch)
            elif line.is_empty():
                return
            else:
                self._wait(line)

    def _wait(self, line: _Line) -> None:
        """Until the head of the line has come nearer."""
        begun = time.perf_counter()
        line.flush()
        try:
            while not line.hear(_LOOK_S, self._fleet.helps()):
                pass
        finally:
            spent = time.perf_counter() - begun
            self._waited_s += spent
        self._views_s.append(spent / self._fleet.group)


@dataclass
class _Waiting:
    """A batch in line: of its views ``asked`` are in questions, ``told`` are answered."""

    batch: Batch
    asked: int = 0
    told: int = 0
    pieces: list[EncodedRows] = field(default_factory=list)


@dataclass(frozen=True)
class _Asked:
    """A question under way: its views, and how many of them are whose."""

    batch: Batch
    owners: tuple[tuple[_Waiting, int], ...]


class _Line:
    """Batches in the student's order, and the questions about them that are under way."""

    def __init__(self, fleet: Fleet, held: Held | None) -> None:
        self._fleet = fleet
        self._held = held or self._batches
        self._asker: Asker | None = None
        self._waiting: deque[_Waiting] = deque()
        self._under_way: dict[int, _Asked] = {}
        self._gathered = self._views_max = 0

    def is_empty(self) -> bool:
        """Whether no batch is left."""
        return not self._waiting

    def has_room(self) -> bool:
        """Whether one more batch may come into line."""
        if len(self._waiting) < _LINE_LEAST:
            return True
        if len(self._waiting) >= _LINE_MAX or not self._fits(self._fleet.group):
            return False
        held = [each.nbytes for each in self._held()]
        return sum(held) + held[-1] <= self._fleet.line_bytes

    def head_is_answered(self) -> bool:
        """Whether the first batch can go."""
        return bool(self._waiting) and self._waiting[0].told == len(self._waiting[0].batch)

    def add(self, batch: Batch) -> None:
        """A batch more, asked about in full groups."""
        self._waiting.append(_Waiting(batch))
        self._gathered += len(batch)
        whole = self._held()[-1]
        fitting = max(min(_LINE_MAX, self._fleet.line_bytes // max(whole.nbytes, 1)), _LINE_LEAST)
        self._views_max = max(self._views_max, fitting * len(whole))
        while self._gathered >= self._fleet.group and self._ask(self._fleet.group):
            pass

    def flush(self) -> None:
        """Ask what is gathered, though it fills no group, if the head of the line waits for nothing else."""
        while self._gathered and self._waiting[0].asked < len(self._waiting[0].batch):
            if not self._ask(min(self._gathered, self._fleet.group)):
                return

    def pop(self) -> tuple[Batch, EncodedRows]:
        """The first batch with its rows."""
        done = self._waiting.popleft()
        return done.batch, self._rows_of(done)

    def end(self) -> list[tuple[Batch, EncodedRows | None]]:
        """Ask no more; the batches in line, with the rows of those whose answers have all come, in turn or not."""
        if self._asker is not None:
            for number, payload in self._asker.at_hand().items():
                self._put(self._under_way.pop(number), payload)
        self.close()
        return [(each.batch, self._rows_of(each) if each.told == len(each.batch) else None) for each in self._waiting]

    def _rows_of(self, done: _Waiting) -> EncodedRows:
        empty = np.empty((0, self._fleet.row_bytes), np.uint8)
        return done.pieces[0] if len(done.pieces) == 1 else np.concatenate([empty, *done.pieces])

    def hear(self, timeout_s: float, helps: bool = False) -> bool:
        """Take the next answer, or make one; false if there was none in time.

        Raises:
            FleetError: a question failed for good, with its story.
        """
        if self._asker is None:
            return False
        found = self._asker.take(timeout_s, helps)
        if isinstance(found, Loan):
            self._asker.settle(found, found.question.answer())
        if not isinstance(found, Outcome):
            return False
        asked = self._under_way.pop(found.number)
        if found.payload is None:
            raise FleetError(_story(asked, found))
        self._put(asked, found.payload)
        return True

    def _put(self, asked: _Asked, payload: Payload) -> None:
        """Hand an answer's rows to the batches that they are about."""
        rows = np.frombuffer(payload, np.uint8).reshape(len(asked.batch), self._fleet.row_bytes)
        start = 0
        for owner, count in asked.owners:
            owner.pieces.append(rows[start : start + count])
            owner.told += count
            start += count

    def close(self) -> None:
        """Ask no more. Idempotent."""
        if self._asker is not None:
            self._asker.close()
            self._asker = None

    def _fits(self, count: int) -> bool:
        return self._asker is None or self._asker.fits(count * self._fleet.row_bytes)

    def _ask(self, count: int) -> bool:
        """Ask about the next ``count`` views; false if the window is full."""
        if not self._fits(count):
            return False
        parts, owners, left = [], [], count
        for each in self._waiting:
            stop = min(each.asked + left, len(each.batch))
            if stop > each.asked:
                parts.append(each.batch.part(each.asked, stop))
                owners.append((each, stop - each.asked))
                left -= stop - each.asked
                each.asked = stop
            if not left:
                break
        batch = parts[0] if len(parts) == 1 else Batch.join(parts)
        if self._asker is None:
            self._asker = self._fleet.asker()
        answer = partial(self._answered, batch)
        nbytes = count * self._fleet.row_bytes

        def wrong(payload: Payload) -> str:
            return "" if len(payload) == nbytes else f"an answer of {len(payload)} bytes, not {nbytes}"

        number = self._asker.ask(Question(count, nbytes, _packer(batch), answer, wrong, self._views_max))
        self._under_way[number] = _Asked(batch, tuple(owners))
        self._gathered -= count
        return True

    def _batches(self) -> list[Batch]:
        return [each.batch for each in self._waiting]

    def _answered(self, batch: Batch) -> memoryview | None:
        rows = self._fleet.answer(batch)
        return None if rows is None else rows.reshape(-1).data


def needs_pixels(facts: Facts) -> bool:
    """Whether a worker with these facts can't make the views itself."""
    return facts.get("reads") == "sent"


def _packer(batch: Batch) -> Callable[[Facts], bytes]:
    def packed(facts: Facts) -> bytes:
        return pack(batch.sample_ids, batch.views, batch.inputs if needs_pixels(facts) else None)

    return packed


def _story(asked: _Asked, outcome: Outcome) -> str:
    keys = zip(asked.batch.sample_ids[:_NAMED_MAX].tolist(), asked.batch.views.tolist(), strict=False)
    named = ", ".join(f"sample {sample_id}, view {view}" for sample_id, view in keys)
    more = f" and {len(asked.batch) - _NAMED_MAX} more" if len(asked.batch) > _NAMED_MAX else ""
    tries = "\n".join(f"  {each.worker}: {each.why}" for each in outcome.story)
    return f"no teacher could answer about {named}{more}; it was tried {len(outcome.story)} times:\n{tries}"
