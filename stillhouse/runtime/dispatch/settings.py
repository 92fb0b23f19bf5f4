"""The dispatcher's few numbers, and the two rules that turn a worker's pace into credits and time limits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

IDLE_SHARE: Final = 0.01
"""A worker may idle for this share of its time between two items: nobody notices, and nothing waits behind its work."""


@dataclass(frozen=True)
class Settings:
    """How the dispatcher decides.

    Attributes:
        window_bytes: memory of one consumer's open items (submitted, not taken); a single item may be larger.
        lease_factor: a lease lasts so many times what the worker should need. Four: slow phases of a shared machine
            pass, and a hung worker costs little more than the work that it held.
        lease_min_s: no lease is shorter; what hiccups in a healthy process (page faults, a compile) stays below it.
        first_lease_s: a lease of a worker whose pace nobody knows.
        suspect_patience_s: so long after its lease ended a silent worker is stopped, and one that was let go, and is
            still there, killed.
        hedge_factor: an item is lent a second time where it should be done in this fraction of the time that it
            still needs; a loan is late when it took so many times what it should.
        round_trip_s: from a worker's answer to its next item, the driver's own delays included; hidden by credits. It
            is what is thought of every worker first; one to which the way is longer shows it by its idling.
        credits_max: the most items a worker holds, whatever its speed.
        tries_max: an item is given up when it went wrong so many times. Five, since in a fleet where workers are killed
            all the time an innocent item is hit twice by chance now and then, five times never.

    Raises:
        ValueError: a number that makes no sense.
    """

    window_bytes: int = 256 * 2**20
    lease_factor: float = 4.0
    lease_min_s: float = 1.0
    first_lease_s: float = 60.0
    suspect_patience_s: float = 30.0
    hedge_factor: float = 2.0
    round_trip_s: float = 0.02
    credits_max: int = 32
    tries_max: int = 5

    def __post_init__(self) -> None:
        positive = ("window_bytes", "lease_min_s", "first_lease_s", "suspect_patience_s", "credits_max", "tries_max")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("lease_factor", "hedge_factor"):
            if not getattr(self, name) > 1:
                raise ValueError(f"{name} must be above 1, not {getattr(self, name)}")
        if not self.round_trip_s >= 0:
            raise ValueError(f"round_trip_s must not be negative, not {self.round_trip_s}")

    def credits(self, pace_s: float | None, size: int, slots: int, round_trip_s: float) -> int:
        """How many items a worker may hold: the one at work, and as many as it does within a round trip.

        At least two, so that it never idles between answers, with two exceptions. A worker of unknown pace gets
        one, lest the slowest hoards. So does one that needs a hundred round trips for an item: idling for one costs
        it a hundredth, while an item waiting behind its work would hold up a whole window of answers.

        Args:
            pace_s: seconds a unit, None where unknown.
            size: units of a usual item.
            slots: the most that the worker can hold.
            round_trip_s: to this worker and back.
        """
        if pace_s is None:
            return 1
        service_s = pace_s * size
        if round_trip_s <= IDLE_SHARE * service_s:
            return 1
        ceiling = min(slots, self.credits_max)
        if round_trip_s >= ceiling * service_s:
            return ceiling
        return min(ceiling, 1 + max(1, math.ceil(round_trip_s / service_s)))

    def allowance(self, service_s: float | None) -> float:
        """Seconds that a worker may take for an item that should take it ``service_s``; None: nobody knows."""
        if service_s is None:
            return self.first_lease_s
        return max(self.lease_min_s, self.lease_factor * service_s)
