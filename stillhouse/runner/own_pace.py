"""How fast the teacher answers in the student's process: measured where that is done, tried where nobody knows.

Whether waiting students are to answer themselves is decided by their pace against the fleet's. A run with a fleet has
no reason to know it, so a student that starves answers two questions: the first one loads (and compiles) the engine and
is not timed. The fleet's answers gather meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from stillhouse.data.batch import Batch
from stillhouse.knowledge.source import EncodedRows
from stillhouse.runtime.scaling.memory import HOLD_S
from stillhouse.runtime.scaling.view import FleetView


class OwnPace:
    """Answers, and times it.

    Attributes:
        view_s: seconds a view of the last answer that was not much smaller than others; None: not known.
        views: answered in all.
        failed: whether it gave up.

    Args:
        answer: this process's own teacher, a batch -> encoded rows.
        clock: seconds, monotonic.
    """

    def __init__(self, answer: Callable[[Batch], EncodedRows], clock: Callable[[], float] = time.perf_counter) -> None:
        self._answer, self._clock = answer, clock
        self._starves_since_s: float | None = None
        self._warm, self._most = False, 0
        self.view_s: float | None = None
        self.views = 0
        self.failed = False

    def answer(self, batch: Batch) -> EncodedRows:
        """Encoded rows about a batch."""
        begun_s = self._clock()
        rows = self._answer(batch)
        self._most = max(self._most, len(batch))
        if self._warm and 2 * len(batch) > self._most:  # teachers compute whole groups: a small one costs as much
            self.view_s = (self._clock() - begun_s) / max(len(batch), 1)
        self._warm = True
        self.views += len(batch)
        return rows

    def give_up(self) -> None:
        """It can't be done here: there is no pace, and none is wanted."""
        self.view_s, self.failed = None, True

    def is_wanted(self, view: FleetView | None, low: float) -> bool:
        """Whether a waiting student shall answer a question to learn how fast it is.

        It is where nobody knows and students have starved for ten seconds beside workers that are ready.

        Args:
            low: share of the window, as of the scaling policy.
        """
        if self.failed or self.view_s is not None or view is None or not view.count("ready") or not view.starving(low):
            self._starves_since_s = None
            return False
        now_s = self._clock()
        if self._starves_since_s is None:
            self._starves_since_s = now_s
        return now_s - self._starves_since_s >= HOLD_S
