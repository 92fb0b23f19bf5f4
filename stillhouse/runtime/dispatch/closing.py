"""How items end: answered or given up, delivered in order; and how their loans go wrong."""

from __future__ import annotations

from itertools import islice

from stillhouse.runtime.dispatch.backlog import LOOK
from stillhouse.runtime.dispatch.heaps import VOID
from stillhouse.runtime.dispatch.leases import (
    ACTIVE,
    ANSWERED,
    DISMISSED,
    DROPPED,
    FAILED,
    LEASED,
    PENDING,
    Consumer,
    Loan,
    OpenItem,
    Worker,
)
from stillhouse.runtime.dispatch.lending import note_head, place, suits
from stillhouse.runtime.dispatch.state import State
from stillhouse.runtime.work import Attempt, Deliver, GiveUp, Revoke


def close(state: State, opened: OpenItem, how: int) -> None:
    """End an item: whoever still holds a loan of it is told; what is ready in the consumer's order is delivered."""
    opened.state = how
    opened.ticket = VOID
    for loan in opened.loans:
        revoke(state, loan)
    if how != DROPPED:
        opened.consumer.answered += how == ANSWERED
        deliver(state, opened.consumer)


def revoke(state: State, loan: Loan) -> None:
    """Call a loan back, once."""
    loan.live = False
    if not loan.revoked:
        loan.revoked = True
        if loan.worker.state is not DISMISSED:
            state.totals.revoked += 1
            state.out.append(Revoke(loan.worker.name, loan.lease))


def deliver(state: State, consumer: Consumer) -> None:
    """Deliver what is closed, in order, up to the oldest open item."""
    begun = consumer.delivered
    while (opened := consumer.items.get(consumer.delivered)) is not None and opened.state > LEASED:
        number = consumer.delivered
        consumer.delivered += 1
        if opened.state == FAILED:
            state.out.append(GiveUp(consumer.name, number, opened.story))
        else:
            state.out.append(Deliver(consumer.name, number))
    if consumer.delivered > begun:
        note_head(state, consumer)


def blame(state: State, loan: Loan, why: str) -> None:
    """Write into an open item's story how a loan of it went wrong, once a loan."""
    if loan.open.state <= LEASED and not loan.blamed:
        loan.blamed = True
        lease = loan.lease
        loan.open.story += (Attempt(loan.worker.name, lease.generation, state.now, why),)


def reconsider(state: State, opened: OpenItem, *, lost: bool) -> None:
    """An open item may have lost its last live loan: then lend it again, or give it up.

    Args:
        lost: whether the worker of that loan was lost, hung or failed, and did not merely leave it undone.
    """
    if opened.state > LEASED:
        return
    if opened.is_live():
        note_head(state, opened.consumer)
        return
    opened.state = PENDING
    opened.lost |= lost
    opened.ticket = VOID
    if opened.exhausted(state.settings.tries_max, lone=state.totals.joined < 2):
        state.totals.given_up += 1
        close(state, opened, FAILED)
        return
    place(state, opened)
    if opened.state == PENDING and opened.consumer.head() is opened and not opened.solo:
        overtake(state, opened)


def overtake(state: State, head: OpenItem) -> None:
    """A consumer waits for an item that lost its worker, and nobody has room: whoever is done first does it next.

    What that worker holds beyond the item at work, and nobody waits for, is called back: when it reports, the head of
    the line is the oldest item that waits. Of a large fleet a few workers are looked at; there room comes soon anyway.
    """
    able = [
        worker
        for worker in islice(state.workers.values(), LOOK)
        if worker.state is ACTIVE and not (worker.draining or worker.alone or worker.clearing)
        if suits(state, head, worker) and _behind(worker, head)
    ]
    if able:
        usual_s = state.free.usual_pace_s
        soonest = min(able, key=lambda worker: _first_done_s(worker, usual_s, state.now))
        for loan in _behind(soonest, head):
            revoke(state, loan)
            reconsider(state, loan.open, lost=False)


def _behind(worker: Worker, head: OpenItem) -> list[Loan]:
    """A worker's loans that are not begun, and that can wait for ``head``."""
    return [
        loan
        for loan in islice(worker.held.values(), 1, None)
        if loan.live and loan.open.age > head.age and loan.open.consumer.head() is not loan.open
    ]


def _first_done_s(worker: Worker, usual_pace_s: float, now: float) -> float:
    first = worker.first()
    assert first is not None
    return worker.done_at_s(first, usual_pace_s, now)
