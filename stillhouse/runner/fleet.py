"""The workers of a run: started when a view is asked that nobody has answered yet, gone when the run is over.

Here meet what the runtime leaves open: what workers are told, who is let in, and what becomes of a student when no
teacher is left.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import FleetError
from stillhouse.foundation.events import Event, FleetChanged, Warned
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.encode import Codec
from stillhouse.knowledge.source import EncodedRows
from stillhouse.models.network import Network
from stillhouse.models.weights import weights_bytes
from stillhouse.runner.gate import Gate
from stillhouse.runner.housing import Housing, house
from stillhouse.runner.job import job_of, probe_of
from stillhouse.runner.materials import Materials
from stillhouse.runner.own_pace import OwnPace
from stillhouse.runner.watching import Watch
from stillhouse.runtime.arrivals import FAILED_STARTS_MAX
from stillhouse.runtime.asker import Asker
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.driver import Driver
from stillhouse.runtime.gaps import Gaps
from stillhouse.runtime.scaling.policy import Policy
from stillhouse.store.manifest import Identity
from stillhouse.teachers.fleet import Fleet, NoTeacher, needs_pixels

_TOTALS = {
    "workers_lost": "lost",
    "workers_suspected": "suspected",
    "questions_reissued": "reissued",
    "questions_hedged": "hedged",
    "answers_dropped": "dropped",
}
FLEET_TOTALS = ("workers_joined", "workers_refused", *_TOTALS)
"""Numbers in events and in ``result.json``: workers that joined, were turned away, went without leave, let their time
pass; questions asked again, asked of a second worker; answers that came too late."""

_INSTEAD = {
    "inline": "it answers in the student's process",
    "hard_labels": "views that nobody answered are learnt from their labels, until one is back",
    "stored_only": "views that nobody answered are left out, until one is back",
}

_CANT = (
    "the student's process can't answer for the teacher itself, and leaves it to the workers: {}; if it shall, give it "
    "room: a smaller teacher.engine.batch_size, or a device of its own (compute.device, fleet.device)"
)


class RunFleet:
    """Workers that answer a run's one question.

    Args:
        folder: of the run; says where workers can join while there is a fleet.
        answer: this process's own teacher, a batch -> encoded rows.
        known: encoded rows about a batch if a store holds them all.
        emit: takes events; called from the student's thread.
        check: looked at while a student waits; ends the waiting by what it raises.
    """

    def __init__(
        self,
        materials: Materials,
        teacher: Network,
        ask: Ask,
        codec: Codec,
        identity: Identity,
        folder: Path,
        answer: Callable[[Batch], EncodedRows],
        known: Callable[[Batch], EncodedRows | None],
        emit: Callable[[Event], None],
        check: Callable[[], None],
    ) -> None:
        self._check = check
        self._materials, self._teacher, self._ask, self._codec = materials, teacher, ask, codec
        self._identity, self._folder, self._known, self._emit = identity, folder, known, emit
        self._own = OwnPace(answer)
        self._names = itertools.count(1)
        self._driver: Driver | None = None
        self._housing: Housing | None = None
        self._warnings: deque[str] = deque()
        self._alone_since_s: float | None = None
        self._gaps = Gaps(time.monotonic)
        self._degraded = False
        self._turned_away: deque[str] = deque()
        self._joined = self._refused = 0
        self._askers: list[Asker] = []
        self._watch: Watch | None = None

    def fleet(self) -> Fleet:
        """What a student's source needs."""
        recipe = self._materials.recipe
        return Fleet(
            asker=self._asker,
            answer=self._answer,
            helps=self._helps,
            teachers=self._teachers,
            tell=self.tell,
            group=int(recipe.teacher.engine.batch_size),
            row_bytes=self._codec.row.itemsize,
            line_bytes=recipe.fleet.window_mb * 10**6,
        )

    def tell(self, last: bool = False) -> None:
        """Emit what happened since the last time, and what was measured."""
        while self._warnings:
            self._emit(Warned(self._warnings.popleft()))
        if self._driver is None:
            return
        now_s = time.monotonic()
        while self._turned_away:
            self._refused += 1
            self._emit(FleetChanged("refused", "", self._turned_away.popleft(), {}, 0.0))
        for notice in self._driver.notices():
            self._joined += notice.kind == "joined"
            self._refused += notice.kind == "refused"
            self._emit(FleetChanged(notice.kind, notice.worker, notice.text, notice.facts, now_s - notice.at_s))
        status, view = self._driver.status, self._driver.view
        if self._watch is not None and status is not None and view is not None:
            inline = self._degraded and self._materials.recipe.fleet.without_teachers == "inline"
            inline = inline or self._driver.inline
            totals = {name: int(getattr(status.totals, field)) for name, field in _TOTALS.items()}
            totals = {"workers_joined": self._joined, "workers_refused": self._refused, **totals}
            measured = self._watch.news(status, view, self._askers, inline, self._own.views, totals, last)
            if measured is not None:
                self._emit(measured)

    def close(self) -> None:
        """End all workers."""
        if self._driver is None:
            return
        self._driver.close()
        self.tell(last=True)
        assert self._housing is not None
        self._housing.close()

    def _asker(self) -> Asker:
        if self._driver is None:
            self._driver = self._started()
            section = self._materials.recipe.fleet
            self._watch = Watch(section.low, section.high, time.monotonic, self._housing.wants if self._housing else "")
        self._askers.append(self._driver.asker(f"student-{next(self._names)}"))
        return self._askers[-1]

    def _started(self) -> Driver:
        materials, section = self._materials, self._materials.recipe.fleet
        job = job_of(materials, self._ask, self._identity)
        weights = weights_bytes(self._teacher)
        probe = probe_of(materials)
        gate = Gate(
            self._teacher,
            self._ask,
            self._codec,
            materials.device,
            probe,
            self._known(probe),
            self._warnings.append,
            materials.recipe.teacher.divergence_max if section.engine == "own" else None,
        )
        tell = (self._warnings.append, self._turned_away.append)
        housing = house(section, job, weights, self._folder, *tell, self._check, gate.proof_bytes)
        with ExitStack() as undo:
            undo.callback(housing.close)
            undo.callback(housing.backend.close)
            least, most = section.workers_range
            policy = Policy(least, most, section.low, section.high, housing.starts_max)
            settings = Settings(window_bytes=section.window_mb * 10**6)
            driver = Driver(housing.backend, settings, policy, gate, lambda: self._own.view_s, packs=needs_pixels)
            driver.start()
            undo.pop_all()
        self._housing = housing
        return driver

    def _answer(self, batch: Batch) -> EncodedRows | None:
        """Encoded rows by this process itself; None where that fails and workers may answer."""
        try:
            return self._own.answer(batch)
        except Exception as error:  # no room on the device, as a rule
            if self._degraded and not (self._driver and self._driver.workers_left):
                raise
            self._own.give_up()
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            self._warnings.append(_CANT.format(why))
            return None

    def _teachers(self) -> bool:
        """Whether a worker is ready."""
        return self._driver is not None and self._driver.workers_ready > 0

    @property
    def _answers_inline(self) -> bool:
        return self._driver is not None and self._driver.inline and not self._own.failed

    def _helps(self) -> bool:
        """Whether the waiting student answers itself.

        Raises:
            FleetError: no teacher is left, and the recipe says to stop then.
            NoTeacher: the same, and it says to go on without.
            Interrupted: a signal asked the run to stop.
        """
        self.tell()
        self._check()
        assert self._driver is not None
        if self._driver.workers_left:
            self._alone_since_s, self._degraded = None, False
            low = self._materials.recipe.fleet.low
            return self._answers_inline or self._own.is_wanted(self._driver.view, low)
        section, now_s = self._materials.recipe.fleet, time.monotonic()
        if self._alone_since_s is None:
            self._alone_since_s, self._gaps = now_s, Gaps(time.monotonic)
        self._alone_since_s += self._gaps.missed_s(now_s)
        hopeless = len(self._driver.failed_starts) >= FAILED_STARTS_MAX
        if not hopeless and now_s - self._alone_since_s < section.patience_s:
            return self._answers_inline
        if section.without_teachers == "stop":
            alone_s = now_s - self._alone_since_s
            lasted = f"was left for {alone_s:.0f} s" if alone_s >= 1 else "is left"
            raise FleetError(
                f"no teacher {lasted}{self._why()}; go on with 'stillhouse resume {self._folder}' when there is one, "
                "or say what else to do with fleet.without_teachers"
            )
        if not self._degraded:
            self._degraded = True
            self._emit(Warned(f"no teacher is left{self._why()}: {_INSTEAD[section.without_teachers]}"))
        if section.without_teachers == "inline":
            return True
        raise NoTeacher

    def _why(self) -> str:
        """What keeps workers away, as far as one knows."""
        assert self._driver is not None and self._housing is not None
        if unplaced := self._driver.workers_unplaced:
            return f"; {unplaced} wait for a machine with room for them, {self._housing.wants} each"
        return f"; the last one: {self._driver.failed_starts[-1]}" if self._driver.failed_starts else ""
