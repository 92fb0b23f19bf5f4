"""Workers on their way in or out: started and not yet let in, or sent away and not yet gone."""

from __future__ import annotations

import math
from collections.abc import Callable

from stillhouse.foundation.errors import StillhouseError
from stillhouse.runtime.backend import Backend

FAILED_STARTS_MAX = 3
_LOAD_MAX_S = 600.0


class Arrivals:
    """Starts workers, waits for each as long as it may take, and sees to it that those sent away do go.

    Attributes:
        failed: why workers that were started never got in, since one did.

    Args:
        patience_s: how long one that was sent away politely may stay.
    """

    def __init__(self, backend: Backend, clock: Callable[[], float], patience_s: float) -> None:
        self._backend, self._clock, self._patience_s = backend, clock, patience_s
        self._begun_s: dict[str, float] = {}
        self._until_s: dict[str, float] = {}
        self.failed: list[str] = []

    @property
    def hope(self) -> int:
        """Workers that load and may become ready. One that has no machine yet does not load."""
        load = sum(begun_s < math.inf for begun_s in list(self._begun_s.values()))
        return load if len(self.failed) < FAILED_STARTS_MAX else 0

    def started(self) -> dict[str, bool]:
        """Workers that are not ready yet -> whether each has a machine."""
        return {name: begun_s < math.inf for name, begun_s in self._begun_s.copy().items()}

    def start(self, count: int) -> tuple[int, str]:
        """Start so many, or as many as the machine can hold: how many, and why not more."""
        before = len(self._begun_s)
        try:
            for _ in range(count):
                self._begun_s[self._backend.start()] = math.inf
        except (StillhouseError, OSError) as error:
            self.failed.append(str(error))
            return len(self._begun_s) - before, str(error)
        return count, ""

    def is_unwanted(self, worker: str) -> bool:
        """Whether it was sent away."""
        return worker in self._until_s

    def let_in(self, worker: str) -> float | None:
        """It is ready: the seconds that it took to load, where it was started from here."""
        self.failed.clear()
        begun_s = self._begun_s.pop(worker, math.inf)
        return self._clock() - begun_s if begun_s < math.inf else None

    def refuse(self, worker: str, why: str) -> None:
        """It may not come in."""
        if worker in self._begun_s:
            self.failed.append(why)
        self.send_away(worker, why, kill=False)

    def left(self, worker: str, why: str) -> None:
        """It is gone."""
        self._until_s.pop(worker, None)
        if worker in self._begun_s:
            if self._backend.placed(worker):
                self.failed.append(why)  # before it is missing: students look at both
            del self._begun_s[worker]

    def send_away(self, worker: str, why: str, *, kill: bool) -> None:
        """End a worker that was never let in. One that hung just then would not hear it: see :meth:`look`."""
        self._begun_s.pop(worker, None)
        self._until_s[worker] = math.inf if kill else self._clock() + self._patience_s
        self._backend.dismiss(worker, why, kill=kill, refused=not kill)

    def extend(self, missed_s: float) -> None:
        """So long nobody looked."""
        for limits in (self._begun_s, self._until_s):
            limits.update({worker: at_s + missed_s for worker, at_s in limits.items()})

    def look(self, now_s: float) -> None:
        """A worker's time to load begins when there is a machine for it; who takes too long is ended."""
        self.see_places(now_s)
        for worker, until_s in list(self._until_s.items()):
            if now_s >= until_s:
                self.send_away(worker, "it was turned away, and stayed", kill=True)
        for worker, begun_s in list(self._begun_s.items()):
            if now_s - begun_s >= _LOAD_MAX_S:
                self.failed.append(f"it was not ready after {_LOAD_MAX_S:.0f} s")
                self.send_away(worker, self.failed[-1], kill=True)

    def see_places(self, now_s: float) -> None:
        """Who has a machine by now loads."""
        for worker, begun_s in list(self._begun_s.items()):
            if begun_s == math.inf and self._backend.placed(worker):
                self._begun_s[worker] = now_s
