"""How items end: answered or given up, delivered in order; and how their loans go wrong."""

from __future__ import annotations

from stillhouse.runtime.dispatch.heaps import VOID
from stillhouse.runtime.dispatch.leases import (
    ANSWERED,
    DISMISSED,
    DROPPED,
    FAILED,
    LEASED,
    PENDING,
    Consumer,
    Loan,
    OpenItem,
)
from stillhouse.runtime.dispatch.lending import note_head, place
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


def reconsider(state: State, opened: OpenItem) -> None:
    """An open item may have lost its last live loan: then lend it again, or give it up."""
    if opened.state > LEASED:
        return
    if opened.is_live():
        note_head(state, opened.consumer)
        return
    opened.state = PENDING
    opened.ticket = VOID
    if opened.exhausted(state.settings.tries_max, lone=state.totals.joined < 2):
        state.totals.given_up += 1
        close(state, opened, FAILED)
    else:
        place(state, opened)
