"""How many workers of which kind a job should have: rates and prices in, a table of fleets out. Arithmetic only.

What is expected is an upper bound: students take ``min(D, F)`` of demand D and fleet F, units/s, as if transport were
free and work divided to the last unit. A student alone computes both steps and answers: ``D I / (D + I)``. Views that
were asked before come from the label store, at the student's own rate; the fleet is paid only while it is asked.

Fleets that cost more an hour than another and give no more are left out, kind by kind, so that three kinds of a
hundred workers each take about a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Kind:
    """Workers that are alike.

    Attributes:
        rate: units/s of one.
        price: of one, an hour, in any currency.
        watts: of one while it is asked.
        available: the most that can be had.
    """

    name: str
    rate: float
    price: float
    watts: float
    available: int


@dataclass(frozen=True)
class Job:
    """What is to be learnt.

    Attributes:
        samples: units in an epoch.
        epochs: passes over them.
        views: epochs whose answers must be asked, or a part of one; those of the others are in the store.
        rate: units/s of the students together if they never waited.
        inline_rate: units/s of answers if the students computed them, and did nothing else; None: they can't.
        price, watts: of the students together, as for a worker.
    """

    samples: int
    epochs: int
    views: float
    rate: float
    inline_rate: float | None = None
    price: float = 0.0
    watts: float = 0.0


@dataclass(frozen=True)
class Row:
    """What to expect of one fleet.

    Attributes:
        workers: number of each kind, those with none left out; empty: the students answer themselves.
        throughput: units/s while answers are asked.
        starved_share: of the students' time while answers are asked, 0 to 1.
        idle_share: of the workers' time then; 0 without workers.
        seconds: of the whole job, stored epochs too.
        cost: of workers and students, in the currency of the prices.
        energy_wh: of workers and students, watt-hours.
    """

    workers: tuple[tuple[str, int], ...]
    throughput: float
    starved_share: float
    idle_share: float
    seconds: float
    cost: float
    energy_wh: float

    @property
    def count(self) -> int:
        """Workers of all kinds."""
        return sum(count for _, count in self.workers)


@dataclass(frozen=True)
class _Fleet:
    workers: tuple[tuple[str, int], ...] = ()
    rate: float = 0.0
    price: float = 0.0
    watts: float = 0.0
    count: int = 0

    def plus(self, kind: Kind, count: int) -> _Fleet:
        return _Fleet(
            (*self.workers, (kind.name, count)),
            self.rate + count * kind.rate,
            self.price + count * kind.price,
            self.watts + count * kind.watts,
            self.count + count,
        )


def plan(kinds: Sequence[Kind], job: Job) -> tuple[Row, ...]:
    """What to expect of each fleet that is worth its price, from the slowest to the fastest.

    A fleet is worth its price if none that costs less an hour is as fast; where prices are equal watts decide, then
    the number of workers. The first row is that of no fleet at all, where students can answer themselves.

    Raises:
        ValueError: a rate that is not positive, or a job of nothing.
    """
    if min([job.rate, job.samples, job.epochs, *(kind.rate for kind in kinds)]) <= 0:
        raise ValueError("a plan needs positive rates, samples and epochs")
    fleets = [_Fleet()]
    for kind in kinds:
        most = min(kind.available, ceil(job.rate / kind.rate))
        grown = (fleet.plus(kind, count) for fleet in fleets for count in range(1, most + 1))
        fleets = _worth_their_price([*fleets, *grown], job.rate)
    return tuple(_row(fleet, job) for fleet in fleets if fleet.count or job.inline_rate)


def cheapest(rows: Iterable[Row], job: Job, share: float) -> Row | None:
    """The row that costs least among those with at least ``share`` of the students' own rate; None: there is none."""
    return next(iter(by_cost(rows, job, share)), None)


def by_cost(rows: Iterable[Row], job: Job, share: float) -> list[Row]:
    """The rows with at least ``share`` of the students' own rate, the cheapest first.

    Where costs are equal energy decides, then the number of workers.
    """
    enough = [row for row in rows if row.throughput >= share * job.rate * (1.0 - 1e-9)]
    return sorted(enough, key=lambda row: (row.cost, row.energy_wh, row.count, row.seconds))


def beside(row: Row, kinds: Sequence[Kind], job: Job) -> list[Row]:
    """The fleets one worker away: one more of a kind, or one in place of another; never fewer."""
    counts, found = dict(row.workers), []
    for more in kinds:
        for less in (None, *(name for name in counts if name != more.name)):
            changed = counts | {more.name: counts.get(more.name, 0) + 1}
            if less is not None:
                changed[less] -= 1
            if changed[more.name] <= more.available:
                fleet = _Fleet()
                for kind in kinds:
                    fleet = fleet.plus(kind, changed[kind.name]) if changed.get(kind.name) else fleet
                found.append(_row(fleet, job))
    return found


def _worth_their_price(fleets: Iterable[_Fleet], demand: float) -> list[_Fleet]:
    kept: list[_Fleet] = []
    for fleet in sorted(fleets, key=lambda each: (each.price, each.watts, each.count, -each.rate)):
        if not kept or min(fleet.rate, demand) > min(kept[-1].rate, demand):
            kept.append(fleet)
    return kept


def _row(fleet: _Fleet, job: Job) -> Row:
    if fleet.count:
        throughput = min(job.rate, fleet.rate)
    else:
        inline = job.inline_rate or 0.0
        throughput = job.rate * inline / (job.rate + inline)
    asked = min(job.views, job.epochs)
    asked_s = job.samples * asked / throughput
    seconds = asked_s + job.samples * (job.epochs - asked) / job.rate
    return Row(
        fleet.workers,
        throughput,
        starved_share=1.0 - throughput / job.rate,
        idle_share=1.0 - throughput / fleet.rate if fleet.count else 0.0,
        seconds=seconds,
        cost=(fleet.price * asked_s + job.price * seconds) / 3600.0,
        energy_wh=(fleet.watts * asked_s + job.watts * seconds) / 3600.0,
    )
