"""The dispatcher, and fleets that exist only on a virtual clock: all claims are **simulated**, messages take 2 ms.

``dispatcher_events`` is real time of the real dispatcher: the events of a simulated fleet of 10,000 workers and 1,000
students, recorded, then replayed with nothing else in the process at work. No peer has such a part to race, so
``rival`` is an aim or an ideal, and each definition says which. A round of the other claims is a seed.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness import Claim, claim_of, quick, tell
from stillhouse.runtime import work
from stillhouse.runtime.dispatch.dispatcher import Dispatcher
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.simulated.backend import Simulated
from stillhouse.runtime.simulated.simulation import Simulation, Student
from stillhouse.runtime.simulated.weather import Kind, VirtualClock, Weather

AIM = 50_000.0
UNITS = 256
FLEET, STUDENTS, WINDOW = 10_000, 1_000, 80
SCALE = "simulated: 10,000 workers of speeds 1:2:4:8 (1 to 8 s an item), 1,000 students, 1 % of workers dying a minute"
EVENTS = f"events a second of the dispatcher on one core, commands included; {SCALE}: ours / the aim of 50,000"
SHARE = f"units a second, students that want more than there is; {SCALE}: ours / sum of what the workers alive could do"
WAIT = (
    f"{SCALE}, students that want 95 % of what there is: "
    "units a second of a student in its slowest hundredth of steps / of one that never waits; "
    "p99 wait {wait:.3f} s, step {step:.3f} s"
)
BUSY = "simulated: 5 workers, 3 students that want more than there is: the least busy worker, % of its time / 100 %"
MIXED = "simulated: units a second of 4 workers of speeds 1:2:4:8, a window of 40 items / sum of their own"


@dataclass(frozen=True)
class Played:
    """What a simulated fleet did after its warm-up; ``busy`` is the least busy worker's share of working time."""

    units_per_s: float
    ideal_per_s: float
    busy: float
    waits_s: Sequence[float]


def play(
    items_s: Sequence[float], workers: int, students: int, step_s: float, window: int, seed: int, span: tuple[float,
    float], weather: Weather, record: list[tuple[work.Event, float]] | None = None,
) -> Played:  # fmt: skip
    """Play a fleet up to the end of ``span``, and measure within it."""
    clock = VirtualClock()
    backend = Simulated(clock, [Kind(each / UNITS, jitter=0.1) for each in items_s], weather, seed, int)
    sizes = (UNITS,) * 1_000_000
    plans = [Student(f"s{n}", sizes, step_s=step_s, begins_s=step_s * n / students) for n in range(students)]

    def keep(event: work.Event, now: float, commands: list[work.Command]) -> None:
        if record is not None:
            record.append((event, now))

    simulation = Simulation(Settings(window_bytes=UNITS * window), backend, clock, plans, workers, keep)
    simulation.run(span[0])
    before, capacity = simulation.dispatcher.status(clock()), backend.capacity_units()
    worked_s = backend.worked_s()
    taken = {name: taker.taken for name, taker in simulation.takers.items()}
    simulation.run(span[1])
    after, spent_s = simulation.dispatcher.status(clock()), span[1] - span[0]
    return Played(
        units_per_s=UNITS * (after.totals.answered - before.totals.answered) / spent_s,
        ideal_per_s=(backend.capacity_units() - capacity) / spent_s,
        busy=min((each - worked_s.get(name, 0.0)) / spent_s for name, each in backend.worked_s().items()),
        waits_s=[wait for name, taker in simulation.takers.items() for wait in taker.waits_s[taken[name] :]],
    )


def scale(load: float, seed: int, until_s: float, record: list[tuple[work.Event, float]] | None = None) -> Played:
    """The large fleet, its students wanting ``load`` times what it can do.

    Workers begin together: only between multiples of the slowest one's 8 s an item no class has a head start.
    """
    items_s = [8.0, 4.0, 2.0, 1.0]
    weather = Weather(crashes_per_s=0.01 / 60, delay_s=0.002)
    return play(items_s, FLEET, STUDENTS, step_of(items_s, load), WINDOW, seed, (until_s / 2, until_s), weather, record)


def step_of(items_s: Sequence[float], load: float) -> float:
    """Seconds between two items that a student wants."""
    items_per_s = FLEET / len(items_s) * sum(1 / each for each in items_s)
    return STUDENTS / (items_per_s * load)


def replay(record: Sequence[tuple[work.Event, float]]) -> float:
    """Events a second."""
    handle = Dispatcher(Settings(window_bytes=UNITS * WINDOW)).handle
    gc.collect()
    begun = time.perf_counter()
    for event, now in record:
        handle(event, now)
    return len(record) / (time.perf_counter() - begun)


def waits(seeds: Sequence[int], until_s: float) -> Claim:
    """The claim about the slowest steps."""
    step_s = step_of([8.0, 4.0, 2.0, 1.0], 0.95)
    slowest = [statistics.quantiles(scale(0.95, seed, until_s).waits_s, n=100)[98] for seed in seeds]
    definition = WAIT.format(wait=statistics.median(slowest), step=step_s)
    ours = [UNITS / (step_s + each) for each in slowest]
    return claim_of("scale_wait_p99", definition, "units/s", ours, [UNITS / step_s] * len(seeds))


def small(seeds: Sequence[int]) -> list[Claim]:
    """The claims about a handful of workers."""
    calm, span = Weather(delay_s=0.002), (20.0, 400.0)
    busy = [100 * play([0.1], 5, 3, 0.0, 8, seed, span, calm).busy for seed in seeds]
    mixed = [play([0.8, 0.4, 0.2, 0.1], 4, 1, 0.0, 40, seed, span, calm) for seed in seeds]
    ours, ideal = [each.units_per_s for each in mixed], [each.ideal_per_s for each in mixed]
    return [
        claim_of("all_busy_simulated", BUSY, "%", busy, [100.0] * len(seeds)),
        claim_of("mixed_speeds_simulated", MIXED, "units/s", ours, ideal),
    ]


if __name__ == "__main__":
    short = quick()
    seeds = range(1) if short else range(3)
    until_s = 32.0 if short else 64.0
    found = small(range(3) if short else range(10))
    record: list[tuple[work.Event, float]] = []
    played = [scale(1.2, seed, until_s, record if seed == 0 else None) for seed in seeds]
    gc.freeze()
    rates = [replay(record) for _ in range(2 if short else 7)]
    record.clear()
    found.append(claim_of("dispatcher_events", EVENTS, "events/s", rates, [AIM] * len(rates)))
    ours, ideal = [each.units_per_s for each in played], [each.ideal_per_s for each in played]
    found.append(claim_of("scale_throughput", SHARE, "units/s", ours, ideal))
    found.append(waits(seeds, until_s))
    tell("runtime", found, write=not short)
