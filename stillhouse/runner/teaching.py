"""Who answers a run's students: the teacher's engine, the form of its answers, and the label store in front of it.

The teacher is woken by the first view that the store does not hold: a run whose answers are all there never compiles
it, nor needs the hardware for it.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.data.ahead import ahead
from stillhouse.data.batch import Batch
from stillhouse.data.decode import Form
from stillhouse.foundation.errors import DataError, FleetError, ModelError, StorageError
from stillhouse.foundation.events import AnswersFormed, Event, SourceMeasured, StoreOpened, Warned
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.knowledge.source import (
    Answerer,
    AskedRows,
    EncodedRows,
    KnowledgeSource,
    RowSource,
    UnstoredSource,
)
from stillhouse.knowledge.stored import Reading, StoredSource
from stillhouse.knowledge.writer import Writer
from stillhouse.models.network import Network
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.answers import codec_of, disagreement, identity_of, runs_here, views_asked
from stillhouse.runner.fleet import RunFleet
from stillhouse.runner.materials import Materials
from stillhouse.runner.own_engine import strays
from stillhouse.runner.signals import Signals
from stillhouse.store.label_store import LabelStore, open_store
from stillhouse.store.shelf import nearest
from stillhouse.teachers.engine import Teacher
from stillhouse.teachers.fidelity import is_steady
from stillhouse.teachers.fleet import FleetRows

_OTHERWISE = 0.05
"""Relative squared error: no engine strays as far."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NEIGHBOURS = (
    "the teacher's answer about a view depends on the views that it is asked about with it: the last bits of results "
    "will depend on what was stored ('engine: auto' does not take such engines); if it is more than last bits, look "
    "for a norm without running statistics in the teacher"
)
_OWN = (
    "fleet.engine: own: results depend on who answered what, since each worker has an engine of its own; all are "
    "within {:g} nats of fp32 on average (teacher.divergence_max)"
)
_UNKNOWN_SAMPLES = (
    "nobody would notice if samples of this source changed, so answers can't be kept with data.keep_decoded: false; "
    "use Parquet, give the dataset an attribute 'digest', or keep_decoded: true"
)


class Teaching:
    """Answers one question for all students of a run; close it at the end.

    Args:
        ask: the question; it asks for something.
        emit: takes events.
        folder: of the run, where workers find its door.
        signals: end the waiting for workers.
        all_kept: whether every answer must find room.

    Attributes:
        store: None where nothing is kept: the recipe says ``inline``, or nobody would notice samples that change.
        codec: the form of the answers.

    Raises:
        ModelError: the engine can't run here and not all is answered.
        StorageError: not every answer finds room.
    """

    def __init__(
        self,
        materials: Materials,
        teacher: Network,
        ask: Ask,
        emit: Callable[[Event], None],
        folder: Path,
        signals: Signals,
        *,
        all_kept: bool = False,
    ) -> None:
        self.ask = ask
        self._materials, self._network, self._emit, self._all_kept = materials, teacher, emit, all_kept
        self._signals = signals
        self._engine: Teacher | None = None
        self._refusal: StorageError | None = None
        self.codec = codec_of(materials.networks, teacher, ask)
        interface = materials.interface
        emit(AnswersFormed(Form(interface.shape, interface.image).nbytes, self.codec.row.itemsize))
        self.store, note = self._open()
        unanswered = self.views_in_all
        if self.store is not None:
            views, unanswered = views_asked(materials.recipe), self.views_unanswered()
            planned, there = self.store.planned_bytes(views), self.views_in_all - unanswered
            emit(StoreOpened(str(self.store.folder), views, planned, note, there, self.views_in_all))
        if materials.recipe.fleet.engine == "own":
            emit(Warned(_OWN.format(materials.recipe.teacher.divergence_max)))
        engine, device = materials.recipe.teacher.engine, materials.device
        left = unanswered > 0
        if left and not runs_here(engine, device):
            raise ModelError(
                f"teacher.engine: {engine.precision} by {engine.runtime} can't run on {device} here, and not all is "
                "answered yet: use auto, or let 'stillhouse teach' answer the rest where it can run"
            )
        self._writer = None if self.store is None else Writer(self.store, self._refused)
        measures = materials.recipe.knowledge.source == "auto" and left
        self._reads = Reading(self._measured) if measures else None
        self._fleet = self._fleet_of(folder) if left and materials.recipe.fleet.workers_range[1] else None

    @property
    def recipe(self) -> Recipe:
        """The run's."""
        return self._materials.recipe

    def source(self) -> KnowledgeSource:
        """A source for one student."""
        if self.store is None or self._writer is None:
            return UnstoredSource(self.ask, self.codec, self._rows())
        return StoredSource(self.ask, self.codec, self.store, self._rows(), self._writer, self._reads)

    def aside(self) -> KnowledgeSource:
        """A source for a trial, which leaves no trace in the store where it can be helped."""
        if not runs_here(self._materials.recipe.teacher.engine, self._materials.device):
            return self.source()
        return UnstoredSource(self.ask, self.codec, self._asked_here())

    @property
    def batch_size(self) -> int:
        """Views that the teacher answers at once."""
        return int(self._materials.recipe.teacher.engine.batch_size)

    @property
    def views_in_all(self) -> int:
        """Training views that the run's students see, of all samples."""
        return views_asked(self._materials.recipe) * len(self._materials.data.splits.train)

    @property
    def has_room_for_all(self) -> bool:
        """Whether the store has room for an answer about each of them."""
        return self.store is not None and self.store.views_that_fit >= views_asked(self._materials.recipe)

    def views_unanswered(self) -> int:
        """How many of them the store does not hold."""
        assert self.store is not None
        train = self._materials.data.splits.train
        return sum(len(self.store.missing(train, view)) for view in range(views_asked(self._materials.recipe)))

    def unanswered(self) -> Iterator[Batch]:
        """They, in batches of the engine's size."""
        assert self.store is not None
        materials, size = self._materials, self.batch_size
        stream = materials.stream(materials.recipe.student.train, 0)
        for view in range(views_asked(materials.recipe)):
            ids = self.store.missing(materials.data.splits.train, view)
            for start in range(0, len(ids), size):
                part = ids[start : start + size]
                yield stream.make(part, np.full(len(part), view, np.int64))

    def fill(self) -> Iterator[int]:
        """Ask all that is not answered yet and write it; yields the number of views after each batch.

        Raises:
            StorageError: the disk refused.
        """
        assert self.store is not None and self._writer is not None
        rows = self._rows()
        made = ahead(self.unanswered(), self._materials.recipe.data.ahead_max_mb * 2**20)
        with contextlib.closing(made):
            for batch, fresh in rows.rows(made):
                if fresh is None:
                    raise FleetError(
                        "no teacher is left who could answer: go on with 'stillhouse teach' when there is one"
                    )
                self._writer.put(batch.sample_ids, batch.views, fresh)
                yield len(batch)
                if self._refusal is not None:
                    raise self._refusal
        self._writer.drain()
        if self._refusal is not None:
            raise self._refusal

    def news(self) -> dict[str, int]:
        """Bytes written and damaged rows met since they were last told. Has the fleet told, too."""
        assert self._writer is not None
        if self._fleet is not None:
            self._fleet.tell()
        return self._writer.news()

    def close(self) -> None:
        """Write what is left, let the teachers go."""
        if self._fleet is not None:
            self._fleet.close()
        if self._writer is not None:
            self._writer.close()
        if self.store is not None:
            self.store.close()
        if self._engine is not None:
            self._engine.close()

    def summary(self) -> dict[str, Any] | None:
        """What ``result.json`` says of the store, besides what events told: numbers in both are to be added."""
        if self.store is None or self._writer is None:
            return None
        self._writer.drain()
        return self._writer.news() | {
            "folder": str(self.store.folder),
            "row_bytes": self.store.row_bytes,
            "bytes_on_disk": self.store.bytes_on_disk(),
            "rows_without_room": self.store.refused_rows,
        }

    def _rows(self) -> RowSource:
        """Whoever answers what is not stored: workers, or the teacher in this process."""
        if self._fleet is not None:
            return FleetRows(self._fleet.fleet())
        return self._asked_here()

    def _asked_here(self) -> AskedRows:
        return AskedRows(Answerer(self._answer, self.batch_size), self.codec)

    def _fleet_of(self, folder: Path) -> RunFleet:
        store, materials = self.store, self._materials
        identity = store.manifest.identity if store is not None else identity_of(materials, self._network, self.ask)

        def answer(batch: Batch) -> EncodedRows:
            return self.codec.encode(self._answer(batch))

        def known(batch: Batch) -> EncodedRows | None:
            if store is None:
                return None
            rows, found = store.read(batch.sample_ids, batch.views)
            return rows if found.all() else None

        def check() -> None:
            self._signals.check("while waiting for a teacher")

        return RunFleet(
            materials, self._network, self.ask, self.codec, identity, folder, answer, known, self._emit, check
        )

    def _answer(self, batch: Batch) -> Knowledge:
        if self._engine is None:
            engine = self._materials.recipe.teacher.engine
            self._engine = Teacher(self._network, self.ask, self._materials.device, engine)
            self._check_own(self._engine, batch)
            if self.batch_size > 1 and len(batch) and not is_steady(self._engine, batch.inputs, self.batch_size):
                self._emit(Warned(_NEIGHBOURS))
        return self._engine.answer(batch)

    def _check_own(self, engine: Teacher, batch: Batch) -> None:
        """Beside workers with engines of their own, this process's keeps to the same bound."""
        recipe = self._materials.recipe
        if recipe.fleet.engine == "same" or not len(batch):
            return
        bound, size = recipe.teacher.divergence_max, self.batch_size
        lack = strays(self._network, self.ask, self._materials.device, engine, batch.inputs, size, bound)
        if lack:
            raise ModelError(
                f"fleet.engine: own: what the student's process answers itself, by teacher.engine, {lack}: use "
                "teacher.engine: auto, or fleet.engine: same"
            )

    def _open(self) -> tuple[LabelStore | None, str]:
        """The store, None where nothing is kept, and what a person may want to know about another one."""
        recipe, data = self._materials.recipe, self._materials.data
        if recipe.knowledge.source == "inline":
            return None, ""
        if not data.samples_known:
            if self._all_kept:
                raise DataError(_UNKNOWN_SAMPLES)
            self._emit(Warned(f"the teacher answers each time: {_UNKNOWN_SAMPLES}"))
            return None, ""
        store, note = self._store_of_this_teacher(Path(recipe.store.path))
        views = views_asked(recipe)
        if store.views_that_fit < views:
            room = store.views_that_fit
            wanted = (
                f"the answers about {views} views of each sample take {store.planned_bytes(views):,} bytes, and "
                f"store.bytes_max leaves room for {room} of them: raise it, set data.views, keep fewer logits "
                f"(knowledge.logits), or 'stillhouse store prune {store.folder.parent}'"
            )
            if self._all_kept:
                store.close()
                raise StorageError(wanted)
            self._emit(Warned(f"{wanted}; the others are asked each time"))
        return store, note

    def _store_of_this_teacher(self, root: Path) -> tuple[LabelStore, str]:
        """The store of the run's answers, and what a person may want to know about another one that is not read."""
        materials, note = self._materials, ""
        for variant in itertools.count():
            identity = identity_of(materials, self._network, self.ask, variant)
            before = nearest(root, identity)
            if not note and before is not None and before[1]:
                told = [_DIGEST.sub(lambda match: match[0][:12], each) for each in before[1][:3]]
                note = f"not read: {before[0].folder}: {'; '.join(told)}"
            samples, bytes_max = len(materials.data.labels), materials.recipe.store.bytes_max
            store = open_store(root, identity, self.codec.fields, samples, bytes_max)
            away = disagreement(materials, self._network, self.ask, self.codec, store)
            if away is None or away.relative <= _OTHERWISE:
                break
            note = f"not read: {store.folder}: a teacher with the very same weights that answers otherwise"
            store.close()
        return store, note

    def _refused(self, error: StorageError) -> None:
        self._refusal = error
        self._emit(Warned(f"no more answers are stored: {error}"))

    def _measured(self, reading_s: float, asking_s: float) -> None:
        self._emit(SourceMeasured(reading_s, asking_s, "stored" if reading_s <= asking_s else "inline"))
