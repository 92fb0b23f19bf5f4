"""Knowledge from a label store, and from somebody else what the store does not hold yet.

What is asked is written as a by-product, in the background. Reading 128 rows costs about as much as one small tensor
operation; still, a slow disk may lose against a fast teacher, so a source may compare both and leave the slower one.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

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
        """Read a whole batch at once; ask for the views that are missing, together with those of the next batches."""
        looked_up: deque[tuple[Batch, EncodedRows, NDArray[np.bool_], float]] = deque()

        def missing() -> Iterator[Batch]:
            for batch in batches:
                begun = time.perf_counter()
                rows, found = self._read(batch)
                looked_up.append((batch, rows, found, time.perf_counter() - begun))
                self._store_s += looked_up[-1][-1]
                yield batch.select(~found) if found.any() else batch

        for part, fresh in self._behind.rows(missing(), lambda: [each[0] for each in looked_up]):
            batch, rows, found, read_s = looked_up.popleft()
            if len(part) and fresh is not None:
                rows[~found] = fresh
                if self._reads is None or self._reads.pays:
                    self._writer.put(part.sample_ids, part.views, fresh)
            known = found if len(part) and fresh is None else None
            missed = "misses" if known is None else "unanswered"
            self._counts[missed] = self._counts.get(missed, 0) + len(part)
            self._counts["hits"] += len(batch) - len(part)
            begun = time.perf_counter()
            knowledge = self._codec.decode(rows, batch.sample_ids, batch.views, known)
            decode_s = time.perf_counter() - begun
            self._store_s += decode_s
            if self._reads is not None and not len(part):
                self._reads.note(read_s + decode_s, len(batch), self._behind.view_s)
            yield batch, knowledge

    def _read(self, batch: Batch) -> tuple[EncodedRows, NDArray[np.bool_]]:
        if self._reads is not None and not self._reads.pays:
            return np.empty((len(batch), self._codec.row.itemsize), np.uint8), np.zeros(len(batch), np.bool_)
        return self._store.read(batch.sample_ids, batch.views)

    def waits(self) -> dict[str, float]:
        """Seconds of reading (``store``) and of whoever stands behind."""
        waited, self._store_s = self._store_s, 0.0
        return {"store": waited, **self._behind.waits()}

    def counts(self) -> dict[str, int]:
        """Views read (``hits``), asked (``misses``), without anybody to ask (``unanswered``), and what others count."""
        counts, self._counts = self._counts, {"hits": 0, "misses": 0}
        return counts | self._writer.news() | self._behind.counts()


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
