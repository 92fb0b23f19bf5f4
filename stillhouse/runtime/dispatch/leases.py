"""The dispatcher's records: open items, loans, workers, consumers. They hold facts and rules about one of their kind.

An item is *pending* (nobody works on it), *leased* (one live loan, or two when hedged), *answered* or *failed*; these
two stay until they are taken. A loan is *live* until its worker lets the deadline pass (then the item is lent again);
it is *held* until the worker answers, fails, skips or is gone. So an item may have loans that are held and not live:
what comes of them is still welcome while the item is open. Plain classes with slots: ten thousands are touched a
second.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from stillhouse.runtime.work import Attempt, Item, Joined, Lease

PENDING: Final = 0
LEASED: Final = 1
ANSWERED: Final = 2
FAILED: Final = 3
DROPPED: Final = 4
"""The states of an item; from ANSWERED on it is closed. DROPPED: its consumer wants nothing any more."""

ACTIVE: Final = "active"
SUSPECT: Final = "suspect"
DISMISSED: Final = "dismissed"
"""The states of a worker."""

SOLO_BLAMES: Final = 2
"""An item that went wrong so often is lent only to a worker that holds nothing else: no innocent item is blamed with
it.
"""

LEARN: Final = 0.25
"""How much the newest answer counts in a worker's pace."""

SURPRISE_MAX: Final = 8.0
"""One answer counts at most this many times the pace, or the way, so far: who was frozen for a minute is not slow."""

IDLE_SEEN: Final = 0.1
"""A worker lacks credits if it idled for more than this share of the time that an item of it was under way."""

FORGET: Final = 0.01
"""How much shorter the way to a busy worker is thought to have become, with each of its answers; and how much smaller
a usual item, with each that is.
"""


class OpenItem:
    """An item from being submitted to being taken.

    Attributes:
        age: its place among all items of all consumers.
        loans: those that are held, in the order of their generations.
        queued: it has an entry in the backlog, void unless it is pending.
        lost: it is pending since a worker was lost, hung or failed with it; not where a loan came back undone.
        story: how its loans went wrong.
        ticket: of its entry among the items that might be hedged; older entries are void.
    """

    __slots__ = ("age", "consumer", "generation", "item", "loans", "lost", "queued", "state", "story", "ticket")

    def __init__(self, item: Item, consumer: Consumer, age: int) -> None:
        self.item, self.consumer, self.age = item, consumer, age
        self.state, self.generation, self.queued, self.lost = PENDING, 0, False, False
        self.loans: list[Loan] = []
        self.story: tuple[Attempt, ...] = ()
        self.ticket = -1

    @property
    def solo(self) -> bool:
        """Whether it is lent only to a worker that holds nothing else."""
        return len(self.story) >= SOLO_BLAMES

    def is_live(self) -> bool:
        """Whether a loan of it is live."""
        return any(loan.live for loan in self.loans)

    def exhausted(self, tries_max: int, lone: bool) -> bool:
        """Whether it is to be given up: enough tries, by two workers unless there was only one (``lone``).

        Twice the tries end it in any case: the other workers may be gone for good.
        """
        tries = len(self.story)
        if tries < tries_max:
            return False
        return lone or tries >= 2 * tries_max or len({attempt.worker for attempt in self.story}) > 1


class Loan:
    """One loan of an item to a worker, while the worker holds it.

    Attributes:
        sent_s: when it was lent.
        on_way: whether it was sent; until then no time runs.
        spent_before_s: what its worker had spent by then on all that it had answered.
        allowance_s: time for it from when the worker can begin with it.
        deadline_s: at the latest then it is answered, or its worker suspect.
        live: the deadline is ahead, the item is open, and it was not revoked.
        solo: it must be the only one of its worker.
        blamed: it stands in the item's story already.
    """

    __slots__ = (
        "allowance_s", "blamed", "deadline_s", "lease", "live", "on_way", "open", "revoked", "sent_s", "solo",
        "spent_before_s", "worker",
    )  # fmt: skip

    def __init__(
        self, opened: OpenItem, worker: Worker, lease: Lease, now: float, allowance_s: float, deadline_s: float
    ) -> None:
        self.open, self.worker, self.lease = opened, worker, lease
        self.sent_s, self.spent_before_s = now, worker.spent_s
        self.allowance_s, self.deadline_s = allowance_s, deadline_s
        self.live, self.revoked, self.blamed, self.solo = True, False, False, opened.solo
        self.on_way = not worker.packed


class Worker:
    """What is known of a worker.

    Attributes:
        held: its loans in the order sent, which is the order it works in.
        units: of work in them.
        begun_s: when it could begin with the first of them: sent to an idle worker, or its last report. Where it was
            lent and is not on its way, when it was lent.
        late_s: when to ask whether the first of them is better lent to another as well.
        patience_s: when a suspect worker is stopped, and one that was let go and does not go.
        alone: it holds a solo item, and gets nothing beside it.
        clearing: it gets nothing until it is empty, and then a solo item.
        credits: the most it may hold; falls only as loans come back.
        pace_s: seconds a unit while it works; by its own word where it says what it spends.
        usual_size: units of the items that it is known by; what is smaller may cost it as much.
        round_trip_s: from its answer until it has what is sent then, and back again: what its credits hide.
        spent_s: on all that it answered, by its own word.
        last_s: deadline of the loan sent last.
        alarm_s: the earliest time at which the alarms look at it; never later than :meth:`due_s`.
        ticket: of its entry among the free workers; older entries are void.
    """

    __slots__ = (
        "alarm_s", "alone", "answered", "begun_s", "busy_s", "clearing", "credits", "draining", "failures", "held",
        "joined_s", "last_s", "late_s", "name", "pace_s", "packed", "patience_s", "round_trip_s", "slots", "spent_s",
        "state", "sure", "ticket", "units", "units_answered", "usual_size",
    )  # fmt: skip

    def __init__(self, joined: Joined, now: float, round_trip_s: float) -> None:
        self.name, self.pace_s, self.slots, self.sure, self.packed = joined
        self.joined_s = now
        self.round_trip_s, self.spent_s = round_trip_s, 0.0
        self.state, self.draining, self.clearing, self.alone = ACTIVE, False, False, False
        self.held: dict[Lease, Loan] = {}
        self.units, self.begun_s, self.credits = 0, now, 1
        self.usual_size = 0.0
        self.last_s = now
        self.late_s = self.patience_s = self.alarm_s = math.inf
        self.ticket = -1
        self.answered, self.units_answered, self.failures, self.busy_s = 0, 0, 0, 0.0

    @property
    def usable(self) -> bool:
        """Whether it belongs to those that get work at all."""
        return self.state is ACTIVE and not self.draining

    def may_take(self) -> bool:
        """Whether it may be given an item now."""
        return (
            len(self.held) < self.credits
            and self.state is ACTIVE
            and not (self.draining or self.clearing or self.alone)
        )

    def first(self) -> Loan | None:
        """The loan that it works on."""
        for loan in self.held.values():
            return loan
        return None

    def worked_s(self, now: float) -> float:
        """Seconds since it could begin with the first of its loans; 0 while that is not on its way."""
        first = self.first()
        return now - self.begun_s if first is not None and first.on_way else 0.0

    def learn(self, loan: Loan, spent_s: float | None, now: float, round_trip_s: float) -> None:
        """Count one answer.

        A worker that was idle between its items although more were on their way lacks credits, and its way is longer
        than was thought. Where it was not, the way may have got shorter: it is thought so slowly, until it idles.

        Args:
            spent_s: by its own word; None: what passed since it could begin is all that is known.
            round_trip_s: the shortest way that is believed in.
        """
        size, since_s = loan.open.item.size, now - loan.sent_s
        if spent_s is None:
            self._learn_pace(now - self.begun_s, size)
            return
        spent_s = min(spent_s, since_s)
        self._learn_pace(spent_s, size)
        self.spent_s += spent_s
        idle_s = since_s - (self.spent_s - loan.spent_before_s)
        if idle_s > IDLE_SEEN * since_s:
            away_s = min(since_s - spent_s, SURPRISE_MAX * self.round_trip_s)
            self.round_trip_s += LEARN * (away_s - self.round_trip_s)
        else:
            self.round_trip_s *= 1 - FORGET
        self.round_trip_s = max(self.round_trip_s, round_trip_s)

    def _learn_pace(self, seconds: float, size: int) -> None:
        """``size`` units in ``seconds``. A running mean, since delayed reports come in bunches.

        An item counts for its size beside the usual one: what each costs, however small it is (teachers compute whole
        groups), says nothing of a unit.
        """
        size = max(size, 1)
        measured = max(seconds, 1e-9) / size
        usual = self.usual_size or size
        if self.pace_s is None:
            self.pace_s = measured
        else:
            weight = LEARN * size / (LEARN * size + (1 - LEARN) * usual)
            self.pace_s += weight * (min(measured, SURPRISE_MAX * self.pace_s) - self.pace_s)
        self.usual_size = usual + (LEARN if size > usual else FORGET) * (size - usual)

    def service_s(self, size: int) -> float | None:
        """How long it should take for an item; for a small one as long as for a usual one."""
        return None if self.pace_s is None else self.pace_s * max(size, self.usual_size)

    def free_at_s(self, usual_pace_s: float, now: float) -> float:
        """When it should have done all that it holds; what is overdue may take as long again as it is overdue."""
        if not self.held:
            return now
        expected = self.begun_s + self.units * (usual_pace_s if self.pace_s is None else self.pace_s)
        return expected if expected > now else now + (now - expected)

    def done_at_s(self, loan: Loan, usual_pace_s: float, now: float) -> float:
        """When it should have answered ``loan``, which it holds; overdue as above."""
        units = 0
        for each in self.held.values():
            units += each.open.item.size
            if each is loan:
                break
        expected = self.begun_s + units * (usual_pace_s if self.pace_s is None else self.pace_s)
        return expected if expected > now else now + (now - expected)

    def due_s(self) -> float:
        """When to look at it next: it is late, its lease ends, or patience with it does."""
        if self.state is not ACTIVE:
            return self.patience_s
        first = self.first()
        if first is None or not first.on_way:
            return math.inf
        return min(self.late_s, self.begun_s + first.allowance_s)


class Consumer:
    """What is known of a consumer. Of its numbers, those below ``taken`` are gone, those below ``delivered`` ready.

    Attributes:
        items: from ``taken`` up to, not including, ``submitted``.
        fresh: its pending items that were never lent, in order.
        ticket: of its entry in the backlog; older entries are void.
    """

    __slots__ = ("answered", "delivered", "fresh", "items", "name", "open_bytes", "submitted", "taken", "ticket")

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: dict[int, OpenItem] = {}
        self.fresh: deque[OpenItem] = deque()
        self.submitted = self.delivered = self.taken = 0
        self.open_bytes = self.answered = 0
        self.ticket = -1

    def head(self) -> OpenItem | None:
        """Its oldest item that is neither answered nor failed: all others wait for it."""
        return self.items.get(self.delivered)
