"""How many workers a fleet should have, and when starved students should compute answers themselves: a pure policy.

Hybrid scheduling of EDL-Dist (arXiv 2207.06667), whose public code has none. Inferred from the paper: the start with
``ceil(student rate / teacher rate)`` workers, the water marks, the slowest surplus worker released, the cool-down
because a worker costs a model load. Ours alone: growth by the measured deficit, the check that growing raised the
rate at all, replacement of the dead, back-off where starts bring no worker, and inline answers by their gain.

A decision is a value and ``decide`` changes nothing: who calls it, about once a second, carries it out and hands the
memory back. It costs a few passes over the workers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from stillhouse.runtime.scaling.memory import HARM, HOLD_S, SATURATED, Memory, Trial, newcomers, observe
from stillhouse.runtime.scaling.view import FleetView

MARGIN: Final = 0.15  # capacity above demand that stays when a worker goes: readings drift that much
INLINE_GAIN: Final = 1.1  # by this, inline answers and the fleet must together be faster than the fleet


@dataclass(frozen=True)
class Grow:
    """Start so many workers more."""

    count: int
    why: str


@dataclass(frozen=True)
class Shrink:
    """Let this worker finish what it holds, and end it."""

    worker: str
    why: str


@dataclass(frozen=True)
class RunInline:
    """A student that waits shall compute answers itself; the fleet goes on as well."""

    why: str


@dataclass(frozen=True)
class StopInline:
    """Students wait for the fleet again."""

    why: str


@dataclass(frozen=True)
class Stay:
    """Nothing is to be done."""

    why: str


Decision = Grow | Shrink | RunInline | StopInline | Stay


@dataclass(frozen=True)
class Policy:
    """When a fleet grows, shrinks, and is helped.

    Attributes:
        workers_min: fewer are made up for; at least 1.
        workers_max: never more, whatever their state.
        low, high: water marks, shares of the window.
        starts_max: workers that may load at once: more would take the machine from one another, and from the students.
            None: as many as are wanted, where each waits for a machine that has room for it.

    Raises:
        ValueError: limits or marks in the wrong order.
    """

    workers_min: int
    workers_max: int
    low: float = 0.25
    high: float = 0.75
    starts_max: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.workers_min <= self.workers_max:
            raise ValueError(f"workers must be 1 <= min <= max, not [{self.workers_min}, {self.workers_max}]")
        if self.starts_max is not None and self.starts_max < 1:
            raise ValueError(f"starts_max must be 1 at least, not {self.starts_max}: else no worker is ever started")
        if not 0.0 <= self.low < self.high <= 1.0:
            raise ValueError(f"water marks must be 0 <= low < high <= 1, not {self.low} and {self.high}")

    def decide(self, view: FleetView, memory: Memory, now_s: float) -> tuple[Decision, Memory]:
        """What to do now, and what to hand in next time.

        Args:
            memory: what the last call returned; ``Memory()`` at first.
            now_s: a time on any monotonic clock.
        """
        memory = self._settle_wanted(view, observe(view, memory, now_s, self.low, self.high))
        rules = (self._keep_min, self._fill, self._relieve, self._run_inline, self._stop_inline, self._release)
        found = [decision for rule in rules if (decision := rule(view, memory, now_s)) is not None]
        acts = [decision for decision in found if not isinstance(decision, Stay)]
        decision = (acts or found or [Stay(_state(view))])[0]
        return decision, _remember(decision, view, memory, now_s)

    def _settle_wanted(self, view: FleetView, memory: Memory) -> Memory:
        if memory.wanted is not None or not view.demand or not view.typical_rate:
            return memory
        wanted = _workers(view.demand, view.typical_rate)
        return replace(memory, wanted=min(max(wanted, self.workers_min), self.workers_max))

    def _keep_min(self, view: FleetView, memory: Memory, now_s: float) -> Decision | None:
        there = view.count("ready", "loading")
        lacking = self.workers_min - there
        why = f"the run keeps {_workers_in_words(self.workers_min)}, and has {there or 'none'}"
        return self._grow(lacking, why, view, memory, now_s) if lacking > 0 else None

    def _fill(self, view: FleetView, memory: Memory, now_s: float) -> Decision | None:
        """Up to what the measured rates ask for: at the start, and where workers are gone."""
        if memory.wanted is None or not view.demand or not view.typical_rate:
            return None
        lacking = memory.wanted - view.count("ready", "loading", "suspect")
        if memory.ceiling:
            lacking = min(lacking, memory.ceiling.workers - view.count("ready", "loading"))
        needed = _workers(view.demand - view.rate - view.coming_rate, view.typical_rate)
        why = f"students take {_rate(view.demand)}, {_state(view)}"
        return self._grow(min(lacking, needed), why, view, memory, now_s) if min(lacking, needed) > 0 else None

    def _relieve(self, view: FleetView, memory: Memory, now_s: float) -> Decision | None:
        """At low water, students waiting: more workers, if more would help."""
        if memory.starving_s is None or not view.waiting or not view.typical_rate:
            return None
        if view.busy_share < SATURATED or not view.pending_units:
            return Stay(f"students wait, yet workers work only {view.busy_share:.0%} of the time: more would not help")
        if memory.trial:
            return Stay("students wait; the last growth is not judged yet")
        if memory.ceiling and view.count("ready", "loading") >= memory.ceiling.workers:
            return Stay(
                f"students wait, but with more than {memory.ceiling.workers} workers the rate did not rise above "
                f"{_rate(memory.ceiling.rate)}: what they run on is exhausted"
            )
        lacking = (view.demand or 0.0) * (1.0 + MARGIN) - view.rate - view.coming_rate
        if lacking <= 0 and view.count("loading"):
            return Stay(f"students wait; the workers that load should be enough: {_state(view)}")
        count = max(1, _workers(lacking, view.typical_rate))
        if memory.ceiling:
            count = min(count, memory.ceiling.workers - view.count("ready", "loading"))
        why = f"students wait and the workers are busy {view.busy_share:.0%} of the time: {_state(view)}"
        return self._grow(count, why, view, memory, now_s)

    def _grow(self, count: int, why: str, view: FleetView, memory: Memory, now_s: float) -> Decision:
        room = self.workers_max - len(view.workers)
        if room <= 0:
            return Stay(f"{why}; but {self.workers_max} are allowed, and there are {len(view.workers)}")
        if memory.changed_s is not None and not memory.held(memory.changed_s, now_s, memory.cool_down_s(view)):
            return Stay(f"{why}; but the last change was {now_s - memory.changed_s:.1f} s ago")
        starts = count if self.starts_max is None else self.starts_max - view.count("loading")
        if starts <= 0:
            return Stay(f"{why}; but {view.count('loading')} load, and no more can at once")
        return Grow(min(count, room, starts), why)

    def _run_inline(self, view: FleetView, memory: Memory, now_s: float) -> Decision | None:
        if memory.inline_s is not None or not view.inline_rate:
            return None
        if not view.count("ready"):
            return RunInline("a student waits and no worker is ready") if view.waiting else None
        starving = view.waiting and memory.held(memory.starving_s, now_s)
        if not starving or memory.inline_harms is not None:
            return None
        alone, both = _inline_rates(view)
        if alone > view.rate:
            return RunInline(f"alone the students would take {_rate(alone)}, {_state(view)}")
        stuck = len(view.workers) >= self.workers_max or memory.ceiling is not None
        if stuck and not memory.coming(view, now_s) and both >= INLINE_GAIN * view.rate:
            return RunInline(
                f"with their help students would take {_rate(both)}; {_state(view)}, and more would not help"
            )
        return None

    def _stop_inline(self, view: FleetView, memory: Memory, now_s: float) -> Decision | None:
        if memory.inline_s is None:
            return None
        if memory.held(memory.full_s, now_s):
            return StopInline(f"answers have lain ready above the high water mark for {HOLD_S:.0f} s: {_state(view)}")
        if memory.progress and memory.held(memory.inline_s, now_s, 2.0 * HOLD_S) and _harmed(view, memory):
            return StopInline(f"students took {_rate(memory.progress)} before, {_rate(view.progress)} since")
        return None

    def _release(self, view: FleetView, memory: Memory, now_s: float) -> Decision | None:
        """The slowest worker, where it has long been more than is needed."""
        hold_s = max(HOLD_S, 2.0 * (view.start_s or 0.0))
        there = [worker for worker in view.workers if worker.state in ("ready", "loading")]
        if len(there) <= self.workers_min or memory.inline_s is not None or view.demand is None or view.waiting:
            return None
        if not memory.held(memory.full_s, now_s, hold_s):
            return None
        slowest = min(there, key=lambda worker: (worker.rate, worker.name))
        left = view.rate - slowest.rate
        if left < view.demand * memory.scarce * (1.0 + MARGIN):
            return None
        why = f"not needed: the others give {_rate(left)}, students take {_rate(view.demand)}"
        return Shrink(slowest.name, f"{why}; for {hold_s:.0f} s more than enough lay ready")


def _remember(decision: Decision, view: FleetView, memory: Memory, now_s: float) -> Memory:
    there = view.count("ready", "loading")
    match decision:
        case Grow(count=count):
            trial, fruitless = memory.trial, memory.fruitless
            if trial and not view.count("loading"):
                fruitless = 0 if newcomers(view, trial) else fruitless + 1
            if trial is None or not view.count("loading"):
                trial = Trial({each.name: each.rate for each in view.workers if each.state == "ready"})
            wanted = None if memory.wanted is None else max(memory.wanted, there + count)
            return replace(
                memory, changed_s=now_s, loading_s=now_s, full_s=None, wanted=wanted, trial=trial, fruitless=fruitless
            )
        case Shrink():
            wanted = None if memory.wanted is None else there - 1
            return replace(memory, changed_s=now_s, full_s=None, wanted=wanted)
        case RunInline():
            return replace(memory, inline_s=now_s, progress=view.progress if view.rate else None)
        case StopInline():
            harms = view.count("ready") if memory.progress and _harmed(view, memory) else None
            return replace(memory, inline_s=None, progress=None, inline_harms=harms)
    judged = memory.held(memory.inline_s, now_s, 2.0 * HOLD_S)
    return replace(memory, progress=None) if judged else memory


def _harmed(view: FleetView, memory: Memory) -> bool:
    return memory.progress is not None and view.progress < HARM * memory.progress


def _inline_rates(view: FleetView) -> tuple[float, float]:
    """Units/s that students take alone, and with the fleet: they split their time between steps and answers.

    With demand D, fleet F and inline I, ``x = F + I (1 - x / D)``: what they don't spend on steps goes into answers.
    """
    fleet, inline = view.rate, view.inline_rate
    if not view.demand:
        return inline, inline + fleet
    share = 1.0 + inline / view.demand
    return inline / share, (fleet + inline) / share


def _workers(rate: float, each: float) -> int:
    return ceil(rate / each - 1e-9)


def _state(view: FleetView) -> str:
    ready, loading = view.count("ready"), view.count("loading")
    give = f"{_workers_in_words(ready)} {'gives' if ready == 1 else 'give'} {_rate(view.rate)}"
    load = f", {loading} {'loads' if loading == 1 else 'load'}" if loading else ""
    return (give if ready else "none is ready") + load


def _workers_in_words(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"


def _rate(units_s: float) -> str:
    return f"{units_s:,.0f} views/s" if units_s >= 100 else f"{units_s:.3g} views/s"
