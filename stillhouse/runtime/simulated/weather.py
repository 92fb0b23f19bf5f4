"""What a simulation is made of: a clock that waits for nobody, seeded numbers, kinds of workers, and their weather."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from stillhouse.foundation.seeding import subseed, words


class Vanish(Exception):
    """Raised by what a simulated worker does: it ends in the middle of it."""


class VirtualClock:
    """Seconds that pass only when somebody waits for them."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now_s


class Dice:
    """Uniform numbers of one seed, one after the other."""

    def __init__(self, seed: int, purpose: str) -> None:
        self._key, self._block = subseed(seed, purpose), 0
        self._ready: list[float] = []

    def uniform(self) -> float:
        """In [0, 1)."""
        if not self._ready:
            ids = np.arange(self._block, self._block + 64, dtype=np.int64)
            self._block += 64
            self._ready = (words(self._key, ids, np.zeros(64, np.int64), 4).reshape(-1) / 2.0**32).tolist()
        return self._ready.pop()

    def chance(self, share: float) -> bool:
        """True in ``share`` of all cases; draws nothing where that is sure."""
        return share > 0 and self.uniform() < share

    def between(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return low + int(self.uniform() * (high - low + 1))

    def after(self, per_s: float) -> float:
        """Seconds until something that happens ``per_s`` times a second; infinite where it never does."""
        return -math.log(1 - self.uniform()) / per_s if per_s > 0 else math.inf


@dataclass(frozen=True)
class Kind:
    """One kind of worker.

    Attributes:
        pace_s: seconds a unit; what it takes varies by the share ``jitter`` up and down.
        place_s: from its start until there is a machine for it.
        load_s: from then to its hello.
        slots: the most items it holds.
        tells_pace: whether its hello says ``pace_s``, and its answers what they took.
        facts: what else its hello says.
        last_words: it ends while it loads, with these; None: it loads well.
    """

    pace_s: float
    load_s: float = 0.0
    place_s: float = 0.0
    slots: int = 64
    jitter: float = 0.0
    tells_pace: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    last_words: str | None = None


@dataclass(frozen=True)
class Weather:
    """What befalls the workers. Rates are for each worker, times are means of exponential distributions.

    Attributes:
        crashes_per_s, leaves_per_s: it dies; it says that it leaves.
        freezes_per_s: it is silent for ``freeze_s``, in ``forever_share`` of the cases for ever.
        slowdowns_per_s: for ``slow_s`` it needs ``slow_factor`` times as long for what it begins.
        delay_s: of a message, either way; messages of one worker keep their order.
        failure_share: of the items, that a worker tries and can't do.
        duplicate_share: of the answers, that come twice.
        poison: items that make every worker crash, fail or hang.
        arrivals: (time, kind) of workers that come by themselves.
    """

    crashes_per_s: float = 0.0
    leaves_per_s: float = 0.0
    freezes_per_s: float = 0.0
    freeze_s: float = 1.0
    forever_share: float = 0.0
    slowdowns_per_s: float = 0.0
    slow_s: float = 1.0
    slow_factor: float = 8.0
    delay_s: float = 0.0
    failure_share: float = 0.0
    duplicate_share: float = 0.0
    poison: Mapping[tuple[str, int], Literal["crash", "fail", "hang"]] = field(default_factory=dict)
    arrivals: Sequence[tuple[float, Kind]] = ()
