"""How far the phase ``choose`` got: a step for each replacement that is judged alone, and for each mix that may be
chosen or is on a front. Pairs are judged between these, and make no step.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from stillhouse.foundation.events import Event, PhaseStarted, Progress

CHOOSE = "choose"
_TELL_S = 0.5


class Judging:
    """Tells of the phase.

    Args:
        steps: of the phase; fewer mixes than were expected are none the less its end.
    """

    def __init__(self, steps: int, emit: Callable[[Event], None]) -> None:
        self._steps, self._emit, self._done = steps, emit, 0
        self._said = time.monotonic()
        emit(PhaseStarted(CHOOSE, 0, steps))

    def add(self, count: int) -> None:
        """So many more were judged."""
        self._done += count
        if time.monotonic() - self._said >= _TELL_S:
            self._tell(self._done)

    def end(self) -> None:
        """All were."""
        self._tell(self._steps)

    def _tell(self, step: int) -> None:
        now = time.monotonic()
        self._emit(Progress(CHOOSE, step, 0.0, {}, 0.0, {"evaluate": now - self._said}, 0))
        self._said = now
