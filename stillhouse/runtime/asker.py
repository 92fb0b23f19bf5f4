"""A student's end of the fleet: it asks ahead within its window, and takes answers in the order it asked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from stillhouse.runtime import work as w
from stillhouse.runtime.steps import Steps

Payload = bytes | bytearray | memoryview
Facts = Mapping[str, Any]


class Question(NamedTuple):
    """What a student asks.

    Attributes:
        size: units of work, e.g. views.
        nbytes: memory that it takes until its answer is taken.
        pack: a worker's facts -> what is sent to it.
        answer: makes the answer in the calling thread, for a waiting student that does what a worker would; None: it
            can't after all.
        wrong: a worker's answer -> why it can't be one, "" if it can.
        most: units that the student ever has open, where something else than its window bounds them.
    """

    size: int
    nbytes: int
    pack: Callable[[Facts], bytes]
    answer: Callable[[], Payload | None]
    wrong: Callable[[Payload], str]
    most: int | None = None


class Outcome(NamedTuple):
    """The answer to a student's next question or, where ``payload`` is None, the story of why there is none."""

    number: int
    payload: Payload | None
    story: tuple[w.Attempt, ...] = ()


class Loan(NamedTuple):
    """A question, its own or another student's, that a waiting student is to answer: see :meth:`Asker.settle`."""

    worker: str
    lease: w.Lease
    question: Question


class Posted(NamedTuple):
    """Something for the driver: an event, and what goes with it."""

    event: w.Event
    question: Question | None = None
    payload: Payload | None = None


class Record(NamedTuple):
    """What a student did so far.

    Attributes:
        units: taken.
        waited_s: seconds without the answer it needed next, also those in which it answered itself.
        waiting: whether it waits now.
        window_units: the most that it may have open, as far as its questions have shown.
        paused_s: seconds in which it neither waited nor took its usual steps.
        asks: whether it has questions open.
    """

    units: int
    waited_s: float
    waiting: bool
    window_units: int
    paused_s: float = 0.0
    asks: bool = True


class Asker:
    """Numbers a student's questions and keeps its window.

    Args:
        name: unique in the fleet.
        window_bytes: the most memory of questions that are open, unless it is one alone.
        post: hands something to the driver, from any thread.
        clock: seconds, that of the driver.
        kept: answers to its questions, by number, that came out of turn.
    """

    def __init__(
        self,
        name: str,
        window_bytes: int,
        post: Callable[[Posted], None],
        clock: Callable[[], float],
        kept: Callable[[], Mapping[int, Payload]],
    ) -> None:
        self.name = name
        self._window_bytes, self._post, self._clock, self._kept = window_bytes, post, clock, kept
        self._came = threading.Condition()
        self._delivered: deque[Outcome] = deque()
        self._loan: Loan | None = None
        self._lent: Loan | None = None
        self._open: deque[Question] = deque()
        self._open_bytes = self._asked = self._units = self._helped = self._window_units = 0
        self._waited_s = 0.0
        self._waits_since_s: float | None = None
        self._steps, self._step_since_s, self._step_waited_s = Steps(), clock(), 0.0
        self._helper: str | None = None
        self._failure: BaseException | None = None

    @property
    def open(self) -> int:
        """Questions asked and not yet taken."""
        return len(self._open)

    def fits(self, nbytes: int) -> bool:
        """Whether a question of that size may be asked now."""
        return not self._open or self._open_bytes + nbytes <= self._window_bytes

    def ask(self, question: Question) -> int:
        """Ask; the question's number: 0, 1, 2, ..."""
        assert self.fits(question.nbytes), "a student asks within its window"
        number, self._asked = self._asked, self._asked + 1
        self._open.append(question)
        self._open_bytes += question.nbytes
        fitting = self._window_bytes * question.size // question.nbytes
        self._window_units = max(fitting if question.most is None else min(fitting, question.most), question.size)
        self._post(Posted(w.Submitted(w.Item(self.name, number, question.size, question.nbytes)), question))
        return number

    def take(self, timeout_s: float, helps: bool = False) -> Outcome | Loan | None:
        """The next answer; None if none came in time.

        Args:
            timeout_s: of real time, whatever the driver's clock.
            helps: whether the student may be lent a question, to answer it itself.

        Raises:
            BaseException: whatever ended the driver.
        """
        with self._came:
            if not self._ready() and helps and self._helper is None:
                self._helped += 1
                self._helper = f"{self.name}#{self._helped}"
                self._post(Posted(w.Joined(self._helper, None, 1, sure=True)))
            if not self._delivered and timeout_s > 0 and self._waits_since_s is None:
                self._waits_since_s = self._clock()
            self._came.wait_for(self._ready, timeout_s)
            if self._failure is not None:
                raise self._failure
            if self._delivered:
                return self._taken(self._delivered.popleft())
            self._lent, self._loan = self._loan, None
            return self._lent

    def at_hand(self) -> dict[int, Payload]:
        """Answers that are there, by number in their order, though others before them are not; they stay."""
        found = dict(self._kept())
        with self._came:
            found |= {each.number: each.payload for each in self._delivered if each.payload is not None}
        return dict(sorted(found.items()))

    def _taken(self, outcome: Outcome) -> Outcome:
        question = self._open.popleft()
        self._open_bytes -= question.nbytes
        self._units += question.size
        self._stop_waiting()
        self._steps.took(self._own_s(0.0))
        self._step_since_s, self._step_waited_s = self._clock(), self._waited_s
        self._post(Posted(w.Taken(self.name, outcome.number)))
        self._stop_helping()
        return outcome

    def record(self) -> Record:
        """What the student did so far; from any thread."""
        with self._came:
            since_s = self._waits_since_s
            waits_s = 0.0 if since_s is None else self._clock() - since_s
            paused_s = self._steps.paused_s(self._own_s(waits_s))
            waits, asks = since_s is not None, bool(self._open)
            return Record(self._units, self._waited_s + waits_s, waits, self._window_units, paused_s, asks)

    def settle(self, loan: Loan, payload: Payload | None) -> None:
        """Answer a loan; None: give it back, and help no more until :meth:`take` is told to."""
        with self._came:
            if payload is None:
                self._stop_helping()
                return
            self._lent = None
            self._post(Posted(w.Answered(loan.worker, loan.lease), payload=payload))

    def close(self) -> None:
        """Ask no more; what is open is dropped."""
        with self._came:
            self._stop_waiting()
            self._stop_helping()
            self._post(Posted(w.Closed(self.name)))

    def _ready(self) -> bool:
        return bool(self._delivered) or self._loan is not None or self._failure is not None

    def _own_s(self, waits_s: float) -> float:
        """Seconds since the last answer in which it did not wait."""
        return self._clock() - self._step_since_s - (self._waited_s + waits_s - self._step_waited_s)

    def _stop_waiting(self) -> None:
        if self._waits_since_s is not None:
            self._waited_s += self._clock() - self._waits_since_s
            self._waits_since_s = None

    def _stop_helping(self) -> None:
        """Give back what was lent and not done, and take nothing more."""
        if self._helper is None:
            return
        self._post(Posted(w.Draining(self._helper, "the student goes on")))
        for loan in (self._lent, self._loan):
            if loan is not None:
                self._post(Posted(w.Skipped(loan.worker, loan.lease)))
        self._helper = self._lent = self._loan = None

    # What the driver calls, from its thread.

    def deliver(self, outcome: Outcome) -> None:
        """The next outcome in order."""
        with self._came:
            self._delivered.append(outcome)
            self._came.notify()

    def lend(self, loan: Loan) -> None:
        """Lend a question to the student. If it helps no more it has said so, and the loan goes back."""
        with self._came:
            if loan.worker == self._helper:
                self._loan = loan
                self._came.notify()
            else:
                self._post(Posted(w.Skipped(loan.worker, loan.lease)))

    def let_go(self, worker: str) -> None:
        """Lend it nothing more under that name. If it waits on, it offers its help under another one."""
        with self._came:
            if worker == self._helper:
                self._helper = self._lent = self._loan = None

    def fail(self, error: BaseException) -> None:
        """End the student's waiting."""
        with self._came:
            self._failure = error
            self._came.notify()
