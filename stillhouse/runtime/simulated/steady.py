"""A fleet in fair weather, once it is under way: what the dispatcher itself makes of a plan's arithmetic.

Workers' times vary by a tenth, messages take two milliseconds, nobody dies. Costs some tenths of a second a fleet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.simulated.backend import Simulated
from stillhouse.runtime.simulated.simulation import Simulation, Student
from stillhouse.runtime.simulated.weather import Kind, VirtualClock, Weather

JITTER: Final = 0.1
DELAY_S: Final = 0.002
_ITEMS = 1000
_ROUNDS = 10
_SURPLUS_MIN = 0.02
_STUDENT = "student"


@dataclass(frozen=True)
class Steady:
    """What a simulated fleet gave.

    Attributes:
        throughput: units/s that the student took.
        starved_share: of the student's time, 0 to 1.
        idle_share: of the workers' time, 0 to 1.
    """

    throughput: float
    starved_share: float
    idle_share: float


def steady(rates: Sequence[float], demand: float, item: int, window: int, seed: int) -> Steady:
    """Simulate one student and its workers, and measure when all are at work.

    Args:
        rates: units/s of each worker.
        demand: units/s that the student takes if it never waits.
        item: units of a question.
        window: units that may be asked and not taken; at least one question.
        seed: of the times that vary.
    """
    clock = VirtualClock()
    kinds = [Kind(pace_s=1.0 / rate, jitter=JITTER) for rate in rates]
    workers = Simulated(clock, kinds, Weather(delay_s=DELAY_S), seed, int)
    span_s = max(_ITEMS * item / min(sum(rates), demand), _ROUNDS * item / min(rates))
    surplus = max(sum(rates) - demand, _SURPLUS_MIN * demand)
    begins_s = max(span_s / 4.0, window / surplus)  # a window that fills keeps workers busy that idle later
    needed = int((begins_s + span_s) * demand / item) + window // item + 2
    student = Student(_STUDENT, (item,) * needed, step_s=item / demand)
    simulation = Simulation(Settings(window_bytes=max(window, item)), workers, clock, [student], len(kinds))
    taker = simulation.takers[_STUDENT]
    simulation.run(begins_s)
    begun_s, taken, worked_s = clock(), taker.taken, sum(workers.worked_s().values())
    simulation.run(begins_s + span_s)
    spent_s = clock() - begun_s
    throughput = min(item * (taker.taken - taken) / spent_s, demand)
    busy = (sum(workers.worked_s().values()) - worked_s) / (spent_s * len(kinds))
    return Steady(throughput, 1.0 - throughput / demand, min(max(1.0 - busy, 0.0), 1.0))
