"""Where the time goes: a stopwatch that charges every second to exactly one name."""

from __future__ import annotations

import time


class Stopwatch:
    """Splits the time since its start among names; what a lap charges is never charged twice."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> float:
        """Charge the time since the last lap to ``name``; returns it, in seconds."""
        now = time.perf_counter()
        spent = now - self._last
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self._last = now
        return spent

    def take(self) -> dict[str, float]:
        """The seconds by name since the last call, and start anew."""
        taken, self.seconds = self.seconds, {}
        return taken
