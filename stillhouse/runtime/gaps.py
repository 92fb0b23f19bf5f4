"""Time in which this process did not run at all: it was stopped (Ctrl-Z), or its machine slept.

Whoever it waits for may have done all that it should meanwhile, unheard. Such time is therefore added to every limit,
instead of ending at once who is late by the clock alone.
"""

from __future__ import annotations

from collections.abc import Callable

# Those who look do so about every second.
_GAP_S = 3.0


class Gaps:
    """Watches a clock that is looked at often. One gap right after another is no stop: then this process is slow."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._looked_s = clock()
        self._missed = False

    def missed_s(self, now_s: float) -> float:
        """How long nobody looked; 0 where that was no longer than usual."""
        away_s, self._looked_s = now_s - self._looked_s, now_s
        self._missed = away_s > _GAP_S and not self._missed
        return away_s if self._missed else 0.0
