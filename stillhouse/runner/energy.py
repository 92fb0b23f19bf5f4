"""What a run's phases use: each under a meter of its own, that tells as it goes; and the sums, for ``result.json``.

What is done between the phases (reading data, trying engines, the test) is in none of them.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from stillhouse.foundation.counters import Gpus, Part, Uncounted
from stillhouse.foundation.energy import EnergyMeter, EnergyRead, Estimate
from stillhouse.foundation.errors import StillhouseError
from stillhouse.foundation.events import Event, PhaseFinished
from stillhouse.recipe.recipe import Recipe

# A kill costs what came since; counters that wrap must be read more often than every minute.
TELL_EVERY_S = 5.0
_KINDS = ("unavailable", "estimated", "measured")

Emit = Callable[[Event], None]


def meter_of(recipe: Recipe) -> EnergyMeter:
    """Counts from now on what a run uses: this machine's processor, and the GPUs here that the run's process, its
    students and its workers compute on.

    Args:
        recipe: ``compute`` with ``auto`` resolved.
    """
    power, fleet = recipe.compute.power, recipe.fleet
    beside = list[Part]()
    if numbers := gpus_in_use(recipe, torch.cuda.device_count()):
        beside.append(Gpus([f"GPU-{torch.cuda.get_device_properties(each).uuid}" for each in numbers]))
    if recipe.compute.device == "mps":
        beside.append(Uncounted("the GPU: Apple's counters are not read"))
    several = max(fleet.students_range[1], fleet.block_workers, fleet.trial_workers)
    if fleet.backend == "ray" and (fleet.workers_range[1] or several > 1):
        beside.append(Uncounted("other machines of the Ray cluster"))
    return EnergyMeter(Estimate(power.model) if power else None, beside)


def gpus_in_use(recipe: Recipe, there: int) -> list[int]:
    """CUDA's numbers of those, of so many that are ``there``, on which a run's own process, students and workers work.

    Several students take one each, in order, and so do workers that train blocks or trials; workers that answer all
    take the same.
    """
    fleet, own = recipe.fleet, recipe.compute.device
    several = max(fleet.students_range[1], fleet.block_workers, fleet.trial_workers)
    students = several if fleet.backend == "local" else 1
    named = [own, *(f"cuda:{rank}" for rank in range(students) if own.startswith("cuda") and students > 1)]
    if fleet.backend == "local" and fleet.workers_range[1] and recipe.objective.asks:
        named.append("cuda" if fleet.device == "auto" else fleet.device)
    found = {torch.device(each).index or 0 for each in named if each.startswith("cuda")}
    return sorted(found.intersection(range(there)))


@contextlib.contextmanager
def metered(meter: EnergyMeter, phase: str, emit: Emit, now_s: Callable[[], float] = time.monotonic) -> Iterator[Emit]:
    """Work on a phase under a meter; its end is told, well or interrupted.

    Args:
        meter: just made.
        emit: of the run.
        now_s: a clock.

    Yields:
        what the phase's events are to be emitted by, ``PhaseFinished`` left out; with them it tells what was used.
    """
    started_s, told_s = now_s(), -math.inf

    def read(*, last: bool = False) -> EnergyRead:
        energy = meter.read()
        return EnergyRead(phase, energy.joules, energy.source, last)

    def tell(event: Event) -> None:
        nonlocal told_s
        emit(event)
        if now_s() - told_s >= TELL_EVERY_S:
            told_s = now_s()
            emit(read())

    try:
        yield tell
    except StillhouseError:
        emit(read(last=True))
        raise
    found = meter.read()
    emit(PhaseFinished(phase, now_s() - started_s, found.joules, found.source))


def energy_use(processes: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Joules of all phases and of each, over all processes of the run, and how they are known.

    A phase's figure is None where a process that worked on it told none; the run's, where a phase's is. Of one that was
    killed its last reading counts, and the source says so.

    Args:
        processes: the events of each.
    """
    told: dict[str, list[dict[str, Any]]] = {}
    for events in processes:
        for phase, last in _last_words(events).items():
            told.setdefault(phase, []).append(last)
    everything = [each for words in told.values() for each in words]
    by_phase = {phase: _sum(words) for phase, words in told.items()}
    return {"joules": _sum(everything), "source": _source(everything), "by_phase": by_phase}


def _last_words(events: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each phase that a process worked on, what it told last of its energy.

    What is told of a phase while another one's meter counts is part of that.
    """
    found: dict[str, dict[str, Any]] = {}
    counting = ""
    for event in events:
        kind, phase = event["event"], str(event.get("phase", ""))
        if kind not in ("PhaseStarted", "EnergyRead", "PhaseFinished") or (counting and phase != counting):
            continue
        if kind == "PhaseStarted":
            nothing = f"unavailable: a process told nothing of {phase} before it ended"
            found.setdefault(phase, {"joules": None, "energy_source": nothing, "last": True})
            counting = phase
            continue
        found[phase] = {"last": kind == "PhaseFinished", **event}
        counting = "" if kind == "PhaseFinished" or event.get("last") else counting
    return found


def _sum(words: Sequence[dict[str, Any]]) -> float | None:
    joules = [each["joules"] for each in words]
    return round(sum(joules), 1) if joules and None not in joules else None


def _source(words: Sequence[dict[str, Any]]) -> str:
    """All sources, the weakest first: a sum is known no better than its parts."""
    sources = sorted({each["energy_source"] for each in words}, key=lambda each: _KINDS.index(each.partition(":")[0]))
    if not sources:
        return "unavailable: nothing was trained"
    if sources[0].startswith("unavailable"):
        return str(sources[0])
    lost = sum(not each["last"] for each in words)
    few = f"; at least, since {lost} process{'es' if lost > 1 else ''} ended without a last reading"
    return "; ".join(sources) + (few if lost else "")
