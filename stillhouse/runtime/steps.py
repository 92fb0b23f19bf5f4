"""How long a student usually is busy between two answers, and what of its time was no step: a validation, a checkpoint.

Answers may be taken in bunches, one step after each; so the usual step is the one in which half of the time is spent.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

KEPT: Final = 64
PAUSE: Final = 8.0  # so many times the usual step is none
PAUSE_MIN_S: Final = 1.0


class Steps:
    """The times between a student's answers, without those in which it waited for one."""

    def __init__(self) -> None:
        self._last_s: deque[float] = deque(maxlen=KEPT)
        self._paused_s = 0.0

    def took(self, own_s: float) -> None:
        """A step more. One that is longer than it may be counts as much as it may: if many are, they are the usual."""
        self._paused_s = self.paused_s(own_s)
        self._last_s.append(own_s if own_s <= PAUSE_MIN_S else min(own_s, self._longest_s()))

    def paused_s(self, own_s: float) -> float:
        """Seconds that were no steps, until now: ``own_s`` after the last answer. It never falls."""
        if own_s <= PAUSE_MIN_S or own_s <= self._longest_s():
            return self._paused_s
        return self._paused_s + own_s - self._usual_s()

    def _longest_s(self) -> float:
        """What is longer is no step."""
        return max(PAUSE * self._usual_s(), PAUSE_MIN_S) if self._last_s else math.inf

    def _usual_s(self) -> float:
        left_s = sum(self._last_s) / 2
        for each in sorted(self._last_s):
            left_s -= each
            if left_s <= 0:
                return each
        return 0.0
