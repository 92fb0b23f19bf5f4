"""The dispatcher: who does which item, and what follows when workers are slow, hung, dead, or come late.

A pure state machine: ``handle(event, now)`` returns commands, nothing else changes it; it does no I/O, reads no clock
and draws no random number, so a history of events replays to the same commands. An event costs O(log n) in workers
and consumers, amortised (``heaps``); ``check`` and ``status`` look at everything.

``lending`` says who gets what, ``closing`` how items end, ``settings`` how long a lease lasts and how many a worker
holds. Here is what an event means:

    Answered    first answer wins: of whatever generation, if the item is open it is kept, else dropped
    Tick        a worker that let its lease end is suspect: all that it holds is lent again, and it gets nothing
                until it reports anything; silent beyond patience it is stopped
    Gone        what it held is lent again; only the item that it worked on is blamed
    Failed      the item is blamed. Blamed twice it travels alone; blamed ``tries_max`` times it is given up
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

from stillhouse.runtime import work
from stillhouse.runtime.dispatch.closing import blame, close, reconsider, revoke
from stillhouse.runtime.dispatch.invariants import check
from stillhouse.runtime.dispatch.leases import (
    ACTIVE,
    ANSWERED,
    DISMISSED,
    DROPPED,
    LEARN,
    LEASED,
    PENDING,
    SUSPECT,
    Consumer,
    Loan,
    OpenItem,
    Worker,
)
from stillhouse.runtime.dispatch.lending import allowance, begin, feed, hedge, note_head, note_late, place, retry
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.dispatch.state import State
from stillhouse.runtime.dispatch.status import Status, status_of


class Dispatcher:
    """Leases items to workers.

    Args:
        settings: its numbers.
    """

    def __init__(self, settings: Settings) -> None:
        self._state = State(settings)
        self._on: dict[type[Any], Callable[[Any], None]] = {
            work.Submitted: self._submitted,
            work.Joined: self._joined,
            work.Sent: self._sent,
            work.Draining: self._draining,
            work.Gone: self._gone,
            work.Answered: self._answered,
            work.Failed: self._failed,
            work.Skipped: self._skipped,
            work.Taken: self._taken,
            work.Closed: self._closed,
            work.Tick: self._tick,
        }

    def handle(self, event: work.Event, now: float) -> list[work.Command]:
        """Take one event in; what is to be done, in this order.

        Reports of workers that are not known (gone, or not joined yet) change nothing; an answer among them is dropped.

        Args:
            event: what happened.
            now: seconds, never less than before.

        Raises:
            AssertionError: the caller broke a rule: time runs back, a consumer asks beyond its window, out of order or
                after it was closed, a name joins twice.
        """
        state = self._state
        assert now >= state.now, f"time runs back: {now} after {state.now}"
        state.now = now
        out: list[work.Command] = []
        state.out = out
        self._on[type(event)](event)
        hedge(state)
        return out

    def check(self) -> None:
        """Look at everything.

        Raises:
            AssertionError: names the invariant that is broken.
        """
        check(self._state)

    def wake_at(self) -> float | None:
        """When a Tick will do something, if nothing else happens before; None: never. Tidies up, decides nothing."""
        at_s = self._state.alarms.next_s()
        return None if at_s == math.inf else at_s

    def room(self, consumer: str) -> int:
        """Bytes that a consumer may still submit; without limit while it has no item open, so that any item fits."""
        known = self._state.consumers.get(consumer)
        if known is None or not known.items:
            return sys.maxsize
        return max(0, self._state.settings.window_bytes - known.open_bytes)

    def status(self, now: float) -> Status:
        """What an observer wants to know; ``now`` in seconds, not before the last event."""
        return status_of(self._state, now)

    def _submitted(self, event: work.Submitted) -> None:
        item, state = event.item, self._state
        consumer = state.consumers.get(item.consumer)
        if consumer is None:
            assert item.consumer not in state.closed, f"{item.consumer} asks, and is closed"
            consumer = state.consumers[item.consumer] = Consumer(item.consumer)
        assert item.number == consumer.submitted, f"{item} out of order: {consumer.submitted} is next"
        assert item.nbytes <= self.room(item.consumer), f"{item} is beyond the window"
        assert item.size > 0 and item.nbytes > 0, f"{item} makes no sense"
        opened = OpenItem(item, consumer, state.totals.submitted)
        state.totals.submitted += 1
        consumer.items[item.number] = opened
        consumer.submitted += 1
        consumer.open_bytes += item.nbytes
        state.free.usual_size = item.size
        place(state, opened)

    def _taken(self, event: work.Taken) -> None:
        state = self._state
        consumer = state.consumers.get(event.consumer)
        if consumer is None:
            return
        assert event.number == consumer.taken < consumer.delivered, f"{event}: {consumer.taken} is next"
        opened = consumer.items.pop(event.number)
        consumer.taken += 1
        consumer.answered -= opened.state == ANSWERED
        consumer.open_bytes -= opened.item.nbytes
        state.totals.taken += 1
        state.backlog.rank(consumer)

    def _closed(self, event: work.Closed) -> None:
        state = self._state
        state.closed.add(event.consumer)
        consumer = state.consumers.pop(event.consumer, None)
        if consumer is None:
            return
        state.backlog.forget(consumer)
        state.totals.discarded += len(consumer.items)
        for opened in consumer.items.values():
            close(state, opened, DROPPED)

    def _joined(self, event: work.Joined) -> None:
        state = self._state
        assert event.worker not in state.workers, f"{event.worker} joins twice"
        assert event.slots > 0, f"{event.worker} holds nothing"
        least_s = state.settings.round_trip_s
        worker = Worker(event, state.now, least_s)
        state.workers[event.worker] = worker
        worker.credits = state.settings.credits(worker.pace_s, state.free.usual_size, worker.slots, least_s)
        state.totals.joined += 1
        state.usable += 1
        feed(state, worker)

    def _sent(self, event: work.Sent) -> None:
        state = self._state
        worker = state.workers.get(event.worker)
        loan = worker.held.get(event.lease) if worker is not None else None
        if worker is None or loan is None:
            return
        loan.on_way = True
        loan.allowance_s += event.way_s
        if worker.first() is loan:
            begin(state, worker)
            state.alarms.put(worker)
        note_head(state, loan.open.consumer)

    def _draining(self, event: work.Draining) -> None:
        worker = self._state.workers.get(event.worker)
        if worker is None or worker.draining:
            return
        was_usable = worker.usable
        worker.draining = True
        if was_usable:
            self._leave_usable(worker)
        if worker.state is ACTIVE and not worker.held:
            self._dismiss(worker, event.why, kill=False)

    def _gone(self, event: work.Gone) -> None:
        state = self._state
        worker = state.workers.pop(event.worker, None)
        if worker is None:
            return
        state.totals.lost += not (worker.state is DISMISSED and worker.draining)
        held, blamable = list(worker.held.values()), worker.state is ACTIVE
        was_usable, worker.state, worker.alarm_s = worker.usable, DISMISSED, math.inf
        for loan in held:
            loan.live = False
            loan.open.loans.remove(loan)
        worker.held.clear()
        working_on = next((loan for loan in held if loan.open.state <= LEASED), None)
        if blamable and working_on is not None:
            blame(state, working_on, event.why)
        if was_usable:
            self._leave_usable(worker)
        for loan in held:
            reconsider(state, loan.open, lost=True)

    def _answered(self, event: work.Answered) -> None:
        state = self._state
        worker = state.workers.get(event.worker)
        loan = worker.held.get(event.lease) if worker is not None else None
        if worker is None or loan is None:
            state.totals.dropped += 1
            state.out.append(work.Drop(event.worker, event.lease))
            return
        worker.learn(loan, event.spent_s, state.now, state.settings.round_trip_s)
        assert worker.pace_s is not None
        usual_s = state.free.usual_pace_s
        state.free.usual_pace_s = usual_s + LEARN * (worker.pace_s - usual_s) if usual_s else worker.pace_s
        worker.answered += 1
        worker.units_answered += loan.open.item.size
        self._come_back(worker, loan)
        if loan.open.state <= LEASED:
            state.totals.answered += 1
            state.out.append(work.Keep(event.worker, event.lease))
            close(state, loan.open, ANSWERED)
        else:
            state.totals.dropped += 1
            state.out.append(work.Drop(event.worker, event.lease))
        self._go_on(worker)

    def _failed(self, event: work.Failed) -> None:
        worker = self._state.workers.get(event.worker)
        loan = worker.held.get(event.lease) if worker is not None else None
        if worker is None or loan is None:
            return
        self._state.totals.failed += 1
        worker.failures += 1
        self._come_back(worker, loan)
        blame(self._state, loan, event.why)
        reconsider(self._state, loan.open, lost=True)
        self._go_on(worker)

    def _skipped(self, event: work.Skipped) -> None:
        worker = self._state.workers.get(event.worker)
        loan = worker.held.get(event.lease) if worker is not None else None
        if worker is None or loan is None:
            return
        self._state.totals.skipped += 1
        self._come_back(worker, loan)
        reconsider(self._state, loan.open, lost=False)
        self._go_on(worker)

    def _tick(self, event: work.Tick) -> None:
        state = self._state
        due = []
        while (worker := state.alarms.pop_due(state.now)) is not None:
            due.append(worker)
        for worker in due:
            first = worker.first()
            if worker.state is not ACTIVE:
                self._dismiss(worker, f"silent for {state.now - worker.begun_s:.0f} s", kill=True)
            elif first is not None and state.now >= worker.begun_s + first.allowance_s:
                self._suspect(worker, first)
                state.alarms.put(worker)
            else:
                note_late(state, worker)
                state.alarms.put(worker)

    def _come_back(self, worker: Worker, loan: Loan) -> None:
        """A worker reports on a loan, and begins with the next one that it holds."""
        state = self._state
        worker.busy_s += worker.worked_s(state.now)
        del worker.held[loan.lease]
        loan.live = False
        loan.open.loans.remove(loan)
        worker.units -= loan.open.item.size
        worker.alone = worker.alone and bool(worker.held)
        wanted = state.settings.credits(worker.pace_s, loan.open.item.size, worker.slots, worker.round_trip_s)
        worker.credits = max(wanted, len(worker.held))
        if not worker.may_take():
            state.free.withdraw(worker)
        begin(state, worker)

    def _go_on(self, worker: Worker) -> None:
        """A worker that has just reported gets more, or is let go."""
        state = self._state
        if worker.state is SUSPECT:
            self._trust(worker)
        if worker.state is ACTIVE and not worker.draining:
            feed(state, worker)
        elif worker.state is ACTIVE and not worker.held:
            self._dismiss(worker, "it finished what it held", kill=False)
        state.alarms.put(worker)

    def _suspect(self, worker: Worker, first: Loan) -> None:
        """A worker let its lease end: lend again what it holds, and nothing to it."""
        state = self._state
        why = f"no answer within {state.now - worker.begun_s:.1f} s"
        was_usable, worker.state = worker.usable, SUSPECT
        worker.patience_s = state.now + state.settings.suspect_patience_s
        state.totals.suspected += 1
        state.out.append(work.Suspect(worker.name, why))
        blame(state, first, why)
        if was_usable:
            self._leave_usable(worker)
        for loan in worker.held.values():
            if loan.live:
                loan.live = False
                reconsider(state, loan.open, lost=True)

    def _trust(self, worker: Worker) -> None:
        """A suspect worker is alive: what nobody else works on stays with it, the rest it need not do."""
        state = self._state
        worker.state = ACTIVE
        state.usable += not worker.draining
        state.totals.trusted += 1
        state.out.append(work.Trust(worker.name))
        worker.last_s = state.now
        for loan in worker.held.values():
            opened = loan.open
            if opened.state == PENDING and not opened.solo and not loan.revoked:
                opened.state, opened.lost, loan.live = LEASED, False, True
                loan.allowance_s = allowance(state, worker, opened.item.size)
                worker.last_s = loan.deadline_s = worker.last_s + loan.allowance_s
            else:
                revoke(state, loan)

    def _dismiss(self, worker: Worker, why: str, *, kill: bool) -> None:
        """Let a worker go. One that hung just then would not hear it: it is killed when patience ends."""
        state = self._state
        worker.state = DISMISSED
        worker.patience_s = math.inf if kill else state.now + state.settings.suspect_patience_s
        state.alarms.put(worker)
        state.out.append(work.Dismiss(worker.name, why, kill))

    def _leave_usable(self, worker: Worker) -> None:
        """A worker gets no more work, for now or for good."""
        state = self._state
        state.usable -= 1
        state.free.withdraw(worker)
        if worker.clearing:
            worker.clearing = False
            state.clearing -= 1
        retry(state)
