"""Workers that exist only in numbers, on a virtual clock: to try the runtime's decisions in every kind of weather.

They load, work, crash, freeze and thaw, slow down, leave, fail, meet poisonous items; messages are delayed, answers
come twice. All of it follows from one seed: the same calls give the same reports. ``poll`` is what lets time pass. A
message costs some microseconds, so an hour of a fleet passes in seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush

from stillhouse.foundation.errors import StillhouseError
from stillhouse.runtime.backend import Answer, Failure, Hello, Leaving, Left, Report, Skip
from stillhouse.runtime.simulated.weather import Dice, Kind, Vanish, VirtualClock, Weather
from stillhouse.runtime.work import Lease


class _Worker:
    """One simulated worker. ``work`` is what it holds, the first being worked on; ``turn`` makes old plans void."""

    __slots__ = (
        "begun_s", "busy", "frozen", "kind", "leaving", "left_s", "name", "placed_s", "ready", "revoked", "said_s",
        "since_s", "slow", "turn", "until_s", "work", "worked_s",
    )  # fmt: skip

    def __init__(self, name: str, kind: Kind, now: float) -> None:
        self.name, self.kind, self.since_s = name, kind, now
        self.placed_s = now + kind.place_s
        self.work: deque[tuple[Lease, bytes]] = deque()
        self.revoked: set[Lease] = set()
        self.ready = self.busy = self.frozen = False
        self.leaving = ""
        self.slow, self.turn = 1.0, 0
        self.begun_s = self.until_s = self.left_s = self.said_s = self.worked_s = 0.0


class Simulated:
    """The simulated backend.

    Args:
        clock: passes while :meth:`poll` waits.
        kinds: those of the workers that are started, in turn.
        weather: what befalls them.
        seed: of all that is random.
        units: units of work in a payload.
        answer: what a worker makes of a payload; an error is a failure, :class:`Vanish` its end.

    Attributes:
        harmed: workers that crashed, froze, were slow or failed, whatever the reason.
    """

    def __init__(
        self,
        clock: VirtualClock,
        kinds: Sequence[Kind],
        weather: Weather,
        seed: int,
        units: Callable[[bytes], float],
        answer: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._clock, self._kinds, self._weather = clock, kinds, weather
        self._units, self._answer = units, answer
        self._dice = Dice(seed, "simulated")
        self._workers: dict[str, _Worker] = {}
        self._never_ran: set[str] = set()
        self._plans: list[tuple[float, int, Callable[[], object]]] = []
        self._inbox: list[tuple[float, int, Report]] = []
        self._count, self._started = 0, 0
        self._woken = self._closed = False
        self._capacity_units = 0.0
        self.harmed: set[str] = set()
        for at_s, kind in weather.arrivals:
            self._plan(at_s, partial(self._begin, kind))

    def start(self) -> str:
        """Begin one more worker, of the next kind; its name."""
        if self._closed:
            raise StillhouseError("a backend that is closed starts no worker")
        return self._begin(self._kinds[self._started % len(self._kinds)])

    def placed(self, worker: str) -> bool:
        """Whether there is a machine for a worker."""
        there = self._workers.get(worker)
        return worker not in self._never_ran if there is None else self._clock.now_s >= there.placed_s

    def send(self, worker: str, lease: Lease, payload: bytes) -> None:
        """Give a loan to a worker."""

        def arrive(there: _Worker) -> None:
            there.work.append((lease, payload))
            self._work(there)

        self._tell(worker, arrive)

    def revoke(self, worker: str, lease: Lease) -> None:
        """Tell a worker that a loan is not needed."""

        def arrive(there: _Worker) -> None:
            if any(held == lease for held, _ in there.work):
                there.revoked.add(lease)

        self._tell(worker, arrive)

    def dismiss(self, worker: str, why: str, *, kill: bool, refused: bool = False) -> None:
        """End a worker."""
        there = self._workers.get(worker)
        if there is None:
            return
        if kill:
            self._leave(there, why)
            return

        def arrive(there: _Worker) -> None:
            there.leaving = there.leaving or why
            if there.ready:
                self._work(there)
            else:
                self._leave(there, why)

        self._tell(worker, arrive)

    def poll(self, timeout_s: float) -> list[Report]:
        """What happened since; lets up to ``timeout_s`` pass until there is something."""
        clock = self._clock
        limit_s = clock.now_s + max(0.0, timeout_s)
        while not self._woken:
            at_s = self._plans[0][0] if self._plans else math.inf
            report_s = self._inbox[0][0] if self._inbox else math.inf
            if min(at_s, report_s) > limit_s or min(at_s, report_s) == math.inf:
                clock.now_s = limit_s if limit_s < math.inf else clock.now_s
                return []
            clock.now_s = max(clock.now_s, min(at_s, report_s))
            if report_s <= at_s:
                break
            heappop(self._plans)[2]()
        self._woken = False
        found = []
        while self._inbox and self._inbox[0][0] <= clock.now_s:
            found.append(heappop(self._inbox)[2])
        return found

    def wake(self) -> None:
        """Let the next :meth:`poll` return at once."""
        self._woken = True

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers.values():
            self._count_capacity(worker)
        self._closed = True
        self._workers.clear()
        self._plans.clear()
        self._inbox.clear()

    def crash(self, worker: str) -> None:
        """A worker ends without a word, now."""
        if worker in self._workers:
            self._crash(self._workers[worker], "crashed")

    def ask_to_leave(self, worker: str) -> None:
        """Somebody wants a worker's place: it says that it is leaving, unless it is frozen."""
        if worker in self._workers and not self._workers[worker].frozen:
            self._say(self._workers[worker], Leaving(worker, "asked to leave"))

    def capacity_units(self) -> float:
        """Units that all workers together could have done until now: while they were ready, at their speed then."""
        for worker in self._workers.values():
            self._count_capacity(worker)
        return self._capacity_units

    def worked_s(self) -> dict[str, float]:
        """Seconds of work that each living worker has begun."""
        return {worker.name: worker.worked_s for worker in self._workers.values()}

    def _plan(self, at_s: float, what: Callable[[], object]) -> None:
        if at_s < math.inf:
            self._count += 1
            heappush(self._plans, (at_s, self._count, what))

    def _delay(self) -> float:
        delay_s = self._weather.delay_s
        return self._dice.after(1 / delay_s) if delay_s > 0 else 0.0

    def _tell(self, worker: str, arrive: Callable[[_Worker], None]) -> None:
        """A message to a worker; it comes in order, and is lost if the worker is gone by then."""
        there = self._workers.get(worker)
        if there is None:
            return
        there.left_s = max(there.left_s, self._clock.now_s + self._delay())
        if there.left_s <= self._clock.now_s:
            arrive(there)
            return

        def come() -> None:
            if worker in self._workers:
                arrive(there)

        self._plan(there.left_s, come)

    def _say(self, worker: _Worker, report: Report) -> None:
        """A report of a worker, or of its end; it comes in order."""
        worker.said_s = max(worker.said_s, self._clock.now_s + self._delay())
        self._count += 1
        heappush(self._inbox, (worker.said_s, self._count, report))

    def _begin(self, kind: Kind) -> str:
        now = self._clock.now_s
        worker = _Worker(f"w{self._started}", kind, now)
        self._started += 1
        self._workers[worker.name] = worker
        self._plan(worker.placed_s + kind.load_s, lambda: self._hello(worker))
        return worker.name

    def _hello(self, worker: _Worker) -> None:
        if worker.name not in self._workers:
            return
        kind, now, weather, after = worker.kind, self._clock.now_s, self._weather, self._dice.after
        if kind.last_words is not None:
            self._leave(worker, kind.last_words)
            return
        worker.ready, worker.since_s = True, now
        facts = {"pace_s": kind.pace_s if kind.tells_pace else None, **kind.facts}
        self._say(worker, Hello(worker.name, facts, kind.slots))
        self._plan(now + after(weather.crashes_per_s), lambda: self.crash(worker.name))
        self._plan(now + after(weather.leaves_per_s), lambda: self.ask_to_leave(worker.name))
        self._plan(now + after(weather.freezes_per_s), lambda: self._freeze(worker))
        self._plan(now + after(weather.slowdowns_per_s), lambda: self._slow_down(worker))
        self._work(worker)

    def _work(self, worker: _Worker) -> None:
        """Begin with the next item, if there is one and nothing prevents it."""
        if not worker.ready or worker.busy or worker.frozen or worker.name not in self._workers:
            return
        while worker.work and worker.work[0][0] in worker.revoked:
            lease, _ = worker.work.popleft()
            worker.revoked.discard(lease)
            self._say(worker, Skip(worker.name, lease))
        if not worker.work:
            if worker.leaving:
                self._leave(worker, worker.leaving)
            return
        kind = worker.kind
        service_s = kind.pace_s * self._units(worker.work[0][1]) * worker.slow
        if kind.jitter:
            service_s *= 1 + kind.jitter * (2 * self._dice.uniform() - 1)
        worker.busy, worker.begun_s, worker.until_s = True, self._clock.now_s, self._clock.now_s + service_s
        worker.worked_s += service_s
        self._plan_finish(worker)

    def _plan_finish(self, worker: _Worker) -> None:
        worker.turn += 1
        turn = worker.turn
        self._plan(worker.until_s, lambda: self._finish(worker, turn))

    def _finish(self, worker: _Worker, turn: int) -> None:
        if worker.turn != turn or worker.frozen or worker.name not in self._workers:
            return
        lease, payload = worker.work[0]
        fate = self._weather.poison.get((lease.consumer, lease.number))
        if fate == "crash":
            self._crash(worker, "crashed of its item")
            return
        if fate == "hang":
            self._stand_still(worker)
            return
        worker.work.popleft()
        worker.revoked.discard(lease)
        worker.busy = False
        if fate == "fail" or self._dice.chance(self._weather.failure_share):
            self._fail(worker, lease, "the weather")
        else:
            self._answer_one(worker, lease, payload)
        self._work(worker)

    def _answer_one(self, worker: _Worker, lease: Lease, payload: bytes) -> None:
        try:
            answer = self._answer(payload)
        except Vanish as end:
            self._crash(worker, f"vanished {end}")
        except Exception as error:
            self._fail(worker, lease, f"{type(error).__name__}: {error}"[:1000])
        else:
            spent_s = self._clock.now_s - worker.begun_s if worker.kind.tells_pace else None
            for _ in range(1 + self._dice.chance(self._weather.duplicate_share)):
                self._say(worker, Answer(worker.name, lease, answer, spent_s))

    def _fail(self, worker: _Worker, lease: Lease, why: str) -> None:
        self.harmed.add(worker.name)
        self._say(worker, Failure(worker.name, lease, why))

    def _freeze(self, worker: _Worker) -> None:
        if worker.name not in self._workers or worker.frozen:
            return
        self._stand_still(worker)
        worker.until_s -= self._clock.now_s
        if not self._dice.chance(self._weather.forever_share):
            self._plan(self._clock.now_s + self._dice.after(1 / self._weather.freeze_s), lambda: self._thaw(worker))

    def _stand_still(self, worker: _Worker) -> None:
        self._count_capacity(worker)
        self.harmed.add(worker.name)
        worker.frozen = True

    def _thaw(self, worker: _Worker) -> None:
        if worker.name not in self._workers:
            return
        now = self._clock.now_s
        worker.frozen, worker.since_s = False, now
        worker.until_s += now
        if worker.busy:
            self._plan_finish(worker)
        self._work(worker)
        self._plan(now + self._dice.after(self._weather.freezes_per_s), lambda: self._freeze(worker))

    def _slow_down(self, worker: _Worker) -> None:
        if worker.name in self._workers:
            self._count_capacity(worker)
            self.harmed.add(worker.name)
            worker.slow = self._weather.slow_factor
            self._plan(self._clock.now_s + self._dice.after(1 / self._weather.slow_s), lambda: self._speed_up(worker))

    def _speed_up(self, worker: _Worker) -> None:
        if worker.name in self._workers:
            self._count_capacity(worker)
            worker.slow = 1.0
            again_s = self._clock.now_s + self._dice.after(self._weather.slowdowns_per_s)
            self._plan(again_s, lambda: self._slow_down(worker))

    def _crash(self, worker: _Worker, why: str) -> None:
        self.harmed.add(worker.name)
        self._leave(worker, why)

    def _leave(self, worker: _Worker, why: str) -> None:
        if self._workers.pop(worker.name, None) is not None:
            if self._clock.now_s < worker.placed_s:
                self._never_ran.add(worker.name)
            self._count_capacity(worker)
            self._say(worker, Left(worker.name, why))

    def _count_capacity(self, worker: _Worker) -> None:
        """Count what a worker could have done since its state changed last."""
        now = self._clock.now_s
        if worker.ready and not worker.frozen:
            self._capacity_units += (now - worker.since_s) / (worker.kind.pace_s * worker.slow)
        worker.since_s = now
