"""Who is trained further, and when: asynchronous successive halving (ASHA, arXiv 1810.05934).

A pure function of what is known: whoever asks for work gets a trial that is among the best of its rung and was not
trained further yet, the highest rung first; else a new trial. Nobody waits for a rung to be full, so a late or dead
worker holds nobody up. The price: a trial may go on that would not have, had the rest of its rung been known.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Standing:
    """How far a trial came.

    Attributes:
        number: of the trial.
        values: its value at each rung that it has reached; more is better.
        ended: it failed, or is not allowed: it never goes on.
    """

    number: int
    values: tuple[float, ...] = ()
    ended: bool = False


class Job(NamedTuple):
    """Work on a trial: train it up to a rung, counted from 0. ``trial`` is None for a new one."""

    trial: int | None
    rung: int


def next_job(
    standings: Sequence[Standing], busy: Collection[int], trials: int, rungs: int, reduction: int
) -> Job | None:
    """What to do next; None where nothing is to be done now, and if nobody is busy, at all.

    Args:
        standings: of all trials that were begun.
        busy: numbers of the trials that somebody works on.
        trials: how many are begun in all; those that ended at once are no trials.
        rungs: how many.
        reduction: of so many at a rung one goes on.
    """
    for rung in reversed(range(rungs - 1)):
        found = _promoted(standings, busy, rung, reduction)
        if found is not None:
            return Job(found, rung + 1)
    for each in standings:  # begun by a process that is gone
        if not each.values and not each.ended and each.number not in busy:
            return Job(each.number, 0)
    if sum(bool(each.values) or not each.ended for each in standings) < trials:
        return Job(None, 0)
    return _last(standings, busy, rungs)


def _promoted(standings: Sequence[Standing], busy: Collection[int], rung: int, reduction: int) -> int | None:
    """The best trial that waits at a rung and is among its best."""
    there = sorted((-each.values[rung], each.number) for each in standings if len(each.values) > rung)
    waiting = {each.number for each in standings if len(each.values) == rung + 1 and not each.ended}
    best = [number for _, number in there[: len(there) // reduction]]
    return next((number for number in best if number in waiting and number not in busy), None)


def _last(standings: Sequence[Standing], busy: Collection[int], rungs: int) -> Job | None:
    """When all were begun: one is trained to the end, even where there were too few to choose from."""
    if busy:
        return None
    if any(len(each.values) == rungs for each in standings):
        return None
    alive = [each for each in standings if each.values and not each.ended]
    if not alive:
        return None
    best = max(alive, key=lambda each: (len(each.values), each.values[-1], -each.number))
    return Job(best.number, len(best.values))
