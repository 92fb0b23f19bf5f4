"""The scaling policy's rules, one at a time: a view and a memory in, a decision out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stillhouse.runtime.scaling.memory import Ceiling, Memory, Trial
from stillhouse.runtime.scaling.policy import Decision, Grow, Policy, RunInline, Shrink, Stay, StopInline
from stillhouse.runtime.scaling.view import ConsumerView, FleetView, State, WorkerView

POLICY = Policy(1, 8)
SETTLED = Memory(wanted=1)  # of a fleet that began long ago


def worker(
    name: str, rate: float | None = 10.0, state: State = "ready", busy: float = 1.0, held: int = 0
) -> WorkerView:
    return WorkerView(name, "cpu", state, None if rate is None else 1.0 / rate, busy, held)


def student(rate: float | None = 10.0, buffered: int = 0, starved: float = 0.0) -> ConsumerView:
    return ConsumerView("student", rate, buffered, 100, starved > 0, starved)


def view(workers: list[WorkerView], *students: ConsumerView, **other: object) -> FleetView:
    return FleetView(tuple(workers), students, pending_units=50, **other)  # type: ignore[arg-type]


def decide(seen: FleetView, memory: Memory = SETTLED, now_s: float = 1000.0, policy: Policy = POLICY) -> Decision:
    return policy.decide(seen, memory, now_s)[0]


def until(seconds: int, seen: FleetView, memory: Memory = SETTLED, policy: Policy = POLICY) -> tuple[Decision, Memory]:
    """What the policy first does within so many seconds of the same view, or the last of its reasons to do nothing."""
    decision: Decision = Stay("")
    for second in range(seconds + 1):
        decision, memory = policy.decide(seen, memory, 1000.0 + second)
        if not isinstance(decision, Stay):
            break
    return decision, memory


def test_a_bad_spell_is_forgotten() -> None:
    """Starving beside busy workers keeps more than demand needs; a buffer that is full for long after that lets go."""
    four, memory = [worker(name, 100.0) for name in "abcd"], Memory()
    for second in range(40):
        starved = ConsumerView("student", 190.0, 0, 2000, True, 0.6)
        memory = POLICY.decide(view(four, starved), memory, 1000.0 + second)[1]
    assert memory.scarce == 2.0
    full = view(four, ConsumerView("student", 190.0, 1900, 2000, False, 0.0))
    found = {}
    for second in range(1200):
        decision, memory = POLICY.decide(full, memory, 1040.0 + second)
        found.setdefault(type(decision), second)
    assert 100 < found[Shrink] < 600


def test_nobody_asks_anything() -> None:
    """Students for which everything is stored want nothing: the fleet shrinks to its minimum; others still count."""
    three, done = [worker(name) for name in "abc"], student(0.0)
    decision, _ = until(30, view(three, done), policy=Policy(1, 8))
    assert isinstance(decision, Shrink)
    assert isinstance(until(30, view(three[:1], done))[0], Stay)
    assert isinstance(until(30, view(three, done, student(28.0, 90)))[0], Stay)
    assert isinstance(until(30, view(three, done, student(5.0, 90)))[0], Shrink)
    assert isinstance(until(30, view(three))[0], Stay), "nobody has asked yet"


def test_a_view_is_summed_up() -> None:
    """Only ready, measured workers count as capacity; demand is known when every consumer's is."""
    workers = [worker("a", 4.0), worker("b", None), worker("c", 9.0, "suspect"), worker("d", 9.0, "draining")]
    seen = view([*workers, worker("e", None, "loading")], student(3.0), student(5.0))
    assert seen.rate == seen.typical_rate == seen.coming_rate == 4.0
    assert seen.demand == 8.0
    assert view(workers, student(3.0), student(None)).demand is None is view(workers).demand


def test_begins_with_the_minimum() -> None:
    """Before anything is measured the minimum is started, even where nobody asks yet."""
    assert decide(view([]), Memory(), policy=Policy(3, 8)).count == 3  # type: ignore[union-attr]
    assert isinstance(decide(view([worker("a", None, "loading")], student(None)), Memory()), Stay)


def test_no_more_load_at_once_than_a_machine_can_hold() -> None:
    """A hundred are wanted and two can start at once: two, then none until they are ready, then two more."""
    policy = Policy(1, 100, starts_max=2)
    first, memory = policy.decide(view([worker("a")], student(1000.0)), Memory(), 1000.0)
    assert isinstance(first, Grow) and first.count == 2
    loading = [worker(name, None, "loading") for name in "bc"]
    waits, memory = policy.decide(view([worker("a"), *loading], student(1000.0)), memory, 1100.0)
    assert isinstance(waits, Stay) and "2 load, and no more can at once" in waits.why
    half = view([worker("a"), worker("b"), loading[1]], student(1000.0))
    second, memory = policy.decide(half, memory, 1110.0)
    assert isinstance(second, Grow) and second.count == 1
    assert decide(view([]), Memory(), policy=Policy(50, 100, starts_max=4)).count == 4  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="starts_max"):
        Policy(1, 2, starts_max=0)


@pytest.mark.parametrize(("demand", "more"), [(10.0, 0), (11.0, 1), (35.0, 3), (1000.0, 7)])
def test_begins_with_students_rate_over_teachers_rate(demand: float, more: int) -> None:
    """As soon as both rates are measured: ceil(student rate / teacher rate) workers, within the limits."""
    decision = decide(view([worker("a")], student(demand)), Memory())
    assert (decision.count if isinstance(decision, Grow) else 0) == more


@pytest.mark.parametrize(("demand", "more"), [(10.0, 1), (30.0, 2), (40.0, 3), (1000.0, 6)])
def test_low_water_grows_by_the_deficit(demand: float, more: int) -> None:
    """A waiting student and busy workers: as many as are missing with a margin, at least one, at most the limit."""
    decision = decide(view([worker("a"), worker("b")], student(demand, starved=0.5)))
    assert isinstance(decision, Grow) and decision.count == more


def test_a_student_that_waited_lately_and_does_not_now_is_no_reason_to_grow() -> None:
    """Shares of recent time lag behind: after a growth that was enough they still tell of the time before."""
    late = ConsumerView("student", 20.0, 10, 100, waiting=False, starved_share=0.3)
    assert isinstance(until(30, view([worker("a"), worker("b")], late))[0], Stay)


def test_low_water_counts_those_that_load() -> None:
    """What the loading workers will give is not started twice; those of a kind are taken to be alike."""
    loading = [worker("b", None, "loading"), worker("c", None, "loading")]
    assert isinstance(decide(view([worker("a"), *loading], student(25.0, starved=0.5))), Stay)
    assert decide(view([worker("a"), *loading], student(40.0, starved=0.5))).count == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (view([worker("a", busy=0.5)], student(30.0, starved=0.5)), "work only 50%"),
        (replace(view([worker("a")], student(30.0, starved=0.5)), pending_units=0), "more would not help"),
        (view([worker(str(n)) for n in range(8)], student(300.0, starved=0.5)), "8 are allowed"),
        (view([worker("a")], student(30.0, buffered=60)), "1 worker gives 10 views/s"),
    ],
)
def test_no_growth_where_it_would_not_help(seen: FleetView, why: str) -> None:
    """Idle workers, nothing asked, no room, or nobody waiting: it stays, and says why."""
    decision = decide(seen)
    assert isinstance(decision, Stay) and why in decision.why


def test_all_that_live_count_against_the_limit() -> None:
    """Suspect and draining workers are no capacity, and still take the place that the limit grants."""
    lost = [worker(str(n), state="suspect" if n % 2 else "draining") for n in range(6)]
    assert decide(view([worker("a"), *lost], student(90.0, starved=0.5))).count == 1  # type: ignore[union-attr]
    assert isinstance(decide(view([*lost, worker("a"), worker("b")], student(90.0, starved=0.5))), Stay)


def test_the_dead_are_replaced_as_far_as_needed() -> None:
    """Of two lost workers only the one that demand needs comes back, at once, before anybody waits."""
    memory = Memory(wanted=5, changed_s=900.0)
    assert decide(view([worker(n) for n in "abc"], student(38.0, 90)), memory).count == 1  # type: ignore[union-attr]
    assert isinstance(decide(view([worker(n) for n in "abcd"], student(38.0, 90)), memory), Stay)
    suspect = worker("e", state="suspect")
    assert isinstance(decide(view([worker(n) for n in "abc"] + [suspect], student(28.0, 90)), memory), Stay)


def test_replacements_under_way_count() -> None:
    """What the loading ones will give is not missing, even where one worker fewer than before is there."""
    coming = [worker(n, None, "loading") for n in "cd"]
    seen = view([worker("a"), worker("b"), *coming], student(38.0, 90))
    assert isinstance(decide(seen, Memory(wanted=5, changed_s=900.0)), Stay)


def test_a_change_is_followed_by_a_pause() -> None:
    """No growth within a worker's start time, or 5 s, of the last change; afterwards yes."""
    seen = view([worker("a")], student(30.0, starved=0.5), start_s=20.0)
    assert isinstance(decide(seen, replace(SETTLED, changed_s=981.0)), Stay)
    assert isinstance(decide(seen, replace(SETTLED, changed_s=980.0)), Grow)
    assert isinstance(decide(replace(seen, start_s=None), replace(SETTLED, changed_s=995.0)), Grow)


def test_high_water_releases_the_slowest_surplus_worker() -> None:
    """Full for ten seconds, and without the slowest still enough with a margin: it goes; not a second earlier."""
    seen = view([worker("a", 10.0), worker("b", 3.0), worker("c", 10.0)], student(17.0, buffered=80))
    assert isinstance(until(9, seen)[0], Stay)
    decision, memory = until(10, seen)
    assert isinstance(decision, Shrink) and decision.worker == "b"
    assert isinstance(POLICY.decide(seen, memory, 1012.0)[0], Stay)


@pytest.mark.parametrize(
    "seen",
    [
        view([worker("a"), worker("b")], student(9.0, buffered=80)),
        view([worker("a"), worker("b"), worker("c")], student(5.0, buffered=74)),
        view([worker("a"), worker("b"), worker("c")], student(5.0, 90), student(5.0, 90, starved=0.01)),
        view([worker("a"), worker("b"), worker("c")], student(None, buffered=90)),
        view([worker("a")], student(0.1, buffered=90)),
        view([worker("a"), worker("b"), worker("c")]),
    ],
    ids=["no margin", "not full", "one waits", "not measured", "at the minimum", "nobody asks"],
)
def test_no_release_where_it_might_be_missed(seen: FleetView) -> None:
    """Without margin, high water, measures, room above the minimum or a consumer, and while one waits, all stay."""
    assert isinstance(until(60, seen)[0], Stay)


def test_who_waited_meanwhile_starts_the_count_anew() -> None:
    """High water is sustained only if nobody waited in between, however short."""
    workers = [worker("a"), worker("b")]
    full, waits = view(workers, student(5.0, 80)), view(workers, student(5.0, 80, starved=0.01))
    _, memory = until(8, full)
    _, memory = POLICY.decide(waits, memory, 1009.0)
    assert isinstance(POLICY.decide(full, memory, 1011.0)[0], Stay)


def test_what_costs_long_to_start_is_kept_longer() -> None:
    """A surplus worker goes after twice the time that starting one takes."""
    seen = view([worker("a"), worker("b")], student(5.0, buffered=80), start_s=30.0)
    assert isinstance(until(59, seen)[0], Stay) and isinstance(until(60, seen)[0], Shrink)


def test_a_worker_that_never_came_is_released_first() -> None:
    """With enough without it, a worker that still loads, perhaps waiting for a machine, is the slowest of all."""
    seen = view([worker("a"), worker("b"), worker("c", None, "loading")], student(15.0, buffered=80))
    assert until(10, seen)[0].worker == "c"  # type: ignore[union-attr]


def test_a_full_buffer_is_full_whatever_is_on_loan() -> None:
    """Of a small window most is with the workers: it counts as full when the rest lies answered."""
    assert view([worker("a", held=60)], student(buffered=40)).full(0.75)
    assert not view([worker("a", held=40)], student(buffered=40)).full(0.75)
    assert not view([worker("a", held=100)], student(buffered=0)).full(0.75)


def test_learns_what_is_not_enough() -> None:
    """Students that starve beside saturated workers of 1.2 times their rate: no release down to that any more."""
    _, memory = until(15, view([worker("a", 12.0)], student(10.0, starved=0.3)), policy=Policy(1, 1))
    assert memory.scarce == pytest.approx(1.2)
    seen = view([worker("a", 12.0), worker("b", 1.0)], student(10.0, buffered=90))
    assert isinstance(until(40, seen, Memory(wanted=2, scarce=1.2))[0], Stay)
    assert isinstance(until(40, seen, Memory(wanted=2))[0], Shrink)


class TestGrowthIsJudged:
    """Ten seconds after the last newcomer is ready, by the rate before and after."""

    BEFORE = Memory(wanted=2, changed_s=980.0, loading_s=985.0, trial=Trial({"a": 10.0, "b": 10.0}))

    def test_it_did_not_pay(self) -> None:
        """Four workers as fast as two were: no more are started, and the reason says so."""
        seen = view([worker(n, 5.0) for n in "abcd"], student(90.0, starved=0.5))
        decision, memory = POLICY.decide(seen, self.BEFORE, 1000.0)
        assert memory.ceiling == Ceiling(2, 20.0)
        assert isinstance(decision, Stay) and "did not rise above 20 views/s" in decision.why

    def test_it_paid(self) -> None:
        """The total rose by what the newcomers give, however little that is: growing goes on."""
        seen = view([worker("a"), worker("b"), worker("c", 1.0)], student(90.0, starved=0.5))
        decision, memory = POLICY.decide(seen, self.BEFORE, 1000.0)
        assert memory.ceiling is None and isinstance(decision, Grow)

    def test_the_lost_are_not_held_against_it(self) -> None:
        """A worker that died meanwhile is taken out of what was before."""
        seen = view([worker("a"), worker("c")], student(90.0, starved=0.5))
        assert POLICY.decide(seen, self.BEFORE, 1000.0)[1].ceiling is None

    def test_not_before_paces_have_settled(self) -> None:
        """Until then students may starve: nothing is started, nothing is judged."""
        seen = view([worker(n, 5.0) for n in "abcd"], student(90.0, starved=0.5))
        decision, memory = POLICY.decide(seen, self.BEFORE, 990.0)
        assert memory.trial and isinstance(decision, Stay) and "not judged yet" in decision.why

    def test_a_rate_that_rises_by_itself_lifts_the_ceiling(self) -> None:
        """When the workers that are there become faster, growing is tried again."""
        memory = Memory(wanted=2, ceiling=Ceiling(2, 20.0))
        assert isinstance(decide(view([worker(n) for n in "ab"], student(90.0, starved=0.5)), memory), Stay)
        assert isinstance(decide(view([worker(n, 12.5) for n in "ab"], student(90.0, starved=0.5)), memory), Grow)

    def test_below_the_ceiling_the_dead_are_replaced(self) -> None:
        """The ceiling is a number of workers: with fewer, growing up to it is as good as ever."""
        for wanted in (1, 4):
            memory = Memory(wanted=wanted, ceiling=Ceiling(2, 20.0))
            assert decide(view([worker("a")], student(90.0, starved=0.5)), memory).count == 1  # type: ignore[union-attr]


class TestInline:
    """Students answer themselves where they are faster so."""

    FULL = replace(SETTLED, inline_s=900.0)

    def test_at_once_where_no_worker_is_ready(self) -> None:
        """Whether none was started yet or all are gone; but only a student that can, and that waits."""
        loading = [worker("a", None, "loading")]
        assert isinstance(decide(view(loading, student(None, starved=0.01), inline_pace_s=0.1)), RunInline)
        assert isinstance(decide(view(loading, student(None, starved=0.01))), Stay)
        assert isinstance(decide(view(loading, student(None), inline_pace_s=0.1)), Stay)

    def test_where_alone_is_faster_than_the_fleet(self) -> None:
        """Starved for ten seconds, with a fleet slower than inline alone: not waiting for growth to come."""
        seen = view([worker("a", 2.0), worker("b", None, "loading")], student(10.0, starved=0.8), inline_pace_s=0.1)
        memory = replace(SETTLED, changed_s=999.0)
        assert isinstance(until(9, seen, memory, Policy(1, 2))[0], Stay)
        decision = until(10, seen, memory, Policy(1, 2))[0]
        assert isinstance(decision, RunInline) and "alone the students would take 5 views/s" in decision.why

    @pytest.mark.parametrize(("demand", "helps"), [(20.0, True), (10.5, False)])
    def test_beside_a_fleet_that_can_not_grow(self, demand: float, helps: bool) -> None:
        """Where both together are a tenth faster than the fleet, which has all the workers that it may have."""
        seen = view([worker("a", 10.0)], student(demand, starved=0.5), inline_pace_s=0.1)
        assert isinstance(until(30, seen, policy=Policy(1, 1))[0], RunInline) == helps
        assert isinstance(until(30, seen)[0], Grow), "where it can grow, it does that first"

    def test_until_the_buffer_is_full_for_a_while(self) -> None:
        """A fleet that fills the buffer needs no help; ten seconds make sure."""
        seen = view([worker("a"), worker("b")], student(15.0, buffered=80), inline_pace_s=0.1)
        assert isinstance(until(9, seen, self.FULL)[0], Stay)
        assert isinstance(until(10, seen, self.FULL)[0], StopInline)

    def test_no_release_while_it_runs(self) -> None:
        """First students stop answering themselves, then a worker may go."""
        seen = view([worker("a"), worker("b"), worker("c")], student(5.0, buffered=80), inline_pace_s=0.1)
        decision, memory = until(60, seen, self.FULL)
        assert isinstance(decision, StopInline)
        assert isinstance(until(60, seen, memory)[0], Shrink)

    def test_where_it_harms_it_ends(self) -> None:
        """Students that take less since they answer themselves stop, and don't begin again beside the same fleet."""
        memory = replace(SETTLED, inline_s=980.0, progress=10.0)
        slowed = view([worker("a", 6.0)], student(16.0, starved=0.5), inline_pace_s=0.1)
        decision, memory = Policy(1, 1).decide(slowed, memory, 1000.0)
        assert isinstance(decision, StopInline) and memory.inline_s is None and memory.inline_harms == 1
        decision, memory = until(60, slowed, memory, Policy(1, 1))
        assert isinstance(decision, Stay) and memory.inline_s is None

    def test_where_it_does_not_harm_it_is_judged_once(self) -> None:
        """A student that later becomes slower for other reasons is not taken from it."""
        memory = replace(SETTLED, inline_s=980.0, progress=8.0)
        _, memory = Policy(1, 1).decide(view([worker("a")], student(16.0, starved=0.5)), memory, 1000.0)
        assert memory.progress is None and memory.inline_s == 980.0


@pytest.mark.parametrize("limits", [(0, 3), (3, 2), (-1, -1)])
def test_wrong_limits(limits: tuple[int, int]) -> None:
    """A minimum below 1 or above the maximum is refused."""
    with pytest.raises(ValueError, match="1 <= min <= max"):
        Policy(*limits)


@pytest.mark.parametrize("marks", [(0.5, 0.5), (-0.1, 0.5), (0.2, 1.1)])
def test_wrong_water_marks(marks: tuple[float, float]) -> None:
    """Marks out of order or out of the window are refused."""
    with pytest.raises(ValueError, match="low < high"):
        Policy(1, 2, *marks)


def test_deciding_changes_nothing() -> None:
    """The same view, memory and time give the same decision and memory, as often as one asks."""
    seen, memory = view([worker("a")], student(30.0, starved=0.5)), Memory(wanted=1)
    assert POLICY.decide(seen, memory, 5.0) == POLICY.decide(seen, memory, 5.0)
    assert memory == Memory(wanted=1)


def test_reasons_are_for_people() -> None:
    """Rates have separators and their unit, one worker is no workers, and none is none."""
    fast = [WorkerView(name, "cpu", "ready", 1 / 7360, 1.0, 0) for name in ("a", "b")]
    rich = until(60, view(fast, student(6000.0, 90)), policy=Policy(1, 8))[0]
    assert isinstance(rich, Shrink) and "the others give 7,360 views/s, students take 6,000 views/s" in rich.why
    first = decide(view([], student(None)), policy=Policy(1, 8))
    assert isinstance(first, Grow) and first.why == "the run keeps 1 worker, and has none"
