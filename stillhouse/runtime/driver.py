"""Carries out what the dispatcher and the scaling policy decide, between students that ask and workers that answer.

One thread turns: it takes what students posted, hears the backend, hands both to the dispatcher as events, and does
what comes back. The clock is passed in and :meth:`Driver.turn` may be called by hand, so that a simulation runs this
very code. Nothing here knows what is asked or answered.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from stillhouse.runtime import work as w
from stillhouse.runtime.arrivals import Arrivals
from stillhouse.runtime.asker import Asker, Facts, Loan, Outcome, Payload, Posted, Question
from stillhouse.runtime.backend import Answer, Backend, Failure, Hello, Leaving, Left, Report, Skip
from stillhouse.runtime.dispatch.dispatcher import Dispatcher
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.dispatch.status import Status
from stillhouse.runtime.gaps import Gaps
from stillhouse.runtime.gauge import Gauge
from stillhouse.runtime.parcels import Parcels, Pool
from stillhouse.runtime.scaling.memory import Memory
from stillhouse.runtime.scaling.policy import Grow, Policy, RunInline, Shrink, StopInline
from stillhouse.runtime.scaling.view import FleetView

LOOK_S = 0.5
_TURN_S = 1.0
_PACES_S = (1e-9, 3600.0)
_PACKERS_MAX = 4
_WAY_BYTES_S = 1e7  # a hundred megabits: what is slower looks hung


class Notice(NamedTuple):
    """Something that happened to the fleet.

    Attributes:
        kind: ``joined``, ``refused``, ``leaving``, ``left``, ``suspect``, ``trusted``, ``scaled``.
        worker: its name; "" where it is about the fleet.
        text: for a person.
        facts: what a worker that joined told of itself.
        at_s: when, on the driver's clock.
    """

    kind: str
    worker: str
    text: str
    facts: Facts
    at_s: float


class Driver:
    """Joins students, dispatcher, scaling policy and backend.

    Attributes:
        status: the dispatcher's, as of the last look, twice a second; None before the first question.
        view: what the policy saw in that look.
        inline: whether a student that waits shall answer itself.

    Args:
        gate: a worker's facts, and its proof -> why it is turned away, or None.
        packs: a worker's facts -> whether what is sent to it takes long to pack. What is packed for one such worker
            is sent to others as well.
        policy: how many workers there shall be.
        pool: where that is packed; None: a few threads of its own.
        inline_pace_s: seconds a unit of a student that answers itself; None: not known, or it can't.
    """

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        policy: Policy,
        gate: Callable[[Facts, bytes | bytearray], str | None],
        inline_pace_s: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        packs: Callable[[Facts], bool] = lambda facts: False,
        pool: Pool | None = None,
    ) -> None:
        self._backend, self._settings, self._policy, self._gate = backend, settings, policy, gate
        self._inline_pace_s, self._clock, self._packs = inline_pace_s, clock, packs
        self._threads = ThreadPoolExecutor(min(os.cpu_count() or 1, _PACKERS_MAX), "packing")
        self._parcels = Parcels(pool or self._threads, backend.wake)
        self._dispatcher = Dispatcher(settings)
        self._gauge = Gauge()
        self._gaps = Gaps(clock)
        self._memory = Memory()
        self._posted: deque[Posted] = deque()
        self._notices: deque[Notice] = deque()
        self._askers: dict[str, Asker] = {}
        self._questions: dict[tuple[str, int], Question] = {}
        self._kept: dict[tuple[str, int], Payload] = {}
        self._facts: dict[str, Facts] = {}
        self._arrivals = Arrivals(backend, clock, settings.suspect_patience_s)
        self._helpers: dict[str, Asker] = {}
        self._asked = self._listens = False
        self._look_at_s = float("-inf")
        self._failure: BaseException | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.inline = False
        self.status: Status | None = None
        self.view: FleetView | None = None

    # For students and whoever watches, from any thread.

    def asker(self, name: str) -> Asker:
        """A student's way to ask; each name once."""
        asker = Asker(name, self._settings.window_bytes, self._post, self._clock, partial(self._kept_for, name))
        assert name not in self._askers
        self._askers[name] = asker
        if self._failure is not None:
            asker.fail(self._failure)
        return asker

    def _kept_for(self, name: str) -> dict[int, Payload]:
        kept = self._kept.copy()  # at once, under its writer's hands
        return {number: payload for (consumer, number), payload in kept.items() if consumer == name}

    def notices(self) -> list[Notice]:
        """What happened since the last call."""
        found = []
        while self._notices:
            found.append(self._notices.popleft())
        return found

    @property
    def workers_left(self) -> int:
        """Workers that are ready, or load and may become so. Until the first look at what is needed, one may."""
        return len(self._facts) + (self._arrivals.hope if self.status is not None else 1)

    @property
    def workers_unplaced(self) -> int:
        """Workers that were started and have no machine yet: they wait for one as long as the run does."""
        return list(self._arrivals.started().values()).count(False)

    @property
    def failed_starts(self) -> list[str]:
        """Why workers that were started never got in, since one did."""
        return self._arrivals.failed

    @property
    def workers_ready(self) -> int:
        """Workers that were let in and are not gone."""
        return len(self._facts)

    def start(self) -> None:
        """Turn in a thread of its own from now on."""
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all workers, and the thread. Idempotent."""
        self._closing.set()
        self._backend.wake()
        if self._thread is not None:
            self._thread.join()
        else:
            self._backend.close()
        self._threads.shutdown(cancel_futures=True)

    def _post(self, posted: Posted) -> None:
        self._posted.append(posted)
        if self._listens:
            self._listens = False  # one is enough
            self._backend.wake()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self.turn(_TURN_S)
        except BaseException as error:  # students must not wait for ever for a thread that is gone
            self._failure = error
            for asker in list(self._askers.values()):
                asker.fail(error)
        finally:
            self._backend.close()
            self.status = self._dispatcher.status(self._clock())

    # The thread's own.

    def turn(self, timeout_s: float) -> None:
        """Do all there is to do, waiting for something to do for so long at most."""
        while self._posted:
            self._accept(self._posted.popleft())
        if (parcel := self._parcels.pop()) is not None:
            self._backend.send(*parcel)
            self._handle(w.Sent(parcel.worker, parcel.lease, len(parcel.content) / _WAY_BYTES_S))
            timeout_s = 0.0
        due_s = self._dispatcher.wake_at()
        until_s = min(self._look_at_s if self._asked else float("inf"), float("inf") if due_s is None else due_s)
        self._listens = True  # who posts from here on wakes it; who did before is seen here
        reports = self._backend.poll(0.0 if self._posted else min(max(until_s - self._clock(), 0.0), timeout_s))
        self._listens = False
        for report in reports:
            self._hear(report)
        now_s = self._clock()
        if missed_s := self._gaps.missed_s(now_s):
            self._arrivals.extend(missed_s)
            return  # what came meanwhile is heard first
        due_s = self._dispatcher.wake_at()
        if due_s is not None and due_s <= now_s:
            self._handle(w.Tick())
        if self._asked and now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_S
            self._arrivals.look(now_s)
            self._scale(now_s)

    def _accept(self, posted: Posted) -> None:
        match posted.event:
            case w.Submitted(item):
                assert posted.question is not None
                self._questions[item.consumer, item.number] = posted.question
                self._asked = True
            case w.Joined(worker):
                self._helpers[worker] = self._askers[worker.rpartition("#")[0]]
            case w.Closed(consumer):
                for key in [key for key in self._questions if key[0] == consumer]:
                    self._parcels.forget(key)
                    del self._questions[key]
                    self._kept.pop(key, None)
                self._askers.pop(consumer, None)
        self._handle(posted.event, posted.payload)

    def _hear(self, report: Report) -> None:
        match report:
            case Hello(worker) as hello:
                if not self._arrivals.is_unwanted(worker):
                    self._let_in(hello)
            case Answer(worker, lease, payload, spent_s):
                question = self._questions.get((lease.consumer, lease.number))
                if question is not None and (why := question.wrong(payload)):
                    self._handle(w.Failed(worker, lease, why))
                else:
                    self._handle(w.Answered(worker, lease, spent_s), payload)
            case Failure(worker, lease, why):
                self._handle(w.Failed(worker, lease, why))
            case Skip(worker, lease):
                self._handle(w.Skipped(worker, lease))
            case Leaving(worker, why):
                self._note("leaving", worker, why)
                self._handle(w.Draining(worker, why))
            case Left(worker, why, refused):
                if refused:
                    self._note("refused", worker, why)
                self._note("left", worker, why)
                self._arrivals.left(worker, why)
                self._parcels.forget_worker(worker)
                if self._facts.pop(worker, None) is not None:
                    self._handle(w.Gone(worker, why))

    def _let_in(self, hello: Hello) -> None:
        worker, facts, slots, proof = hello
        refusal = self._gate(facts, proof)
        if refusal is not None:
            self._note("refused", worker, refusal, facts)
            self._arrivals.refuse(worker, refusal)
            return
        if (load_s := self._arrivals.let_in(worker)) is not None:
            self._gauge.started(load_s)
        self._facts[worker] = facts
        self._note("joined", worker, "", facts)
        self._handle(w.Joined(worker, _pace_s(facts), slots, packed=self._packs(facts)))

    def _handle(self, event: w.Event, payload: Payload | None = None) -> None:
        """Tell the dispatcher, and do all that it says before it hears what follows from that."""
        events = deque([event])
        while events:
            for command in self._dispatcher.handle(events.popleft(), self._clock()):
                if (follows := self._do(command, payload)) is not None:
                    events.append(follows)

    def _do(self, command: w.Command, payload: Payload | None) -> w.Event | None:
        match command:
            case w.Send(worker, lease, _):
                self._send(worker, lease)
            case w.Revoke(worker, lease):
                if self._parcels.withdraw(worker, lease):
                    return w.Skipped(worker, lease)
                if worker not in self._helpers:
                    self._backend.revoke(worker, lease)
            case w.Keep(_, lease):
                assert payload is not None
                self._kept[lease.consumer, lease.number] = payload
                self._parcels.forget((lease.consumer, lease.number))
            case w.Drop():
                pass
            case w.Deliver(consumer, number):
                del self._questions[consumer, number]
                self._askers[consumer].deliver(Outcome(number, self._kept.pop((consumer, number))))
            case w.GiveUp(consumer, number, story):
                self._parcels.forget((consumer, number))
                del self._questions[consumer, number]
                self._askers[consumer].deliver(Outcome(number, None, story))
            case w.Suspect(worker, why):
                self._note("suspect", worker, why)
            case w.Trust(worker):
                self._note("trusted", worker, "it answered after all")
            case w.Dismiss(worker, why, kill):
                if (helper := self._helpers.pop(worker, None)) is None:
                    self._backend.dismiss(worker, why, kill=kill)
                else:
                    helper.let_go(worker)
                    return w.Gone(worker, why)
        return None

    def _send(self, worker: str, lease: w.Lease) -> None:
        question = self._questions[lease.consumer, lease.number]
        if (helper := self._helpers.get(worker)) is not None:
            helper.lend(Loan(worker, lease, question))
        elif self._packs(self._facts[worker]):
            self._parcels.add(worker, lease, partial(question.pack, self._facts[worker]))
        else:
            self._backend.send(worker, lease, question.pack(self._facts[worker]))

    def _scale(self, now_s: float) -> None:
        status = self._dispatcher.status(now_s)
        askers, pace_s = list(self._askers.values()), self._inline_pace_s()
        self.view = view = self._gauge.view(status, self._arrivals.started(), self._facts, askers, pace_s)
        decision, self._memory = self._policy.decide(view, self._memory, now_s)
        match decision:
            case Grow(count, why):
                self._start(count, why)
                self._arrivals.see_places(now_s)
            case Shrink(worker, why):
                self._note("scaled", worker, why)
                if worker in self._facts:
                    self._handle(w.Draining(worker, why))
                else:
                    self._arrivals.send_away(worker, why, kill=True)
            case RunInline(why) | StopInline(why):
                self.inline = isinstance(decision, RunInline)
                self._note(
                    "scaled", "", f"waiting students {'answer' if self.inline else 'leave it to the fleet'}: {why}"
                )
        self.status = status  # last: a student that sees it sees also what was started

    def _start(self, count: int, why: str) -> None:
        """Start some more. Where the machine can't hold one more process, those that there are go on."""
        begun, failure = self._arrivals.start(count)
        if failure:
            self._note("scaled", "", f"no worker can be started: {failure}")
        if begun:
            self._note("scaled", "", f"{begun} started: {why}")

    def _note(self, kind: str, worker: str, text: str, facts: Facts | None = None) -> None:
        self._notices.append(Notice(kind, worker, text, facts or {}, self._clock()))


def _pace_s(facts: Facts) -> float | None:
    """What a worker says of its pace, where that can be one: leases follow from it."""
    match facts.get("pace_s"):
        case float() | int() as said if type(said) is not bool and _PACES_S[0] <= said <= _PACES_S[1]:
            return float(said)
    return None
