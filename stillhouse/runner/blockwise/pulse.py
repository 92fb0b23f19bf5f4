"""Workers that train blocks in numbers, for whoever watches: what each is at, and how busy it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from stillhouse.foundation.block_events import BlocksMeasured, BlockWorkerMeasured
from stillhouse.runner.watching import every_s


class Pulse:
    """Makes events out of what workers say.

    Args:
        names: of the workers, front to back.
        first_step: that they begin with.
        clock: seconds, monotonic.
    """

    def __init__(
        self, phase: str, names: Sequence[str], first_step: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._phase, self._clock = phase, clock
        self._steps = dict.fromkeys(names, first_step)
        self._busy_s = dict.fromkeys(names, 0.0)
        self._told_busy_s = dict(self._busy_s)
        self._begun_s = self._told_s = clock()

    def took(self, name: str, step: int, busy_s: float) -> BlocksMeasured | None:
        """One has done a step, and was busy so long in all; an event, where it is time for one."""
        self._steps[name], self._busy_s[name] = step + 1, busy_s
        now_s = self._clock()
        return self.rest() if now_s - self._told_s >= every_s(now_s - self._begun_s) else None

    def rest(self) -> BlocksMeasured | None:
        """What was not told yet; None where that is nothing."""
        now_s = self._clock()
        seconds = now_s - self._told_s
        busy_s = {name: total - self._told_busy_s[name] for name, total in self._busy_s.items()}
        if seconds <= 0 or not any(busy_s.values()):
            return None
        workers = [
            BlockWorkerMeasured(self._steps[each], round(min(busy_s[each] / seconds, 1.0), 3)) for each in busy_s
        ]
        self._told_s, self._told_busy_s = now_s, dict(self._busy_s)
        return BlocksMeasured(self._phase, round(seconds, 3), tuple(workers))
