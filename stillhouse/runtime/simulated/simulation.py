"""Whole histories on a virtual clock: the dispatcher, simulated workers, and students that ask and take at their own
pace.

``Simulation`` is a driver in small. ``history(seed)`` draws a fleet, its weather and its students from a seed, looks
at the dispatcher's invariants after every event, and at the end that every item came once, in order, and none was
lost. Shipped, since planning a fleet is simulating it.

    python -m stillhouse.runtime.simulated.simulation 20000     the histories of the seeds 0 to 19999
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from stillhouse.runtime import backend as reports
from stillhouse.runtime import work
from stillhouse.runtime.dispatch.dispatcher import Dispatcher
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.simulated.backend import Simulated
from stillhouse.runtime.simulated.weather import Dice, Kind, VirtualClock, Weather

Observe = Callable[[work.Event, float, list[work.Command]], None]


@dataclass(frozen=True)
class Student:
    """One consumer.

    Attributes:
        sizes: units of each of its items.
        unit_bytes: memory of a unit.
        step_s: from taking an item to wanting the next.
        begins_s: when it asks first.
        closes_after: it closes when it has taken so many; None: it takes all.
    """

    name: str
    sizes: Sequence[int]
    unit_bytes: int = 1
    step_s: float = 0.0
    begins_s: float = 0.0
    closes_after: int | None = None


class Taker:
    """How far a student is; ``waits_s`` is how long it waited for each item that it took."""

    def __init__(self, plan: Student) -> None:
        self.plan = plan
        self.asked = self.taken = self.ready = 0
        self.wants_s = plan.begins_s
        self.waiting = self.closed = False
        self.waits_s: list[float] = []

    @property
    def done(self) -> bool:
        """Whether it wants nothing any more."""
        return self.closed or self.taken == len(self.plan.sizes)


class Simulation:
    """Drives a dispatcher with a simulated backend.

    Args:
        fleet: so many workers are kept alive: for one that left another is started.
        observe: is shown every event with its time and its commands.
    """

    def __init__(
        self,
        settings: Settings,
        workers: Simulated,
        clock: VirtualClock,
        students: Sequence[Student],
        fleet: int,
        observe: Observe | None = None,
    ) -> None:
        self.dispatcher = Dispatcher(settings)
        self.takers = {plan.name: Taker(plan) for plan in students}
        self.events = 0
        self._backend, self._clock, self._fleet, self._observe = workers, clock, fleet, observe
        self._alive = 0
        self._due: list[tuple[float, int, Taker]] = []
        for number, taker in enumerate(self.takers.values()):
            heappush(self._due, (taker.plan.begins_s, number, taker))
        self._numbers = len(students)
        self._unfinished = len(students)

    def run(self, until_s: float) -> bool:
        """Go on until all students are done, or the clock says ``until_s``; whether they are done."""
        clock, dispatcher = self._clock, self.dispatcher
        while self._unfinished and clock.now_s < until_s:
            for _ in range(self._fleet - self._alive):
                self._backend.start()
                self._alive += 1
            wake_s = dispatcher.wake_at()
            next_s = min(until_s, self._due[0][0] if self._due else math.inf, math.inf if wake_s is None else wake_s)
            for report in self._backend.poll(next_s - clock.now_s):
                self._report(report)
            while self._due and self._due[0][0] <= clock.now_s:
                self._want(heappop(self._due)[2])
            if wake_s is not None and wake_s <= clock.now_s:
                self._handle(work.Tick())
        return not self._unfinished

    def _report(self, report: reports.Report) -> None:
        if isinstance(report, reports.Answer):
            self._handle(work.Answered(report.worker, report.lease, report.spent_s))
        elif isinstance(report, reports.Skip):
            self._handle(work.Skipped(report.worker, report.lease))
        elif isinstance(report, reports.Failure):
            self._handle(work.Failed(report.worker, report.lease, report.why))
        elif isinstance(report, reports.Hello):
            self._handle(work.Joined(report.worker, report.facts["pace_s"], report.slots))
        elif isinstance(report, reports.Leaving):
            self._handle(work.Draining(report.worker, report.why))
        else:
            self._alive -= 1
            self._handle(work.Gone(report.worker, report.why))

    def _handle(self, event: work.Event) -> None:
        now = self._clock.now_s
        commands = self.dispatcher.handle(event, now)
        self.events += 1
        if self._observe is not None:
            self._observe(event, now, commands)
        for command in commands:
            if isinstance(command, work.Send):
                plan = self.takers[command.lease.consumer].plan
                self._backend.send(command.worker, command.lease, b"%d" % plan.sizes[command.lease.number])
            elif isinstance(command, work.Revoke):
                self._backend.revoke(command.worker, command.lease)
            elif isinstance(command, work.Dismiss):
                self._backend.dismiss(command.worker, command.why, kill=command.kill)
            elif isinstance(command, work.Deliver | work.GiveUp):
                taker = self.takers[command.consumer]
                taker.ready += 1
                if taker.waiting:
                    taker.waiting = False
                    self._again(taker, now)

    def _again(self, taker: Taker, at_s: float) -> None:
        self._numbers += 1
        heappush(self._due, (at_s, self._numbers, taker))

    def _want(self, taker: Taker) -> None:
        """A student is there to ask, and to take its next item."""
        plan, now = taker.plan, self._clock.now_s
        self._ask(taker)
        if not taker.ready:
            taker.waiting = True
            return
        taker.ready -= 1
        taker.waits_s.append(now - taker.wants_s)
        self._handle(work.Taken(plan.name, taker.taken))
        taker.taken += 1
        taker.wants_s = now + plan.step_s
        if taker.taken == plan.closes_after:
            self._handle(work.Closed(plan.name))
            taker.closed = True
        if taker.done:
            self._unfinished -= 1
            return
        self._ask(taker)
        self._again(taker, taker.wants_s)

    def _ask(self, taker: Taker) -> None:
        """Ask for all that has room."""
        plan = taker.plan
        while taker.asked < len(plan.sizes):
            size = plan.sizes[taker.asked]
            item = work.Item(plan.name, taker.asked, size, size * plan.unit_bytes)
            if item.nbytes > self.dispatcher.room(plan.name):
                return
            taker.asked += 1
            self._handle(work.Submitted(item))


class Auditor:
    """Watches events and commands from outside, and knows nothing of the dispatcher's tables.

    An item may be given up if it is poison. An innocent one only where all that its story tells really befell its
    workers: in rough weather that happens.

    Raises:
        AssertionError: an answer kept twice or never, out of order, lent where it must not be, given up without reason.
    """

    def __init__(self, weather: Weather, harmed: Container[str]) -> None:
        self._poison, self._harmed, self._delayed = weather.poison, harmed, weather.delay_s > 0
        self._kept: set[tuple[str, int]] = set()
        self._ready: dict[str, int] = {}
        self._suspect: set[str] = set()
        self._draining: set[str] = set()
        self._held: dict[str, set[work.Lease]] = {}
        self._slots: dict[str, int] = {}
        self._leases: set[work.Lease] = set()
        self.given_up = 0

    def see(self, event: work.Event, now: float, commands: Sequence[work.Command]) -> None:
        """One event and what followed."""
        if isinstance(event, work.Joined):
            self._held[event.worker], self._slots[event.worker] = set(), event.slots
        elif isinstance(event, work.Gone):
            self._held.pop(event.worker, None)
        elif isinstance(event, work.Draining):
            self._draining.add(event.worker)
        elif isinstance(event, work.Answered | work.Failed | work.Skipped) and event.worker in self._held:
            self._held[event.worker].discard(event.lease)
        for command in commands:
            self._command(event, now, command)

    def _command(self, event: work.Event, now: float, command: work.Command) -> None:
        if isinstance(command, work.Send):
            worker, lease = command.worker, command.lease
            assert worker not in self._suspect | self._draining, f"{lease} is sent to {worker}, which gets nothing"
            assert lease not in self._leases, f"{lease} is sent twice"
            assert command.deadline_s > now, f"{lease} is due before it is sent"
            self._leases.add(lease)
            self._held[worker].add(lease)
            assert len(self._held[worker]) <= self._slots[worker], f"{worker} holds more than it has slots"
        elif isinstance(command, work.Keep):
            key = (command.lease.consumer, command.lease.number)
            told = isinstance(event, work.Answered) and (event.worker, event.lease) == (command.worker, command.lease)
            assert told, f"{command} without its answer"
            assert key not in self._kept, f"{key} is kept twice"
            self._kept.add(key)
        elif isinstance(command, work.Deliver | work.GiveUp):
            key = (command.consumer, command.number)
            assert self._ready.get(command.consumer, 0) == command.number, f"{command} out of order"
            self._ready[command.consumer] = command.number + 1
            assert (key in self._kept) == isinstance(command, work.Deliver), f"{command}, kept: {key in self._kept}"
            if isinstance(command, work.GiveUp):
                self.given_up += 1
                true = self._delayed or all(attempt.worker in self._harmed for attempt in command.story)
                assert key in self._poison or true, f"{key} is given up without reason: {command.story}"
        elif isinstance(command, work.Suspect):
            self._suspect.add(command.worker)
        elif isinstance(command, work.Trust):
            self._suspect.discard(command.worker)


@dataclass(frozen=True)
class Summary:
    """What a history was like; times in virtual seconds."""

    seed: int
    lasted_s: float
    events: int
    taken: int
    given_up: int
    reissued: int
    hedged: int
    dropped: int
    lost: int
    suspected: int


def history(seed: int, limit_s: float = 10_000.0) -> Summary:
    """Play a drawn history to its end.

    Raises:
        AssertionError: an invariant is broken, an item is lost, or it takes more than ``limit_s`` virtual seconds.
    """
    dice, clock = Dice(seed, "history"), VirtualClock()
    students = [_student(dice, number) for number in range(dice.between(1, 4))]
    kinds = [
        Kind(
            pace_s=0.02 * 2 ** dice.between(0, 3),
            load_s=dice.uniform(),
            slots=dice.between(1, 5),
            jitter=0.3 * dice.uniform(),
            tells_pace=dice.chance(0.5),
        )
        for _ in range(dice.between(1, 5))
    ]
    weather, settings = _weather(dice, students), _settings(dice)
    workers = Simulated(clock, kinds, weather, seed, int)
    auditor = Auditor(weather, workers.harmed)

    def observe(event: work.Event, now: float, commands: list[work.Command]) -> None:
        auditor.see(event, now, commands)
        simulation.dispatcher.check()

    simulation = Simulation(settings, workers, clock, students, len(kinds), observe)
    assert simulation.run(limit_s), f"seed {seed}: not done after {limit_s} s: {simulation.dispatcher.status(clock())}"
    totals = simulation.dispatcher.status(clock()).totals
    return Summary(
        seed=seed,
        lasted_s=clock(),
        events=simulation.events,
        taken=totals.taken,
        given_up=auditor.given_up,
        reissued=totals.reissued,
        hedged=totals.hedged,
        dropped=totals.dropped,
        lost=totals.lost,
        suspected=totals.suspected,
    )


def _student(dice: Dice, number: int) -> Student:
    items = dice.between(3, 60)
    varied = dice.chance(0.3)
    return Student(
        name=f"s{number}",
        sizes=[dice.between(1, 8) if varied else 4 for _ in range(items)],
        step_s=0.2 * dice.uniform() if dice.chance(0.7) else 0.0,
        begins_s=3 * dice.uniform() if dice.chance(0.3) else 0.0,
        closes_after=dice.between(1, items) if dice.chance(0.15) else None,
    )


def _settings(dice: Dice) -> Settings:
    return Settings(
        window_bytes=dice.between(1, 64),
        lease_min_s=0.1 + dice.uniform(),
        first_lease_s=2 + 10 * dice.uniform(),
        suspect_patience_s=1 + 5 * dice.uniform(),
        round_trip_s=0.2 * dice.uniform(),
        credits_max=dice.between(1, 8),
    )


def _weather(dice: Dice, students: Sequence[Student]) -> Weather:
    rough = 1 + 3 * dice.uniform() ** 3

    def sometimes(most: float) -> float:
        return most * rough * dice.uniform() if dice.chance(0.5) else 0.0

    poison = {}
    for student in students:
        for number in range(len(student.sizes)):
            if dice.chance(0.03):
                poison[student.name, number] = ("crash", "fail", "hang")[dice.between(0, 2)]
    return Weather(
        crashes_per_s=sometimes(0.3),
        leaves_per_s=sometimes(0.3),
        freezes_per_s=sometimes(0.3),
        freeze_s=3 * dice.uniform() + 0.1,
        forever_share=min(1.0, sometimes(0.3)),
        slowdowns_per_s=sometimes(0.3),
        slow_s=3 * dice.uniform() + 0.1,
        slow_factor=2 + 10 * dice.uniform(),
        delay_s=sometimes(0.1),
        failure_share=sometimes(0.02),
        duplicate_share=sometimes(0.2),
        poison=poison if dice.chance(0.3) else {},  # type: ignore[arg-type]
        arrivals=[(5 * dice.uniform(), Kind(0.02)) for _ in range(dice.between(0, 2))],
    )


if __name__ == "__main__":
    for each in range(int(sys.argv[1])):
        try:
            history(each)
        except Exception:
            print(f"seed {each} fails", file=sys.stderr)
            raise
    print(f"{sys.argv[1]} histories, every invariant looked at after every event: none is broken")
