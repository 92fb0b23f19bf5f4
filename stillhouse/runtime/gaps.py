"""Time in which this process did not run at all: it was stopped (Ctrl-Z), or its machine slept.

Whoever it waits for may have done all that it should meanwhile, unheard. Such time is therefore added to every limit,
instead of ending at once who is late by the clock alone.
"""

from __future__ import annotations

from collections.abc import Callable

# Those who look do so about every second.
_GAP_S = 3.0


class Gaps:
    """Watches a clock that is looked at often."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._looked_s = clock()

    def missed_s(self, now_s: float) -> float:
        """How long nobody looked; 0 where that was no longer than usual."""
        away_s, self._looked_s = now_s - self._looked_s, now_s
        return away_s if away_s > _GAP_S else 0.0
