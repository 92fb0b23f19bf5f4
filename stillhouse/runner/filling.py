"""The phase ``teach``: the teacher answers everything that the store does not hold yet, before any student trains.

It needs no checkpoint: what is answered is in the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from stillhouse.foundation.clock import Stopwatch
from stillhouse.foundation.events import Event, PhaseStarted, Progress
from stillhouse.runner.energy import meter_of, metered
from stillhouse.runner.signals import Signals
from stillhouse.runner.teaching import Teaching

PHASE = "teach"
_TOLD_EVERY_S = 1.0


def fill(teaching: Teaching, emit: Callable[[Event], None], signals: Signals) -> None:
    """Fill the store of a run.

    Raises:
        Interrupted: a signal came; what was answered stays.
        StorageError: the disk refused.
    """
    with metered(meter_of(teaching.recipe), PHASE, emit) as tell:
        _fill(teaching, tell, signals)


def _fill(teaching: Teaching, emit: Callable[[Event], None], signals: Signals) -> None:
    watch = Stopwatch()
    views, size = teaching.views_in_all, teaching.batch_size
    done, untold, said = views - teaching.views_unanswered(), 0, time.monotonic()
    teaching.news()
    steps = -(-views // size)
    emit(PhaseStarted(PHASE, done // size, steps, size))

    def tell() -> None:
        nonlocal untold, said
        watch.lap("teacher")
        counts = {"misses": untold, **teaching.news()}
        emit(Progress(PHASE, done // size, done / views, {}, 0.0, watch.take(), untold, counts))
        untold, said = 0, time.monotonic()

    for answered in teaching.fill():
        done, untold = done + answered, untold + answered
        if time.monotonic() - said >= _TOLD_EVERY_S:
            tell()
        signals.check("while the teacher answered")
    if untold:
        tell()
