"""A fleet at one moment, as it was measured: workers, consumers, and the sums that scaling decides by.

Rates are units/s, paces seconds a unit, both of recent time; so on shared cores they hold what one slows down another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Final, Literal

State = Literal["loading", "ready", "suspect", "draining"]

STARVED: Final = 0.05  # share of its time that a consumer may wait before it counts: below, growing can't win much


@dataclass(frozen=True)
class WorkerView:
    """One worker that is alive, as far as is known.

    Attributes:
        kind: workers of one kind are alike, e.g. a device and an engine.
        pace_s: seconds a unit while it works; None: not measured yet.
        busy_share: share of recent time that it worked, 0 to 1.
        held_units: units on loan there.
        placed: it has a machine; one that is loading may wait for one.
    """

    name: str
    kind: str
    state: State
    pace_s: float | None = None
    busy_share: float = 0.0
    held_units: int = 0
    placed: bool = True

    @property
    def rate(self) -> float:
        """Units/s that it gives now; 0 where it is not ready, or not measured yet."""
        return 1.0 / self.pace_s if self.state == "ready" and self.pace_s else 0.0


@dataclass(frozen=True)
class ConsumerView:
    """One consumer, a student.

    Attributes:
        rate: units/s that it would take if it never waited; 0: it asks nothing any more; None: not measured yet.
        buffered_units: answered and not yet taken.
        window_units: the most that it may have asked for and not taken.
        waiting: it waits for an answer now, or computes one itself because none was there.
        starved_share: share of recent time that it did so, 0 to 1.
    """

    name: str
    rate: float | None
    buffered_units: int
    window_units: int
    waiting: bool
    starved_share: float


@dataclass(frozen=True)
class FleetView:
    """All that scaling looks at.

    Attributes:
        workers: all that are alive, the loading ones too.
        consumers: all that still ask.
        pending_units: asked and not answered: queued, or on loan.
        inline_pace_s: seconds a unit if a starved consumer computed answers itself; None: it can't, or nobody knows.
        start_s: seconds that starting a worker took (median); None: none started yet.
    """

    workers: tuple[WorkerView, ...]
    consumers: tuple[ConsumerView, ...]
    pending_units: int = 0
    inline_pace_s: float | None = None
    start_s: float | None = None

    def count(self, *states: State) -> int:
        """Workers in one of these states."""
        return sum(worker.state in states for worker in self.workers)

    @cached_property
    def rate(self) -> float:
        """Units/s of the ready workers together."""
        return sum(worker.rate for worker in self.workers)

    @cached_property
    def typical_rate(self) -> float | None:
        """Mean of the measured ready workers, units/s; None: none is measured."""
        rates = [worker.rate for worker in self.workers if worker.rate]
        return mean(rates) if rates else None

    @cached_property
    def coming_rate(self) -> float:
        """Units/s to be expected of the loading workers: as others of their kind, else as all others."""
        by_kind: dict[str, list[float]] = {}
        for worker in self.workers:
            if worker.rate:
                by_kind.setdefault(worker.kind, []).append(worker.rate)
        loading = [worker for worker in self.workers if worker.state == "loading"]
        return sum(mean(by_kind.get(worker.kind) or [self.typical_rate or 0.0]) for worker in loading)

    @cached_property
    def demand(self) -> float | None:
        """Units/s that all consumers would take together; None: there is none, or one is not measured yet."""
        rates = [consumer.rate for consumer in self.consumers if consumer.rate is not None]
        return sum(rates) if rates and len(rates) == len(self.consumers) else None

    @cached_property
    def progress(self) -> float:
        """Units/s that the measured consumers take as it is."""
        return sum((each.rate or 0.0) * (1.0 - each.starved_share) for each in self.consumers)

    @cached_property
    def busy_share(self) -> float:
        """Mean over the ready workers; 0 where there is none."""
        shares = [worker.busy_share for worker in self.workers if worker.state == "ready"]
        return mean(shares) if shares else 0.0

    @cached_property
    def loaned_units(self) -> int:
        """Units on loan to workers that are expected to answer."""
        return sum(worker.held_units for worker in self.workers if worker.state in ("ready", "draining"))

    @property
    def waiting(self) -> bool:
        """Whether a consumer waits now."""
        return any(consumer.waiting for consumer in self.consumers)

    @property
    def inline_rate(self) -> float:
        """Units/s of answers if all consumers computed them themselves, and did nothing else."""
        return len(self.consumers) / self.inline_pace_s if self.inline_pace_s else 0.0

    def starving(self, low: float) -> bool:
        """Whether a consumer lately waited, and has at most the share ``low`` of its window buffered."""
        return any(
            each.starved_share >= STARVED and each.buffered_units <= low * each.window_units for each in self.consumers
        )

    def full(self, high: float) -> bool:
        """Whether of what could lie answered (the windows, less what is on loan) the share ``high`` does.

        With many workers much of a small window is always on loan: measured against the whole it would never be full.
        Where nobody asks anything any more there is always enough.
        """
        asking = [consumer for consumer in self.consumers if consumer.rate != 0.0]
        room = sum(consumer.window_units for consumer in asking) - self.loaned_units
        enough = room > 0 and sum(consumer.buffered_units for consumer in asking) >= high * room
        return enough if asking else bool(self.consumers)
