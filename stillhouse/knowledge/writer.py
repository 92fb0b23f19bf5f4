"""Writes rows to a store behind the student's back.

One thread, one queue bounded in bytes: a disk that can't keep up makes the asker wait instead of filling the memory.
What is in the queue when the process is killed is lost, and asked again some day. A disk that refuses ends the
writing, never the run; the failure is told by the asker's thread, at its next call.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stillhouse.foundation.errors import StorageError
from stillhouse.store.label_store import LabelStore

_BYTES_MAX = 64 * 2**20


class _Chunk(NamedTuple):
    sample_ids: NDArray[np.int64]
    views: NDArray[np.int64]
    rows: NDArray[np.uint8]


class Writer:
    """A store's background writer.

    Args:
        refused: called once, by :meth:`put`, :meth:`drain` or :meth:`close`, when the disk refused.
        bytes_max: rows that may wait; one chunk always may.

    Attributes:
        bytes_written: so far.
    """

    def __init__(self, store: LabelStore, refused: Callable[[StorageError], None], bytes_max: int = _BYTES_MAX) -> None:
        self.bytes_written = 0
        self._store, self._refused, self._bytes_max = store, refused, bytes_max
        self._changed = threading.Condition()
        self._waiting: deque[_Chunk] = deque()
        self._held: dict[tuple[int, int], NDArray[np.uint8]] = {}
        self._bytes = 0
        self._closed = False
        self._failure: BaseException | None = None
        self._told = False
        self._news = (0, store.damaged_rows)
        self._thread = threading.Thread(target=self._write, name="label store writer", daemon=True)
        self._thread.start()

    def put(self, sample_ids: NDArray[np.int64], views: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """Hand over rows [B, payload]; they must not be changed afterwards. Waits while too many bytes wait."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes + rows.nbytes <= self._bytes_max or not self._waiting)
            if self._failure is None:
                self._waiting.append(_Chunk(sample_ids, views, rows))
                self._held.update(zip(_keys(sample_ids, views), rows, strict=True))
                self._bytes += rows.nbytes
                self._changed.notify_all()
        self._tell()

    def held(self, sample_ids: NDArray[np.int64], views: NDArray[np.int64]) -> list[tuple[int, NDArray[np.uint8]]]:
        """Which of these keys are handed over and not written yet: (place, row) each."""
        with self._changed:
            if not self._held:
                return []
            keys = enumerate(_keys(sample_ids, views))
            return [(place, self._held[key]) for place, key in keys if key in self._held]

    def news(self) -> dict[str, int]:
        """Bytes written and damaged rows that the store met, since the last call."""
        before, self._news = self._news, (self.bytes_written, self._store.damaged_rows)
        return {"bytes_written": self._news[0] - before[0], "rows_damaged": self._news[1] - before[1]}

    def drain(self) -> None:
        """Wait until everything handed over is written, or refused."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
        self._tell()

    def close(self) -> None:
        """Write the rest and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._tell()

    def _tell(self) -> None:
        if self._failure is None or self._told:
            return
        self._told = True
        if not isinstance(self._failure, StorageError):
            raise self._failure
        self._refused(self._failure)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                chunk = self._waiting[0]  # it leaves the queue when it is written
            try:
                if self._failure is None:
                    self.bytes_written += self._store.write(*chunk)
            except Exception as error:
                self._failure = error
            with self._changed:
                self._waiting.popleft()
                for key in _keys(chunk.sample_ids, chunk.views):
                    self._held.pop(key, None)
                self._bytes -= chunk.rows.nbytes
                self._changed.notify_all()


def _keys(sample_ids: NDArray[np.int64], views: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    return zip(sample_ids.tolist(), views.tolist(), strict=True)
