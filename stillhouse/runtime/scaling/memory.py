"""What scaling remembers between two decisions, and what it learns from a fleet before it decides.

Three things are learnt, each by comparing what was measured before and after: whether growing raised the rate (on
exhausted cores it does not), whether starting workers brings any, and how much capacity is enough in truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from stillhouse.runtime.scaling.view import FleetView

HOLD_S: Final = 10.0  # what lasts that long is no accident
SATURATED: Final = 0.85  # busy share of the ready workers; below, something else holds the students up
COOL_DOWN_S: Final = 5.0  # between changes; a worker's start where that takes longer
PAYS: Final = 0.25  # share of the newcomers' own rate by which the total must rise
DRIFT: Final = 0.15  # share of the others' rate that may be lost by chance: less says nothing of a small newcomer
LIFT: Final = 1.2  # the rate must rise by this without growing, before growth that did not pay is tried again
HARM: Final = 0.9  # students that run inline and take less than this of what they took before are better off without
SCARCE_MAX: Final = 2.0  # what is enough is never learnt to be more than this times demand
FORGET_S: Final = 300.0  # of a full buffer, after which half of that is forgotten
BACK_OFF_MAX: Final = 5  # doublings of the cool-down


@dataclass(frozen=True)
class Trial:
    """What the ready workers gave (units/s, by name) when the fleet last grew."""

    rates: Mapping[str, float]


@dataclass(frozen=True)
class Ceiling:
    """Growing beyond so many workers did not pay; ``rate`` is what all gave then, units/s."""

    workers: int
    rate: float


@dataclass(frozen=True)
class Memory:
    """What a policy knows from before. Times are those handed to it, None for never or not now.

    Attributes:
        changed_s: when the fleet last grew or shrank.
        loading_s: when a worker was last seen loading.
        starving_s: since when students starve.
        full_s: since when the buffer is full.
        wanted: how many workers there should be; None until rates are measured.
        trial: the last growth, until it is judged.
        ceiling: a growth that was judged and did not pay.
        fruitless: growths in a row of which no worker became ready.
        scarce: capacity over demand at which students starved all the same; 1 where that was never seen, or long ago.
        seen_s: when a view was seen last.
        inline_s: since when students run inline.
        progress: units/s that students took when they began to, until that is judged; None: nothing to judge.
        inline_harms: number of ready workers beside which running inline slowed the students down.
    """

    changed_s: float | None = None
    loading_s: float | None = None
    starving_s: float | None = None
    full_s: float | None = None
    wanted: int | None = None
    trial: Trial | None = None
    ceiling: Ceiling | None = None
    fruitless: int = 0
    scarce: float = 1.0
    seen_s: float | None = None
    inline_s: float | None = None
    progress: float | None = None
    inline_harms: int | None = None

    @property
    def touched_s(self) -> float:
        """When the fleet last changed, or a worker was last loading: older figures are of another fleet."""
        return max(self.changed_s or 0.0, self.loading_s or 0.0)

    def cool_down_s(self, view: FleetView) -> float:
        """Seconds between two changes: a worker's start, longer where starts bring no worker."""
        return max(COOL_DOWN_S, view.start_s or 0.0) * 2.0 ** min(self.fruitless, BACK_OFF_MAX)

    def coming(self, view: FleetView, now_s: float) -> bool:
        """Whether loading workers will be ready soon. On a cluster they may wait for a machine for ever."""
        patience_s = 2.0 * self.cool_down_s(view)
        return view.count("loading") > 0 and (self.changed_s is None or now_s - self.changed_s < patience_s)

    def held(self, since_s: float | None, now_s: float, hold_s: float = HOLD_S) -> bool:
        """Whether something has lasted."""
        return since_s is not None and now_s - since_s >= hold_s


def observe(view: FleetView, memory: Memory, now_s: float, low: float, high: float) -> Memory:
    """The memory with what the view teaches."""
    starving, full = view.starving(low), view.full(high) and not view.waiting
    passed_s = now_s - memory.seen_s if full and memory.full_s is not None and memory.seen_s is not None else 0.0
    memory = replace(
        memory,
        seen_s=now_s,
        scarce=1.0 + (memory.scarce - 1.0) * 0.5 ** (passed_s / FORGET_S),
        loading_s=now_s if view.count("loading") else memory.loading_s,
        starving_s=None if not starving else now_s if memory.starving_s is None else memory.starving_s,
        full_s=None if starving or not full else now_s if memory.full_s is None else memory.full_s,
    )
    if memory.ceiling and view.rate >= LIFT * memory.ceiling.rate:
        memory = replace(memory, ceiling=None)
    if memory.inline_harms not in (None, view.count("ready")):
        memory = replace(memory, inline_harms=None)
    saturated = view.waiting and view.busy_share >= SATURATED and memory.held(memory.starving_s, now_s)
    if view.demand and saturated and now_s - memory.touched_s >= HOLD_S:
        memory = replace(memory, scarce=max(memory.scarce, min(view.rate / view.demand, SCARCE_MAX)))
    return _judge_growth(view, memory, now_s)


def newcomers(view: FleetView, trial: Trial) -> list[str]:
    """Workers that became ready since the fleet last grew."""
    return [each.name for each in view.workers if each.state == "ready" and each.name not in trial.rates]


def _judge_growth(view: FleetView, memory: Memory, now_s: float) -> Memory:
    """Close a trial when its workers are ready and their paces had time to settle."""
    trial = memory.trial
    if trial is None or memory.coming(view, now_s):
        return memory
    if not view.count("loading") and now_s - memory.touched_s < HOLD_S:
        return memory
    joined = newcomers(view, trial)
    if not joined:
        return replace(memory, trial=None, fruitless=memory.fruitless + (not view.count("loading")))
    now = {worker.name: worker.rate for worker in view.workers}
    before = {name: rate for name, rate in trial.rates.items() if now.get(name)}
    gained, own = view.rate - sum(before.values()), sum(now[name] for name in joined)
    memory = replace(memory, trial=None, fruitless=0)
    lost = own - gained  # by the others, if they still gave what they did before
    if not before or gained >= PAYS * own or lost < DRIFT * sum(before.values()):
        return memory
    worth = ceil(max(0.0, gained) / (sum(before.values()) / len(before)))
    return replace(memory, ceiling=Ceiling(len(before) + worth, view.rate))
