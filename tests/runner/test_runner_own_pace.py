"""A starved student learns how fast it would answer itself: without that number nobody ever tells it to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from stillhouse.data.batch import Batch
from stillhouse.knowledge.source import EncodedRows
from stillhouse.runner.own_pace import OwnPace
from stillhouse.runtime.scaling.view import ConsumerView, FleetView, WorkerView

BATCH = Batch(np.arange(10), np.zeros(10, np.int64), torch.zeros(10, 1), torch.zeros(10, dtype=torch.int64))
STARVING = FleetView(
    (WorkerView("w", "cpu", "ready", 0.1, 1.0, 10),), (ConsumerView("student", 100.0, 0, 100, True, 0.9),)
)


class Slow:
    """A teacher that takes as long as it is told, on a clock by hand."""

    def __init__(self, *seconds: float) -> None:
        self.now_s, self.left_s = 0.0, list(seconds)
        self.pace = OwnPace(self.answer, lambda: self.now_s)

    def answer(self, batch: Batch) -> EncodedRows:
        self.now_s += self.left_s.pop(0)
        return np.zeros((len(batch), 4), np.uint8)


def test_the_first_answer_is_not_timed() -> None:
    """It compiles, for half a minute maybe: its time says nothing about the next ones."""
    slow = Slow(30.0, 2.0, 3.0)
    slow.pace.answer(BATCH)
    assert slow.pace.view_s is None
    slow.pace.answer(BATCH)
    assert slow.pace.view_s == 0.2
    slow.pace.answer(BATCH)
    assert slow.pace.view_s == 0.3 and slow.pace.views == 30


def test_a_small_answer_is_not_timed() -> None:
    """The teacher computes whole groups: one view that takes as long as ten is no slower pace."""
    slow = Slow(30.0, 2.0, 2.0)
    one = Batch(*(each[:1] for each in (BATCH.sample_ids, BATCH.views, BATCH.inputs, BATCH.targets)))
    for batch in (BATCH, BATCH, one):
        slow.pace.answer(batch)
    assert slow.pace.view_s == 0.2


def test_a_student_that_starves_tries_itself_until_its_pace_is_known() -> None:
    """After ten seconds, not at once: answers may be on their way; and not for ever."""
    slow = Slow(30.0, 2.0)
    wanted = []
    for slow.now_s in (0.0, 5.0, 9.9, 10.0):
        wanted.append(slow.pace.is_wanted(STARVING, 0.25))
    assert wanted == [False, False, False, True]
    slow.pace.answer(BATCH)
    assert slow.pace.is_wanted(STARVING, 0.25)
    slow.pace.answer(BATCH)
    assert not slow.pace.is_wanted(STARVING, 0.25)


def test_who_gave_up_is_not_asked_to_try() -> None:
    """A process that can't answer has no pace, however long it starves."""
    slow = Slow(30.0, 2.0)
    slow.pace.answer(BATCH), slow.pace.answer(BATCH)
    slow.pace.give_up()
    assert slow.pace.view_s is None
    for slow.now_s in (100.0, 200.0, 300.0):
        assert not slow.pace.is_wanted(STARVING, 0.25)


def test_nobody_tries_for_nothing() -> None:
    """A student that is fed, or whose workers still load, does not load an engine; starving begins anew each time."""
    slow = Slow()
    fed = replace(STARVING, consumers=(ConsumerView("student", 100.0, 90, 100, True, 0.9),))
    loading = replace(STARVING, workers=(WorkerView("w", "", "loading"),))
    for slow.now_s, view in ((0.0, STARVING), (9.0, fed), (18.0, STARVING), (27.0, loading), (36.0, None)):
        assert not slow.pace.is_wanted(view, 0.25)
