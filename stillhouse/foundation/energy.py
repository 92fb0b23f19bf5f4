"""Energy of a stretch of a run, and how the figure is known.

*measured*: by counters, of the processor's packages and of the GPUs in use. Both count the whole device, whoever used
it; main memory, disks, fans and other machines are not in it. *estimated*: the processor's part follows from a power
model that a person states, where its counter can't be read. *unavailable*: neither; then there is no figure, never a
guess. What is counted, and what is not, stands in the figure's source.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stillhouse.foundation.counters import Part, Rapl, Reading
from stillhouse.foundation.cpu_time import CpuTime, cpu_time


@dataclass(frozen=True)
class Energy:
    """Joules over a stretch, ``None`` where unavailable; ``source`` begins with how they are known."""

    joules: float | None
    source: str


@dataclass(frozen=True)
class EnergyRead:
    """An event: what a phase used so far, in this process. ``last``: it was stopped in good order, and this is all."""

    phase: str
    joules: float | None
    energy_source: str
    last: bool = False


@dataclass(frozen=True)
class PowerModel:
    """Watts of a machine without its GPUs: when it rests, and when all of ``cores`` are busy."""

    idle_w: float
    busy_w: float
    cores: int

    def joules(self, seconds: float, busy_s: float) -> float:
        """``idle_w * seconds + (busy_w - idle_w) * busy_s / cores``.

        Args:
            seconds: of the clock on the wall.
            busy_s: core-seconds of work in them; no more than all cores have count.
        """
        share = min(busy_s / self.cores, seconds)
        return self.idle_w * seconds + (self.busy_w - self.idle_w) * share

    def __str__(self) -> str:
        return f"{self.idle_w:g} W at rest and {self.busy_w:g} W with {self.cores} busy cores"


class Estimate:
    """The processor's part by a power model and the CPU time of this process and those it started.

    Args:
        cpu: CPU time so far, and whose.
        now_s: a clock.
    """

    def __init__(
        self,
        model: PowerModel,
        cpu: Callable[[], CpuTime] = cpu_time,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._cpu, self._now_s = model, cpu, now_s
        self._started_s, self._last_s, self._busy_s = now_s(), cpu().seconds, 0.0

    def read(self) -> Reading:
        """As of :class:`Part`; what others do on the machine does not count."""
        seconds, whose = self._cpu()
        self._busy_s += max(seconds - self._last_s, 0.0)  # time of processes that nobody waited for is lost
        self._last_s = seconds
        joules = self._model.joules(self._now_s() - self._started_s, self._busy_s)
        return Reading(joules, f"{self._model}, CPU time of {whose}")


class EnergyMeter:
    """Counts from its making to :meth:`read`.

    Args:
        estimate: of the processor's part, should it not be measured.
        beside: what else is in use, such as GPUs.
        processor: its counters.
    """

    def __init__(
        self, estimate: Part | None = None, beside: Sequence[Part] = (), *, processor: Part | None = None
    ) -> None:
        self._processor, self._estimate, self._beside = processor or Rapl(), estimate, beside

    def read(self) -> Energy:
        """Energy since the meter was made. Call it at least once a minute on a busy machine: counters wrap."""
        processor, guess = self._processor.read(), self._estimate.read() if self._estimate else None
        guessed = processor.joules is None and guess is not None
        parts = [guess if guessed and guess else processor, *(each.read() for each in self._beside)]
        joules = [part.joules for part in parts if part.joules is not None]
        missing = "; ".join(part.words for part in parts if part.joules is None)
        if not joules:
            return Energy(None, f"unavailable: {missing}")
        kind = "estimated" if guessed else "measured"
        counted = " + ".join(part.words for part in parts if part.joules is not None)
        return Energy(sum(joules), f"{kind}: {counted}" + (f"; without {missing}" if missing else ""))


def energy_saving(before_j: float, after_j: float) -> float:
    """The real reduction, ``1 - after / before``: the share of the energy that is not needed any more.

    0 where nothing is saved, below 0 where more is used. Not ``before / after - 1``, which calls a saving of 22 % one
    of 29 %.

    Raises:
        ValueError: ``before_j`` is not above 0.
    """
    if before_j <= 0:
        raise ValueError(f"nothing can be saved of {before_j} J")
    return 1 - after_j / before_j
