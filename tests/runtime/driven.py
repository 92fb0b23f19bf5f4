"""A real driver on a virtual clock: simulated workers in any weather, and students that ask, take and help themselves.

``drawn(seed)`` draws all of it. Students are generators that yield how long they are busy, or None while they wait for
an answer; whatever a student is given is looked at, and so is the driver after every turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

from stillhouse.runtime.asker import Asker, Facts, Loan, Outcome, Question
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.driver import Driver, Notice
from stillhouse.runtime.scaling.policy import Policy
from stillhouse.runtime.simulated.backend import Simulated
from stillhouse.runtime.simulated.weather import Dice, Kind, VirtualClock, Weather

NO_TIME_S = 1e-9
TEACHER = {"teacher": "the run's"}


def units(payload: bytes) -> float:
    return float(payload.split()[2])


def answer_to(payload: bytes) -> bytes:
    return b"answer to " + payload


def question(name: str, number: int, size: int) -> Question:
    """One of so many units, that fills as many bytes."""
    payload = f"{name} {number} {size}".encode()
    pack, answer = partial(_packed, payload), partial(answer_to, payload)
    return Question(size, size, pack, answer, lambda payload: "")


def gate(facts: Facts, proof: bytes | bytearray = b"") -> str | None:
    return None if facts.get("teacher") == TEACHER["teacher"] else "it is another teacher"


@dataclass(frozen=True)
class Plan:
    """One student: of ``sizes`` it takes ``leaves_after``, then comes again under another name for what is left."""

    name: str
    sizes: tuple[int, ...]
    step_s: float = 0.1
    begins_s: float = 0.0
    leaves_after: int | None = None
    helps: bool = True
    answer_s: float = 0.5


class Later:
    """A pool on the virtual clock: packs one thing after the other, so long each."""

    def __init__(self, backend: Simulated, clock: VirtualClock, pack_s: float) -> None:
        self._backend, self._clock, self._pack_s, self._free_s = backend, clock, pack_s, 0.0
        self.packed = 0

    def submit(self, work: Callable[[], None], /) -> None:
        def done() -> None:
            self.packed += 1
            work()

        self._free_s = max(self._free_s, self._clock()) + self._pack_s
        self._backend._plan(self._free_s, done)


class Life:
    """Driver, workers and students until all students are done.

    Args:
        patience_s: a student whose last worker is gone helps itself after that.
        pack_s: seconds that it takes to pack a question; None: no time.
    """

    def __init__(
        self,
        plans: list[Plan],
        kinds: list[Kind],
        weather: Weather,
        seed: int = 0,
        policy: Policy | None = None,
        settings: Settings | None = None,
        patience_s: float = 5.0,
        inline_pace_s: float | None = None,
        pack_s: float | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.settings = settings or Settings()
        self.weather, self.patience_s = weather, patience_s
        self.backend = Simulated(self.clock, kinds, weather, seed, units, answer_to)
        policy = policy or Policy(len(kinds), len(kinds))
        self.pool = Later(self.backend, self.clock, pack_s or 0.0)
        self.driver = Driver(
            self.backend,
            self.settings,
            policy,
            gate,
            lambda: inline_pace_s,
            self.clock,
            lambda facts: pack_s is not None,
            self.pool,
        )
        self.notices: list[Notice] = []
        self.given_up = self.helped = self.returned = 0
        self.taken: dict[str, int] = {}
        self._askers: dict[str, Asker] = {}
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._alone_since_s: float | None = None
        self._students = {plan.name: self._study(plan) for plan in plans}
        self._due_s = {plan.name: plan.begins_s for plan in plans}

    def run(self, until_s: float) -> None:
        """Go on until all are done.

        Raises:
            AssertionError: something that must hold does not, or they are not done by then.
        """
        while self._students:
            assert self.clock() < until_s, (self._students.keys(), self.driver.status)
            for name in [name for name, due_s in self._due_s.items() if due_s <= self.clock()]:
                wait_s = next(self._students[name], math.inf)
                self._due_s[name] = self.clock() + (wait_s or 0.0)
                if wait_s == math.inf:
                    del self._students[name], self._due_s[name]
            busy_until_s = min((due_s for due_s in self._due_s.values() if due_s > self.clock()), default=math.inf)
            self.turn(min(1.0, busy_until_s - self.clock()))

    def turn(self, timeout_s: float) -> None:
        """One turn of the driver, and a look at it."""
        self.driver.turn(timeout_s)
        driver, settings = self.driver, self.settings
        driver._dispatcher.check()
        assert driver.workers_left >= driver.workers_ready
        for name, asker in self._askers.items():
            mine = [key for key in driver._questions if key[0] == name]
            assert len(mine) <= asker.open, f"{name} has {asker.open} questions open, and {len(mine)} are kept"
            kept = sum(driver._questions[key].nbytes for key in driver._kept if key[0] == name)
            assert kept <= max(settings.window_bytes, max(self._sizes[name])), f"answers for {name} take {kept} bytes"
        self.notices += driver.notices()

    def end(self) -> None:
        """Whatever was kept is freed, and what the fleet told makes sense."""
        for _ in range(3):
            self.turn(0.0)
        driver = self.driver
        assert not (driver._questions or driver._kept or driver._askers or driver._helpers)
        assert not (driver._parcels._packed or any(driver._parcels._waiting.values()))
        driver.close()
        self.notices += driver.notices()
        self._check_notices()

    def _helps(self, plan: Plan) -> bool:
        """As a run decides it: where the policy says so, and when nobody is left."""
        if self.driver.workers_left:
            self._alone_since_s = None
            return plan.helps and self.driver.inline
        if self._alone_since_s is None:
            self._alone_since_s = self.clock()
        return self.clock() - self._alone_since_s >= self.patience_s

    def _study(self, plan: Plan) -> Generator[float | None, None, None]:
        name, sizes, first = plan.name, plan.sizes, plan.leaves_after
        yield plan.begins_s
        yield from self._visit(plan, name, sizes, len(sizes) if first is None else first)
        if first is not None:
            self.returned += 1
            yield plan.step_s
            yield from self._visit(plan, f"{name}-again", sizes[first:], len(sizes) - first)

    def _visit(self, plan: Plan, name: str, sizes: tuple[int, ...], wanted: int) -> Generator[float | None, None, None]:
        self._sizes[name] = sizes or (1,)
        asker = self._askers[name] = self.driver.asker(name)
        asked = 0
        for number in range(wanted):
            while asked < len(sizes) and asker.fits(sizes[asked]):
                assert asker.ask(question(name, asked, sizes[asked])) == asked
                asked += 1
            while not isinstance(found := asker.take(NO_TIME_S, self._helps(plan)), Outcome):
                if isinstance(found, Loan):
                    yield plan.answer_s
                    asker.settle(found, found.question.answer())
                    self.helped += 1
                else:
                    yield None
            assert found.number == number, f"{name} wants {number} and gets {found.number}"
            if found.payload is None:
                self.given_up += 1
                assert len(found.story) >= self.settings.tries_max
                blamed = {attempt.worker for attempt in found.story}
                assert self.weather.delay_s or blamed <= self.backend.harmed, found.story
            else:
                assert bytes(found.payload) == answer_to(f"{name} {number} {sizes[number]}".encode())
            self.taken[name] = number + 1
            if plan.step_s:
                yield plan.step_s
        asker.close()
        del self._askers[name]

    def _check_notices(self) -> None:
        seen: dict[str, list[str]] = {}
        for notice in self.notices:
            if notice.worker and notice.kind != "scaled":
                seen.setdefault(notice.worker, []).append(notice.kind)
        for worker, kinds in seen.items():
            assert "#" not in worker, f"{worker} is a student that helps itself: {kinds}"
            assert kinds.count("left") <= 1 and kinds.count("joined") <= 1, (worker, kinds)
            assert "left" not in kinds[:-1], (worker, kinds)
            assert "refused" not in kinds or "joined" not in kinds, (worker, kinds)
            doubts = [kind for kind in kinds if kind in ("suspect", "trusted")]
            assert doubts[::2] == ["suspect"] * len(doubts[::2]) and doubts[1::2] == ["trusted"] * len(doubts[1::2])
            assert not doubts or "joined" in kinds, (worker, kinds)


def _packed(payload: bytes, facts: Facts) -> bytes:
    assert gate(facts) is None, "asked of a worker that was turned away"
    return payload


def drawn(seed: int) -> Life:
    """A life of its own for each seed."""
    dice = Dice(seed, "driven")
    plans = []
    for number in range(dice.between(1, 3)):
        sizes = tuple(dice.between(1, 6) for _ in range(dice.between(3, 40)))
        plans.append(
            Plan(
                f"s{number}",
                sizes,
                step_s=0.3 * dice.uniform() if dice.chance(0.7) else 0.0,
                begins_s=4 * dice.uniform() if dice.chance(0.4) else 0.0,
                leaves_after=dice.between(0, len(sizes)) if dice.chance(0.3) else None,
                helps=dice.chance(0.7),
                answer_s=(0.01, 0.3, 4.0)[dice.between(0, 2)],
            )
        )
    kinds = [_kind(dice) for _ in range(dice.between(1, 4))]
    fewest = dice.between(1, len(kinds))
    return Life(
        plans,
        kinds,
        _weather(dice, plans),
        seed,
        Policy(fewest, fewest + dice.between(0, 3)),
        Settings(
            window_bytes=dice.between(1, 60),
            lease_min_s=0.1 + dice.uniform(),
            first_lease_s=2 + 8 * dice.uniform(),
            suspect_patience_s=1 + 4 * dice.uniform(),
            round_trip_s=0.1 * dice.uniform(),
        ),
        patience_s=8 * dice.uniform(),
        inline_pace_s=0.05 if dice.chance(0.5) else None,
        pack_s=(None, None, 0.05, 1.0)[dice.between(0, 3)],
    )


def _kind(dice: Dice) -> Kind:
    facts: dict[str, Any] = TEACHER if dice.chance(0.85) else {}
    return Kind(
        pace_s=0.02 * 2 ** dice.between(0, 3),
        load_s=math.inf if dice.chance(0.05) else 3 * dice.uniform(),
        slots=dice.between(1, 5),
        jitter=0.3 * dice.uniform(),
        tells_pace=dice.chance(0.5),
        facts=facts,
        last_words="no memory" if dice.chance(0.1) else None,
    )


def _weather(dice: Dice, plans: list[Plan]) -> Weather:
    def sometimes(most: float) -> float:
        return most * dice.uniform() if dice.chance(0.5) else 0.0

    poison = {}
    for plan in plans:
        for number in range(len(plan.sizes)):
            if dice.chance(0.03):
                poison[plan.name, number] = ("crash", "fail", "hang")[dice.between(0, 2)]
    return Weather(
        crashes_per_s=sometimes(0.2),
        leaves_per_s=sometimes(0.2),
        freezes_per_s=sometimes(0.3),
        freeze_s=0.1 + 4 * dice.uniform(),
        forever_share=sometimes(0.5),
        slowdowns_per_s=sometimes(0.2),
        slow_s=0.1 + 4 * dice.uniform(),
        delay_s=sometimes(0.1),
        failure_share=sometimes(0.02),
        duplicate_share=sometimes(0.2),
        poison=poison if dice.chance(0.3) else {},  # type: ignore[arg-type]
        arrivals=[(9 * dice.uniform(), _kind(dice)) for _ in range(dice.between(0, 3))],
    )
