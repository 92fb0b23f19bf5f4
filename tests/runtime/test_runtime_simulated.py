"""The simulated backend beyond the conformance suite: speeds, weather, seeds; and fleets that the dispatcher keeps
busy.
"""

from __future__ import annotations

import pytest

from stillhouse.runtime.backend import Answer, Hello, Left, Report
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.simulated.backend import Simulated
from stillhouse.runtime.simulated.simulation import Simulation, Student
from stillhouse.runtime.simulated.weather import Dice, Kind, VirtualClock, Weather
from stillhouse.runtime.work import Lease


def timed(kind: Kind, weather: Weather, loans: int, seed: int = 0) -> list[tuple[float, Report]]:
    """What one worker says when, given that many loans of one unit at once."""
    clock = VirtualClock()
    backend = Simulated(clock, [kind], weather, seed, len)
    name = backend.start()
    heard: list[tuple[float, Report]] = []
    for number in range(loans):
        backend.send(name, Lease("s", number, 1), b"x")
    while clock() < 1000:
        heard += [(clock(), report) for report in backend.poll(1000 - clock())]
    return heard


def test_time_passes_at_the_workers_speed() -> None:
    """Loading, then one answer after the other, each as long as its units take; nothing costs real time."""
    heard = timed(Kind(pace_s=2.0, load_s=5.0), Weather(), 3)
    assert [(at_s, type(report)) for at_s, report in heard] == [
        (5.0, Hello), (7.0, Answer), (9.0, Answer), (11.0, Answer)
    ]  # fmt: skip


def test_a_frozen_worker_is_silent_and_goes_on_where_it_stopped() -> None:
    """Freezing costs time, and nothing is lost by it."""
    heard = timed(Kind(pace_s=2.0), Weather(freezes_per_s=0.2, freeze_s=10.0), 5)
    assert [report.lease.number for _, report in heard if isinstance(report, Answer)] == [0, 1, 2, 3, 4]
    assert heard[-1][0] > 11.0


def test_the_end_comes_last_and_once() -> None:
    """Whatever the delays, nothing follows a worker's end."""
    for seed in range(20):
        heard = [report for _, report in timed(Kind(1.0), Weather(crashes_per_s=0.1, delay_s=3.0), 9, seed)]
        assert [isinstance(report, Left) for report in heard].index(True) == len(heard) - 1
        answers = [report.lease.number for report in heard if isinstance(report, Answer)]
        assert answers == list(range(len(answers)))


def test_answers_come_twice_and_poison_kills() -> None:
    """Duplicates follow their answer; a poisonous item ends its worker."""
    heard = [report for _, report in timed(Kind(1.0), Weather(duplicate_share=1.0), 2)]
    assert [report.lease.number for report in heard if isinstance(report, Answer)] == [0, 0, 1, 1]
    heard = [report for _, report in timed(Kind(1.0), Weather(poison={("s", 1): "crash"}), 3)]
    assert [type(report) for report in heard] == [Hello, Answer, Left]


def test_all_follows_from_the_seed() -> None:
    """The same seed says the same at the same times; another seed does not."""
    weather = Weather(freezes_per_s=0.1, delay_s=0.5, failure_share=0.2, duplicate_share=0.2)
    assert timed(Kind(1.0, jitter=0.5), weather, 20, 1) == timed(Kind(1.0, jitter=0.5), weather, 20, 1)
    assert timed(Kind(1.0, jitter=0.5), weather, 20, 1) != timed(Kind(1.0, jitter=0.5), weather, 20, 2)


def test_dice_are_fair() -> None:
    """Uniform numbers, integers with both ends, waits with the mean they are said to have."""
    dice = Dice(0, "test")
    numbers = [dice.uniform() for _ in range(10_000)]
    assert min(numbers) >= 0 and max(numbers) < 1 and sum(numbers) / len(numbers) == pytest.approx(0.5, abs=0.02)
    assert {dice.between(2, 4) for _ in range(100)} == {2, 3, 4}
    assert sum(dice.after(4.0) for _ in range(10_000)) / 10_000 == pytest.approx(0.25, rel=0.05)
    assert dice.after(0.0) == float("inf")


def fleet(speeds: list[float], students: int, window: int) -> tuple[Simulation, Simulated, VirtualClock]:
    """Workers of these speeds (items/s), and students that take as fast as they get."""
    clock = VirtualClock()
    kinds = [Kind(1 / speed, jitter=0.1) for speed in speeds]
    workers = Simulated(clock, kinds, Weather(delay_s=0.002), 0, lambda _: 1)
    plans = [Student(f"s{number}", (1,) * 100_000) for number in range(students)]
    return Simulation(Settings(window_bytes=window), workers, clock, plans, len(kinds)), workers, clock


def test_five_teachers_and_three_students_idle_nobody() -> None:
    """Every one of five teachers works at least 95 % of its time for three students."""
    simulation, _, clock = fleet([10.0] * 5, students=3, window=8)
    simulation.run(100.0)
    assert min(each.busy_share for each in simulation.dispatcher.status(clock()).workers) >= 0.95


def test_unequal_workers_give_the_sum_of_their_speeds() -> None:
    """Workers of speeds 1:2:4:8 reach at least 95 % of what they could do each on its own."""
    simulation, workers, clock = fleet([2.0, 4.0, 8.0, 16.0], students=1, window=40)
    simulation.run(200.0)
    done = simulation.dispatcher.status(clock()).totals.answered
    assert done >= 0.95 * workers.capacity_units()


def test_a_large_fleet() -> None:
    """A thousand workers, of which some die every second, and a hundred students: all are served, all invariants
    hold.
    """
    clock = VirtualClock()
    kinds = [Kind(0.2 * 2**number, jitter=0.2) for number in range(4)]
    weather = Weather(crashes_per_s=0.01, freezes_per_s=0.005, delay_s=0.002)
    workers = Simulated(clock, kinds, weather, 0, lambda _: 1)
    plans = [Student(f"s{number}", (1,) * 100, step_s=0.02) for number in range(100)]
    simulation = Simulation(Settings(window_bytes=60, lease_min_s=1.0), workers, clock, plans, 1000)
    assert simulation.run(1000.0)
    simulation.dispatcher.check()
    totals = simulation.dispatcher.status(clock()).totals
    assert totals.taken == 100 * 100 and totals.given_up == 0 and totals.lost > 10
