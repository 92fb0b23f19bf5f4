"""What must hold after every event. Looks at everything: for tests and simulations."""

from __future__ import annotations

import math

from stillhouse.runtime.dispatch.heaps import VOID
from stillhouse.runtime.dispatch.leases import (
    ACTIVE,
    ANSWERED,
    DROPPED,
    FAILED,
    LEASED,
    PENDING,
    SUSPECT,
    Consumer,
    OpenItem,
    Worker,
)
from stillhouse.runtime.dispatch.state import State


def check(state: State) -> None:
    """Raise an AssertionError that names what is broken."""
    waiting = set(map(id, state.backlog.waiting()))
    for consumer in state.consumers.values():
        _order(consumer)
        _window(state, consumer)
        for opened in consumer.items.values():
            _item(state, opened, id(opened) in waiting)
    alarms, free = state.alarms.entries(), set(map(id, state.free.workers()))
    for worker in state.workers.values():
        _worker(state, worker)
        due_s = worker.due_s()
        covered = worker.alarm_s <= due_s and (id(worker), worker.alarm_s) in alarms
        assert due_s == math.inf or covered, f"{worker.name} is due at {due_s} and nobody looks"
        assert worker.may_take() == (id(worker) in free), f"{worker.name} has room and is not offered, or the reverse"
    _fleet(state)
    _totals(state)


def _order(consumer: Consumer) -> None:
    name = consumer.name
    assert consumer.taken <= consumer.delivered <= consumer.submitted, f"{name}: taken, delivered, submitted disagree"
    assert list(consumer.items) == list(range(consumer.taken, consumer.submitted)), f"{name}: an item is lost"
    for number, opened in consumer.items.items():
        assert opened.item.number == number and opened.consumer is consumer, f"{name} {number}: not in its place"
        if number < consumer.delivered:
            assert opened.state in (ANSWERED, FAILED), f"{name} {number}: delivered and not closed"
    head = consumer.head()
    assert head is None or head.state <= LEASED, f"{name} {consumer.delivered}: closed and not delivered"
    answered = sum(opened.state == ANSWERED for opened in consumer.items.values())
    assert consumer.answered == answered, f"{name}: {consumer.answered} counted as answered, {answered} are"
    numbers = [opened.item.number for opened in consumer.fresh]
    assert numbers == sorted(set(numbers)), f"{name}: fresh items out of order"
    assert (consumer.ticket != VOID) == bool(consumer.fresh), f"{name}: fresh items without a place in the backlog"


def _window(state: State, consumer: Consumer) -> None:
    nbytes = sum(opened.item.nbytes for opened in consumer.items.values())
    assert consumer.open_bytes == nbytes, f"{consumer.name}: {consumer.open_bytes} bytes counted, {nbytes} open"
    within = nbytes <= state.settings.window_bytes or len(consumer.items) == 1
    assert within, f"{consumer.name}: {nbytes} bytes are beyond the window"


def _item(state: State, opened: OpenItem, waits: bool) -> None:
    name = f"{opened.item.consumer} {opened.item.number}"
    live = [loan for loan in opened.loans if loan.live]
    assert opened.state in (PENDING, LEASED, ANSWERED, FAILED), f"{name}: in no state"
    assert (opened.state == LEASED) == bool(live), f"{name}: state {opened.state} with {len(live)} live loans"
    assert (opened.state == PENDING) == waits, f"{name}: state {opened.state}, waiting: {waits}"
    assert len(live) <= 2, f"{name}: lent to {len(live)} at once"
    workers = [loan.worker for loan in opened.loans]
    assert len(set(map(id, workers))) == len(workers), f"{name}: twice at one worker"
    generations = [loan.lease.generation for loan in opened.loans]
    increasing = sorted(set(generations)) == generations and max(generations, default=0) <= opened.generation
    assert increasing, f"{name}: generations {generations} of {opened.generation}"
    for loan in opened.loans:
        there = state.workers.get(loan.worker.name)
        assert there is loan.worker, f"{name}: lent to {loan.worker.name}, which is gone"
        assert there.held.get(loan.lease) is loan, f"{name}: {loan.worker.name} does not hold it"
        assert not (loan.live and loan.revoked), f"{name}: a loan live and revoked"
        assert opened.state <= LEASED or loan.revoked, f"{name}: closed, and {loan.worker.name} was not told"
    if opened.state == FAILED:
        assert len(opened.story) >= state.settings.tries_max, f"{name}: given up after {len(opened.story)} tries"
    else:
        assert len(opened.story) <= 2 * state.settings.tries_max + 1, f"{name}: tried for ever"


def _worker(state: State, worker: Worker) -> None:
    name, held = worker.name, list(worker.held.values())
    limit = max(1, min(worker.slots, state.settings.credits_max))
    assert len(held) <= worker.credits <= limit, f"{name}: holds {len(held)}, credits {worker.credits}, limit {limit}"
    assert worker.units == sum(loan.open.item.size for loan in held), f"{name}: units {worker.units} miscounted"
    for loan in held:
        assert loan.worker is worker and loan in loan.open.loans, f"{name}: {loan.lease} is nobody's loan"
        known = state.consumers.get(loan.lease.consumer)
        current = known is not None and known.items.get(loan.lease.number) is loan.open
        closed = loan.open.state > LEASED
        assert current or closed, f"{name}: holds {loan.lease}, which is no item"
        assert not (closed and loan.live), f"{name}: {loan.lease} live, its item closed"
        assert worker.state is ACTIVE or not loan.live, f"{name}: {worker.state}, and {loan.lease} is live"
    on_way = [loan.on_way for loan in held]
    assert on_way == sorted(on_way, reverse=True), f"{name}: its loans were sent in another order than lent"
    assert worker.packed or all(on_way), f"{name}: a loan that needs no packing is not on its way"
    solo = [loan for loan in held if loan.solo]
    assert worker.alone == bool(solo), f"{name}: alone {worker.alone} with {len(solo)} solo loans"
    assert not solo or len(held) == 1, f"{name}: a solo loan among {len(held)}"
    assert worker.usable or not worker.clearing, f"{name}: is emptied for a solo item, and gets none"
    idle_drained = worker.state is ACTIVE and worker.draining and not held
    assert not idle_drained, f"{name}: drained, and not let go"


def _fleet(state: State) -> None:
    workers = state.workers.values()
    usable = sum(worker.usable for worker in workers)
    assert state.usable == usable, f"{state.usable} workers counted as usable, {usable} are"
    clearing = sum(worker.clearing for worker in workers)
    assert state.clearing == clearing, f"{state.clearing} workers counted as being emptied, {clearing} are"
    free = next((worker.name for worker in workers if worker.may_take()), None)
    for consumer in state.consumers.values():
        assert free is None or not consumer.fresh, f"{consumer.name} has pending items, and {free} has room"


def _totals(state: State) -> None:
    totals = state.totals
    still_open = sum(len(consumer.items) for consumer in state.consumers.values())
    accounted = totals.taken + totals.discarded + still_open
    assert totals.submitted == accounted, f"{totals.submitted} items submitted, {accounted} accounted for"
    closed = sum(each.state > LEASED for consumer in state.consumers.values() for each in consumer.items.values())
    ended = totals.answered + totals.given_up
    assert totals.taken + closed <= ended <= totals.submitted, f"{ended} items ended, {totals.taken + closed} seen"
    live = sum(loan.live for worker in state.workers.values() for loan in worker.held.values())
    assert live <= totals.leased, f"{live} live loans, {totals.leased} made"
    suspects = sum(worker.state is SUSPECT for worker in state.workers.values())
    assert suspects <= totals.suspected - totals.trusted, f"{suspects} suspects, more than were suspected"
    assert totals.joined - totals.lost >= len(state.workers), "more workers than joined"
    assert all(opened.state != DROPPED for each in state.consumers.values() for opened in each.items.values())
