"""A student's end of a fleet, for benchmarks: the real driver, local backend and source of rows; workers as told."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.bench_online import Job
from benchmarks.turns import Pace
from stillhouse.data.batch import Batch
from stillhouse.knowledge.encode import Codec, Encoding
from stillhouse.knowledge.source import EncodedRows
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.driver import Driver
from stillhouse.runtime.local.backend import LocalBackend
from stillhouse.runtime.scaling.policy import Policy
from stillhouse.students.objective import Objective
from stillhouse.teachers.fleet import Fleet, FleetRows

ASK = Objective(ObjectiveSection()).ask
EMULATED, REAL = "benchmarks.emulated", "benchmarks.real_teacher"


@dataclass(frozen=True)
class Team:
    """Workers to be had.

    Attributes:
        program: a module that is a worker.
        job: what each of them is told.
        count: how many there are; one that dies is replaced.
        row_bytes: of an answer about a view.
        group: views of a question.
        window_mb: of answers, and of pixels in line.
    """

    program: str
    job: Mapping[str, Any]
    count: int
    row_bytes: int
    group: int = 128
    window_mb: int = 256

    def driver(
        self,
        clock: Callable[[], float] = time.monotonic,
        inline_view_s: Callable[[], float | None] = lambda: None,
    ) -> Driver:
        """Ready to start them, which the first question does.

        Args:
            inline_view_s: seconds a view of a student that helps itself; None: it does not.
        """
        backend = LocalBackend(dict(self.job), [sys.executable, "-m", self.program], _complain)
        settings = Settings(window_bytes=self.window_mb * 10**6)
        policy = Policy(self.count, self.count)
        driver = Driver(backend, settings, policy, lambda facts, proof: None, inline_view_s, clock)
        driver.start()
        return driver

    def rows(self, driver: Driver, student: str, answer: Callable[[Batch], EncodedRows] | None = None) -> FleetRows:
        """A student's source of rows."""
        return FleetRows(
            Fleet(
                asker=lambda: driver.asker(student),
                answer=answer or _nobody,
                helps=lambda: answer is not None and driver.inline,
                teachers=lambda: True,
                tell=lambda: None,
                group=self.group,
                row_bytes=self.row_bytes,
                line_bytes=self.window_mb * 10**6,
            )
        )


class HeldPace:
    """A pace, and a clock that stands still while it holds the loop: nobody's time is up for having been stopped."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        # Of one piece, since another thread reads the clock: since when the loop is held, and how long it was before.
        self._held: tuple[float | None, float] = None, 0.0

    def __call__(self) -> None:
        """As of the pace."""
        begun, before_s = time.monotonic(), self._held[1]
        self._held = begun, before_s
        self._pace()
        self._held = None, before_s + time.monotonic() - begun

    def clock(self) -> float:
        """Seconds that were not held."""
        since_s, held_s = self._held
        return (time.monotonic() if since_s is None else since_s) - held_s


def codec_of(job: Job) -> Codec:
    """The form of answers to :data:`ASK` about a job's views."""
    return Codec(ASK, Encoding(), job.classes, {})


def _nobody(_: Batch) -> EncodedRows:
    raise AssertionError("this student answers nothing itself")


def _complain(words: str) -> None:
    print(words, file=sys.stderr)
