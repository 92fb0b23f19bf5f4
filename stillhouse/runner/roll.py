"""Students of one training in numbers, for whoever watches: what each is at, how fast, and how long it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from stillhouse.foundation.events import GroupMeasured, StudentMeasured
from stillhouse.runner.watching import every_s

_LEAST_S = 0.5  # what is told sooner, since a state changed, has the rates that were told before


class Roll:
    """Makes events out of what students say.

    Args:
        samples: of each step, that a student takes, by name; the first student first.
        first_step: that they begin with.
        clock: seconds, monotonic.
    """

    def __init__(
        self, phase: str, samples: Mapping[str, int], first_step: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._phase, self._samples, self._clock = phase, samples, clock
        self._steps = dict.fromkeys(samples, first_step)
        self._states = dict.fromkeys(samples, "starting")
        self._where = dict.fromkeys(samples, ("", 0))
        self._waited_s = dict.fromkeys(samples, 0.0)
        self._begun_s = self._told_s = clock()
        self._before = dict(self._steps), dict(self._waited_s)
        self._last: Sequence[tuple[str, int]] = ()
        self._rates = dict.fromkeys(samples, (0.0, 0.0))

    def came(self, name: str, host: str, process_id: int) -> None:
        """It is there, and loads."""
        self._states[name], self._where[name] = "loading", (host, process_id)

    def took(self, name: str, step: int, waited_s: float) -> None:
        """It begins with a step, and has waited so long in all."""
        self._states[name], self._steps[name], self._waited_s[name] = "training", step, waited_s

    def ended(self, name: str) -> None:
        """It has done the last step."""
        if self._states[name] == "training":
            self._states[name], self._steps[name] = "done", self._steps[name] + 1

    def news(self) -> GroupMeasured | None:
        """An event, where it is time for one and something changed."""
        seconds = self._clock() - self._told_s
        told = [(self._states[name], self._steps[name]) for name in self._samples]
        moved = [state for state, _ in told] != [state for state, _ in self._last]
        if told == self._last or not (moved or seconds >= every_s(self._clock() - self._begun_s)):
            return None
        if seconds >= _LEAST_S:
            self._rates = {name: self._measured(name, seconds) for name in self._samples}
            self._told_s += seconds
            self._before = dict(self._steps), dict(self._waited_s)
        self._last = told
        students = tuple(
            StudentMeasured(*self._where[name], *state, *self._rates[name])
            for name, state in zip(self._samples, told, strict=True)
        )
        return GroupMeasured(self._phase, round(seconds, 3) if seconds >= _LEAST_S else 0.0, students)

    def _measured(self, name: str, seconds: float) -> tuple[float, float]:
        steps, waited_s = (before[name] for before in self._before)
        done = (self._steps[name] - steps) * self._samples[name]
        share = (self._waited_s[name] - waited_s) / seconds
        return float(f"{done / seconds:.4g}"), round(min(max(share, 0.0), 1.0), 3)
