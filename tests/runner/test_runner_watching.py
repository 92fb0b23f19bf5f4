"""The fleet in numbers: what is told, and how seldom."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from stillhouse.cli.tally import Tally
from stillhouse.foundation.events import FleetMeasured, WorkerMeasured
from stillhouse.runner.watching import Watch
from stillhouse.runtime.asker import Asker
from stillhouse.runtime.dispatch.state import Totals
from stillhouse.runtime.dispatch.status import Status, WorkerState, WorkerStatus
from stillhouse.runtime.scaling.view import ConsumerView, FleetView, State, WorkerView


@dataclass
class Scene:
    """A fleet by hand: one worker, one student, a clock that is set."""

    now_s: float = 100.0
    state: State = "ready"
    busy: WorkerState = "busy"
    views: int = 0
    busy_s: float = 0.0
    lost: int = 0
    looked_s: float | None = None
    gone: bool = False
    placed: bool = True
    asker: Asker = field(init=False)
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.asker = Asker("student", 10**6, lambda posted: None, lambda: self.now_s, dict)
        self.watch = Watch(0.25, 0.75, lambda: self.now_s, "1 CPU")

    def news(self, last: bool = False) -> FleetMeasured | None:
        worker = WorkerStatus("a", self.busy, 2, 20, 2, 0.0012345, 0, self.views, 0, self.busy_s, 0.0, 100.0)
        looked_s = self.now_s if self.looked_s is None else self.looked_s
        status = Status(looked_s, () if self.gone else (worker,), (), Totals())
        student = ConsumerView("student", None, 300, 1000, False, 0.0)
        view = FleetView((WorkerView("a", "cpu", self.state, 0.001, 0.5, 20, self.placed),), (student,), 50)
        return self.watch.news(status, view, [self.asker], False, 7, {"workers_lost": self.lost}, last)


def test_shares_are_of_the_time_since_the_event_before() -> None:
    """Busy and starved shares are differences of counters over the seconds between two events."""
    scene = Scene()
    assert scene.news() is not None
    scene.asker.take(0.001)
    scene.now_s, scene.busy_s, scene.views = 104.0, 1.0, 640
    told = scene.news()
    assert told is not None
    assert told.seconds == 4.0 and told.starved_share == 1.0 and told.waiting
    assert told.workers == (WorkerMeasured("a", "busy", 640, 0.00123, 2, 0.25),)
    assert (told.open, told.pending, told.buffered, told.window, told.own_views) == (350, 50, 300, 1000, 7)
    assert (told.low, told.high) == (250, 735)


def test_who_waits_for_a_place_does_not_load() -> None:
    """A worker that no machine has room for is told apart from one that loads, and what it waits for is told."""
    scene = Scene(state="loading", gone=True, placed=False)
    told = scene.news()
    scene.placed = True
    then = scene.news()
    assert told is not None and (told.workers[0].state, told.wants) == ("unplaced", "1 CPU")
    assert then is not None and then.workers[0].state == "loading"


def test_rates_are_true_whenever_the_student_tells() -> None:
    """The driver looks twice a second, the student tells when it can: what is told is the worker's rate."""
    scene, tally, dice = Scene(), Tally(), random.Random(1)
    rates = []
    for number in range(400):
        scene.now_s += dice.uniform(0.02, 1.0)
        scene.looked_s = scene.now_s // 0.5 * 0.5
        scene.views = int(1000 * (scene.looked_s - 100.0))
        scene.lost = number // 20  # told at once
        told = scene.news()
        if told is not None:
            tally.hear(told)
            rates.append(tally.rates["a"])
    assert len(rates) > 50 and all(990 < rate < 1010 for rate in rates[1:])


def test_a_worker_that_died_since_the_last_look_keeps_its_views() -> None:
    """It is not told of as ready, with no views: it is gone, and what it answered stays."""
    scene, tally = Scene(views=5000), Tally()
    told = scene.news()
    assert told is not None
    tally.hear(told)
    scene.now_s, scene.gone = 100.4, True
    last = scene.news(last=True)
    assert last is not None and last.workers == ()
    tally.hear(last)
    assert tally.views == {"a": 5000} and tally.rate == 0.0
    scene.state = "loading"
    assert [each.state for each in scene.news(last=True).workers] == ["loading"]  # type: ignore[union-attr]


def test_a_student_that_is_gone_does_not_wait() -> None:
    """A student that was let go while it waited does not starve for the rest of the run."""
    scene = Scene()
    scene.asker.take(0.001)
    scene.now_s = 103.0
    scene.asker.close()
    scene.now_s = 106.0
    told = scene.news()
    assert told is not None and told.starved_share == 0.5 and not told.waiting


def test_nothing_changed_nothing_told() -> None:
    """A line of the file is made every two seconds at most, none while nothing moves, and the last in any case."""
    scene = Scene()
    assert scene.news() is not None
    scene.now_s, scene.views = 101.0, 10
    assert scene.news() is None
    scene.now_s = 102.0
    assert scene.news() is not None
    scene.now_s = 200.0
    assert scene.news() is None
    assert scene.news(last=True) is not None


def test_long_runs_are_told_less_often() -> None:
    """After an hour an event is made every ten seconds."""
    scene = Scene()
    assert scene.news() is not None
    scene.now_s, scene.views = 3700.0, 10
    assert scene.news() is not None
    scene.now_s, scene.views = 3709.0, 20
    assert scene.news() is None
    scene.now_s = 3710.0
    assert scene.news() is not None


def test_a_change_of_state_is_told_at_once() -> None:
    """That a worker became suspect, or was lost, does not wait for the next turn."""
    scene = Scene()
    assert scene.news() is not None
    scene.now_s, scene.state = 100.5, "suspect"
    told = scene.news()
    assert told is not None and told.workers[0].state == "suspect"
    scene.now_s, scene.lost = 100.6, 1
    told = scene.news()
    assert told is not None and told.totals == {"workers_lost": 1}
