"""Who gets what: pending items go to workers, and the oldest open item of a consumer may be lent twice.

There is never a pending item and a worker that may take it at once. So either workers wait, and an item that comes
goes to the one that should be done with it first (``free``); or items wait, and a worker that gets room takes the one
whose turn it is (``backlog``). With that no worker is idle while there is work, and the fast ones are loaded first.
"""

from __future__ import annotations

import math

from stillhouse.runtime.dispatch.backlog import LOOK
from stillhouse.runtime.dispatch.heaps import VOID
from stillhouse.runtime.dispatch.leases import LEASED, Consumer, Loan, OpenItem, Worker
from stillhouse.runtime.dispatch.state import State
from stillhouse.runtime.work import Lease, Send


def suits(state: State, opened: OpenItem, worker: Worker) -> bool:
    """Whether a worker is fit for an item: it holds no loan of it, and did not go wrong with it unless all have."""
    if any(loan.worker is worker for loan in opened.loans):
        return False
    blamed = {attempt.worker for attempt in opened.story}
    if worker.name not in blamed:
        return True
    blamed_usable = sum(1 for name in blamed if name in state.workers and state.workers[name].usable)
    return blamed_usable == state.usable


def place(state: State, opened: OpenItem) -> None:
    """Lend a pending item to the worker that should be done with it first, or let it wait."""
    free = state.free
    passed: list[Worker] = []
    worker = None
    while len(passed) < LOOK:
        worker = free.fastest_idle() if opened.solo else free.best(opened.item.size, state.now)
        if worker is None or not opened.generation or suits(state, opened, worker):
            break
        free.withdraw(worker)
        passed.append(worker)
        worker = None
    if worker is not None:
        lend(state, opened, worker)
        settle(state, worker)
    elif opened.generation:
        state.backlog.add_again(opened)
    else:
        state.backlog.add_fresh(opened)
    for each in passed:
        free.offer(each, state.now)


def feed(state: State, worker: Worker) -> None:
    """Give a worker all that it may hold and is there."""
    if worker.clearing and not (worker.held and state.backlog.solo):
        worker.clearing = False
        state.clearing -= 1
    while worker.may_take():
        opened = _next_for(state, worker)
        if opened is None:
            break
        lend(state, opened, worker)
    settle(state, worker)


def settle(state: State, worker: Worker) -> None:
    """Put a worker among the free ones, or take it out."""
    if worker.may_take():
        state.free.offer(worker, state.now)
    else:
        state.free.withdraw(worker)


def retry(state: State) -> None:
    """The fleet is smaller: items may suit workers now that were spared them before."""
    waiting: list[OpenItem] = []
    while len(waiting) < LOOK and state.free.best(1, state.now) is not None:
        opened = state.backlog.pop_solo(_any) or state.backlog.pop_again(_any)
        if opened is None:
            break
        waiting.append(opened)
    for opened in waiting:
        place(state, opened)


def lend(state: State, opened: OpenItem, worker: Worker) -> Loan:
    """Make one more loan of an item."""
    item, now, totals = opened.item, state.now, state.totals
    totals.leased += 1
    if opened.generation:
        totals.hedged += opened.state == LEASED
        totals.reissued += opened.lost
    opened.generation += 1
    opened.lost = False
    opened.state = LEASED
    lease = Lease(item.consumer, item.number, opened.generation)
    allowance_s = allowance(state, worker, item.size)
    begins_s = max(now, worker.last_s) if worker.held else now
    worker.last_s = deadline_s = begins_s + allowance_s
    loan = Loan(opened, worker, lease, now, allowance_s, deadline_s)
    opened.loans.append(loan)
    worker.held[lease] = loan
    worker.units += item.size
    worker.alone = loan.solo
    if len(worker.held) == 1:
        begin(state, worker)
        state.alarms.put(worker)
    state.out.append(Send(worker.name, lease, deadline_s))
    if opened.consumer.delivered == item.number:
        note_head(state, opened.consumer)
    return loan


def allowance(state: State, worker: Worker, size: int) -> float:
    """Seconds that a worker may take for an item; a longer way than usual is not its fault."""
    if worker.sure:
        return math.inf
    settings = state.settings
    return settings.allowance(worker.service_s(size)) + worker.round_trip_s - settings.round_trip_s


def begin(state: State, worker: Worker) -> None:
    """A worker begins with the first loan that it holds, now."""
    worker.begun_s = state.now
    worker.late_s = math.inf
    first = worker.first()
    service_s = None if first is None else worker.service_s(first.open.item.size)
    if first is not None and first.on_way and service_s is not None:
        settings = state.settings
        worker.late_s = state.now + (1 + settings.hedge_factor) * service_s + worker.round_trip_s


def note_head(state: State, consumer: Consumer) -> None:
    """A consumer's oldest open item, or who works on it, has changed: it may be worth a second loan.

    An item that went wrong before is not: it might take down two workers at once. Nor is one that is not on its way.
    """
    opened = consumer.head()
    if opened is None or opened.state != LEASED:
        return
    live = [loan for loan in opened.loans if loan.live]
    if len(live) == 1 and live[0].on_way and not opened.story:
        done_s = live[0].worker.done_at_s(live[0], state.free.usual_pace_s, state.now)
        state.heads.put(-done_s, opened)
    else:
        opened.ticket = VOID


def note_late(state: State, worker: Worker) -> None:
    """A worker takes much longer than it should: what others wait for is worth a second loan. Asked again later."""
    worker.late_s = max(worker.begun_s + 1.5 * (state.now - worker.begun_s), state.now + 1e-3)
    for loan in worker.held.values():
        opened = loan.open
        if loan.live and opened.ticket != VOID and opened.consumer.head() is opened:
            state.heads.put(-math.inf, opened)


def hedge(state: State) -> None:
    """Lend oldest open items to idle workers where they should be done much sooner. Only what is idle is used."""
    factor = state.settings.hedge_factor
    while (worker := state.free.fastest_idle()) is not None and (top := state.heads.top()) is not None:
        opened = top[2]
        loan = next(each for each in opened.loans if each.live)
        left_s = loan.worker.done_at_s(loan, state.free.usual_pace_s, state.now) - state.now
        pace_s = state.free.usual_pace_s if worker.pace_s is None else worker.pace_s
        if left_s > factor * pace_s * opened.item.size + worker.round_trip_s and suits(state, opened, worker):
            state.heads.drop_top()
            lend(state, opened, worker)
            settle(state, worker)
        elif top[0] == -math.inf:
            state.heads.replace_top(-(state.now + left_s))
        else:
            return


def _next_for(state: State, worker: Worker) -> OpenItem | None:
    """What a worker with room gets; None where nothing waits, or it is to be emptied for a solo item first."""
    backlog = state.backlog
    if not (backlog.solo or backlog.again):
        return backlog.pop_fresh()

    def fits(opened: OpenItem) -> bool:
        return suits(state, opened, worker)

    if not worker.held or state.clearing < len(backlog.solo):
        opened = backlog.pop_solo(fits)
        if opened is not None and worker.held:
            backlog.add_again(opened)
            worker.clearing = True
            state.clearing += 1
            return None
        if opened is not None:
            return opened
    return backlog.pop_again(fits) or backlog.pop_fresh()


def _any(opened: OpenItem) -> bool:
    return True
