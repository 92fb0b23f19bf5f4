"""Knowledge from a label store, and from somebody else what the store does not hold yet.

What is asked is written as a by-product, in the background. Reading 128 rows costs about as much as one small tensor
operation; still, a slow disk may lose against a fast teacher, so a source may compare both and leave the slower one.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.batch import Batch
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.encode import Codec
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.knowledge.source import EncodedRows, RowSource
from stillhouse.knowledge.writer import Writer
from stillhouse.store.label_store import LabelStore


class StoredSource:
    """Reads what is there, asks ``behind`` for the rest.

    Args:
        store: opened for the question, in the form of ``codec``.
        behind: who answers what is missing.
        writer: takes what was asked.
        reads: decides whether reading pays; None: always read.
    """

    def __init__(
        self, ask: Ask, codec: Codec, store: LabelStore, behind: RowSource, writer: Writer, reads: Reading | None = None
    ) -> None:
        self.ask = ask
        self._codec, self._store, self._behind, self._writer = codec, store, behind, writer
        self._reads = reads
        self._store_s = 0.0
        self._counts = {"hits": 0, "misses": 0}

    def teach(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Knowledge]]:
        """Read a whole batch at once; ask for the views that are missing, together with those of the next batches.

        A view that is asked for a batch before it, or answered and about to be written, is not asked again.
        """
        looked_up: deque[_LookedUp] = deque()
        under_way = _UnderWay()

        def missing() -> Iterator[Batch]:
            for batch in batches:
                looked_up.append(self._looked_up(batch))
                yield under_way.add(looked_up[-1])

        for part, fresh in self._behind.rows(missing(), lambda: [each.batch for each in looked_up]):
            looked = looked_up.popleft()
            under_way.settle(looked, fresh)
            if len(part) and fresh is not None and (self._reads is None or self._reads.pays):
                self._writer.put(part.sample_ids, part.views, fresh)
            yield looked.batch, self._decoded(looked, len(part) if fresh is not None else 0)

    def _looked_up(self, batch: Batch) -> _LookedUp:
        begun = time.perf_counter()
        if self._reads is not None and not self._reads.pays:
            rows, found = np.empty((len(batch), self._codec.row.itemsize), np.uint8), np.zeros(len(batch), np.bool_)
        else:
            held = self._writer.held(batch.sample_ids, batch.views)  # first: what it wrote meanwhile the store has
            rows, found = self._store.read(batch.sample_ids, batch.views)
            for place, row in held:
                rows[place], found[place] = row, True
        read_s = time.perf_counter() - begun
        self._store_s += read_s
        return _LookedUp(batch, rows, found, ~found, read_s)

    def _decoded(self, looked: _LookedUp, asked: int) -> Knowledge:
        """What is known about a batch now, counted."""
        batch, known = looked.batch, looked.known
        unanswered = len(batch) - int(known.sum())
        self._counts["misses"] += asked
        self._counts["hits"] += len(batch) - asked - unanswered
        if unanswered:
            self._counts["unanswered"] = self._counts.get("unanswered", 0) + unanswered
        begun = time.perf_counter()
        knowledge = self._codec.decode(looked.rows, batch.sample_ids, batch.views, known if unanswered else None)
        decode_s = time.perf_counter() - begun
        self._store_s += decode_s
        if self._reads is not None and not looked.missed.any():
            self._reads.note(looked.read_s + decode_s, len(batch), self._behind.view_s)
        return knowledge

    def waits(self) -> dict[str, float]:
        """Seconds of reading (``store``) and of whoever stands behind."""
        waited, self._store_s = self._store_s, 0.0
        return {"store": waited, **self._behind.waits()}

    def counts(self) -> dict[str, int]:
        """Views read (``hits``), asked (``misses``), without anybody to ask (``unanswered``), and what others count."""
        counts, self._counts = self._counts, {"hits": 0, "misses": 0}
        return counts | self._writer.news() | self._behind.counts()


@dataclass
class _LookedUp:
    """A batch in line: its rows, which of them are known by now, and which were not in the store."""

    batch: Batch
    rows: EncodedRows
    known: NDArray[np.bool_]
    missed: NDArray[np.bool_]
    read_s: float


class _UnderWay:
    """Views that are asked and not answered, and the batches behind that wait for the same answers.

    Answers go straight into the rows of those batches, which are there anyway.
    """

    def __init__(self) -> None:
        self._wanted: dict[tuple[int, int], list[tuple[_LookedUp, int]]] = {}
        self._asked: deque[list[int]] = deque()

    def add(self, looked: _LookedUp) -> Batch:
        """A batch more; what is to be asked about it."""
        asked = []
        for place in np.flatnonzero(looked.missed).tolist():
            if (others := self._wanted.get(key := _key(looked.batch, place))) is None:
                self._wanted[key] = []
                asked.append(place)
            else:
                others.append((looked, place))
        self._asked.append(asked)
        return looked.batch if len(asked) == len(looked.batch) else looked.batch.select(np.array(asked, np.int64))

    def settle(self, looked: _LookedUp, fresh: EncodedRows | None) -> None:
        """The oldest batch's answers, in the order asked; None: nobody answered."""
        for number, place in enumerate(self._asked.popleft()):
            for other, there in [(looked, place), *self._wanted.pop(_key(looked.batch, place))]:
                if fresh is not None:
                    other.rows[there], other.known[there] = fresh[number], True


def _key(batch: Batch, place: int) -> tuple[int, int]:
    return int(batch.sample_ids[place]), int(batch.views[place])


class Reading:
    """Whether reading a store pays against asking: told once both are known, from what happens anyway.

    Args:
        tell: called once with (seconds of reading, seconds of asking) a view.

    Attributes:
        pays: the answer; true until the contrary is known.
    """

    _LOOKS = 9

    def __init__(self, tell: Callable[[float, float], None]) -> None:
        self.pays = True
        self._tell = tell
        self._view_s: list[float] = []

    def note(self, read_s: float, views: int, asked_view_s: float | None) -> None:
        """A batch was all read in so many seconds; a view takes ``asked_view_s`` to ask, None: nobody was asked yet."""
        if len(self._view_s) >= self._LOOKS or views == 0:
            return
        self._view_s.append(read_s / views)
        if len(self._view_s) < self._LOOKS:
            return
        reading = statistics.median(self._view_s)
        if asked_view_s is None:
            self._view_s.clear()  # ask again later
            return
        self.pays = reading <= asked_view_s
        self._tell(reading, asked_view_s)
