"""The label store: rows of a teacher's answers that outlive the run, one file a view, row i at i * row_bytes.

No index and no header: a row is found by arithmetic, and each carries its own checksum (``checksum.py``), so that a
process may be killed at any byte and any number may write at once; a row is valid or it is not there. Nothing is
synced: a row lost with the power costs one question. Files have holes where nothing was written, so disk space is what
was written, in blocks of the file system. Cost: reading 256 rows takes about 30 microseconds once they are in memory.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from stillhouse.foundation.errors import CorruptError, StorageError, UserError
from stillhouse.foundation.keys import PLAIN
from stillhouse.store.checksum import WORD_BYTES, intact, seal
from stillhouse.store.folder import (
    BLOCK_BYTES,
    counting,
    create,
    disk_bytes,
    held,
    others_bytes,
    views_in,
)
from stillhouse.store.manifest import MANIFEST, Fields, Identity, Manifest, dtype_of, read_manifest, write_manifest
from stillhouse.store.view_files import ViewFile, ViewFiles

_CHUNK_BYTES = 4 * 2**20
_TRIES = 10


class Rows(NamedTuple):
    """What was read of some rows of one view.

    Attributes:
        sample_ids: [n].
        payload: [n, payload], zeros where not found.
        found: [n] whether the row is valid.
        damaged: [n] whether something else than nothing stands there that is not valid.
    """

    sample_ids: NDArray[np.int64]
    payload: NDArray[np.uint8]
    found: NDArray[np.bool_]
    damaged: NDArray[np.bool_]


class LabelStore:
    """An open store; made by :func:`open_store`. Threads and processes may share it.

    Args:
        handle: descriptor of the ``used`` file with its lock, closed with the store; None where there is none.
        bytes_max: disk space that all stores in the folder around it may take; None: no limit.

    Attributes:
        folder: the store's.
        manifest: what the store says of itself.
        row_bytes: width of a row in a file.
        samples: rows of a view.
        damaged_rows: rows read so far that stood there and were not valid.
        refused_rows: rows that were not written because ``bytes_max`` has no room for their view.
    """

    def __init__(self, folder: Path, manifest: Manifest, handle: int | None, bytes_max: int | None) -> None:
        self.folder, self.manifest = folder, manifest
        self.row_bytes, self.samples = manifest.row_bytes, manifest.samples
        self.damaged_rows = 0
        self.refused_rows = 0
        self._payload_bytes = dtype_of(manifest.fields).itemsize
        self._salt = manifest.identity.salt
        self._bytes_max = bytes_max
        self._files = ViewFiles(folder, self.row_bytes, self.samples)
        self._no_room: set[int] = set()
        self._handle = handle
        self._touched = False
        self._lock = threading.Lock()

    def read(
        self, sample_ids: NDArray[np.int64], views: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read B rows.

        Args:
            sample_ids: [B], in any order, repeated or not.
            views: [B], mixed or not; one alone is fastest.

        Returns:
            Payload [B, payload], zeros where not found; and [B], whether a valid row was found.

        Raises:
            StorageError: a file is there and can't be read.
        """
        parts = _by_view(views)
        if len(parts) == 1:
            sealed = self._sealed(sample_ids, parts[0][0])
        else:
            sealed = np.empty((len(sample_ids), self.row_bytes // WORD_BYTES), np.uint32)
            for view, where in parts:
                sealed[where] = self._sealed(sample_ids[where], view)
        found = intact(sealed, sample_ids, views, self._salt)
        if not found.all():
            damaged = int(np.count_nonzero(sealed[~found, -2:].any(axis=1)))
            sealed[~found] = 0
            with self._lock:
                self.damaged_rows += damaged
        return self._payload(sealed), found

    def write(self, sample_ids: NDArray[np.int64], views: NDArray[np.int64], rows: NDArray[np.uint8]) -> int:
        """Write B rows; of a key that comes twice the last one stays. Views without room are left out and counted.

        Args:
            sample_ids: [B], each in 0 .. samples - 1.
            views: [B], -1 for the sample as it is.
            rows: [B, payload].

        Returns:
            Bytes written.

        Raises:
            StorageError: the disk refused; what was written before stays valid.
        """
        if rows.shape != (len(sample_ids), self._payload_bytes) or rows.dtype != np.uint8:
            raise ValueError(
                f"rows are {rows.dtype} {rows.shape}, not uint8 ({len(sample_ids)}, {self._payload_bytes})"
            )
        if len(rows) and not (sample_ids.min() >= 0 and sample_ids.max() < self.samples and views.min() >= PLAIN):
            raise ValueError(f"a sample id is not in 0..{self.samples - 1}, or a view is below {PLAIN}")
        written = 0
        for view, where in _by_view(views):
            part_ids = sample_ids[where]
            order = np.argsort(part_ids, kind="stable")
            part_ids, part = part_ids[order], rows[where][order]
            try:
                with self._lock:
                    file = self._writable(view)
                    self.refused_rows += 0 if file else len(part)
                if file is None:
                    continue
                sealed = seal(part, part_ids, np.full(len(part), view, np.int64), self._salt)
                _write_runs(file, part_ids, sealed)
            except OSError as error:
                raise StorageError(
                    f"could not write labels to {self.folder} ({error.strerror or error}). Those written before stay "
                    f"valid; free some space ('stillhouse store prune {self.folder.parent}') or choose another folder "
                    "with store.path"
                ) from error
            written += sealed.nbytes
        return written

    def missing(self, sample_ids: NDArray[np.int64], view: int) -> NDArray[np.int64]:
        """The ids without a valid row, in the order given; needs little memory besides."""
        gone = []
        for rows in self.scan(sample_ids, view):
            gone.append(rows.sample_ids[~rows.found])
            with self._lock:
                self.damaged_rows += int(np.count_nonzero(rows.damaged))
        return np.concatenate(gone) if gone else sample_ids[:0]

    def scan(self, sample_ids: NDArray[np.int64] | range, view: int) -> Iterator[Rows]:
        """Rows of one view, a few MB at a time; where the disk holds nothing, nothing is read.

        Raises:
            StorageError: the file is there and can't be read.
        """
        size = max(1, _CHUNK_BYTES // self.row_bytes)
        for start in range(0, len(sample_ids), size):
            ids = np.asarray(sample_ids[start : start + size], np.int64)
            opened = self._open(view)
            if opened is None or opened[0].empty(int(ids.min()), int(ids.max()) + 1):
                nothing = np.zeros(len(ids), np.bool_)
                yield Rows(ids, np.zeros((len(ids), self._payload_bytes), np.uint8), nothing, nothing)
                continue
            sealed = _taken(opened[1], ids)
            found = intact(sealed, ids, np.full(len(ids), view, np.int64), self._salt)
            damaged = sealed[:, -2:].any(axis=1) & ~found
            sealed[~found] = 0
            yield Rows(ids, self._payload(sealed), found, damaged)

    def planned_bytes(self, views: int) -> int:
        """Disk space that so many whole views take."""
        return views * -(-self.samples * self.row_bytes // BLOCK_BYTES) * BLOCK_BYTES

    @property
    def views_that_fit(self) -> int:
        """How many views this store may have: those that are there, and what ``bytes_max`` leaves room for now."""
        if self._bytes_max is None:
            return sys.maxsize
        room = self._bytes_max - others_bytes(self.folder)
        return max(len(views_in(self.folder)), room // max(self.planned_bytes(1), 1))

    def bytes_on_disk(self) -> int:
        """Disk space that this store takes now."""
        return disk_bytes(self.folder)

    def close(self) -> None:
        """Let go of the files; threads that are still reading or writing finish well."""
        with self._lock:
            self._files.close()
            if self._touched:
                self.touch()
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None

    def touch(self) -> None:
        """Note that the store is used now; from here on it is noted at the end, too."""
        self._touched = True
        if self._handle is not None:
            with contextlib.suppress(OSError):  # somebody else's store, or read-only: no reason to stop
                os.utime(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, view: int) -> tuple[ViewFile, NDArray[np.uint32]] | None:
        try:
            with self._lock:
                return self._files.get(view)
        except OSError as error:
            raise StorageError(
                f"{error.filename or self.folder} can't be read ({error.strerror or error}): mend its permissions, or "
                "choose another folder with store.path"
            ) from error

    def _sealed(self, sample_ids: NDArray[np.int64], view: int) -> NDArray[np.uint32]:
        opened = self._open(view)
        if opened is None:
            return np.zeros((len(sample_ids), self.row_bytes // WORD_BYTES), np.uint32)
        return _taken(opened[1], sample_ids)

    def _payload(self, sealed: NDArray[np.uint32]) -> NDArray[np.uint8]:
        return sealed.view(np.uint8)[:, : self._payload_bytes].copy()

    def _writable(self, view: int) -> ViewFile | None:
        """A view's file, made if there is room for it; None if not."""
        if view in self._no_room:
            return None
        opened = self._files.get(view, writable=True)
        if opened is not None and len(opened[1]) == self.samples:
            return opened[0]
        with counting(self.folder.parent):
            if opened is None and len(views_in(self.folder)) >= self.views_that_fit:
                self._no_room.add(view)
                return None
            self._files.create(view)
        opened = self._files.get(view, writable=True)
        return None if opened is None else opened[0]


def open_store(
    root: Path, identity: Identity, fields: Fields, samples: int, bytes_max: int | None = None
) -> LabelStore:
    """The store of an identity in a folder of stores, made if it is not there.

    A damaged manifest is written anew: the folder's name and every row's checksum say whose they are.

    Args:
        fields: the parts of a row's payload.
        samples: rows of a view.
        bytes_max: disk space that all stores in ``root`` may take; None: no limit.

    Raises:
        UserError: what is there has other rows, or is of a newer version; says what differs.
        StorageError: the disk refused.
    """
    wanted = Manifest.new(identity, fields, samples)
    folder = root / identity.digest[:16]
    for _ in range(_TRIES):
        if not (folder / MANIFEST).exists():
            create(folder, wanted)
        with contextlib.suppress(FileNotFoundError):  # somebody removed it between the two lines
            handle = held(folder)
            break
    else:
        raise StorageError(
            f"{folder} can't be made, or vanishes again and again: choose another folder with store.path"
        )
    with contextlib.suppress(UserError):  # told by the next line, which lets go of the lock
        try:
            read_manifest(folder)
        except CorruptError:
            write_manifest(folder, wanted)
    store = _opened(folder, handle, bytes_max)
    differences = wanted.differences(store.manifest)
    if differences:
        store.close()
        raise UserError(
            f"{folder} holds rows of another kind ({'; '.join(differences)}): choose another folder with store.path, "
            f"or 'stillhouse store prune {root} {folder.name}'"
        )
    store.touch()
    return store


def open_folder(folder: Path) -> LabelStore:
    """An existing store, whatever it holds, to look at: the time of its last use stays.

    Raises:
        UserError, CorruptError, StorageError: see :func:`read_manifest`.
    """
    read_manifest(folder)
    try:
        return _opened(folder, held(folder), None)
    except FileNotFoundError as error:
        raise UserError(f"{folder} was removed meanwhile") from error


def _opened(folder: Path, handle: int | None, bytes_max: int | None) -> LabelStore:
    try:
        return LabelStore(folder, read_manifest(folder), handle, bytes_max)
    except BaseException:
        if handle is not None:
            os.close(handle)
        raise


def _by_view(views: NDArray[np.int64]) -> list[tuple[int, slice | NDArray[np.intp]]]:
    """Each view with the places where it stands."""
    if len(views) == 0:
        return []
    if (views == views[0]).all():
        return [(int(views[0]), slice(None))]
    order = np.argsort(views, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(views[order])) + 1)
    return [(int(views[part[0]]), part) for part in parts]


def _taken(rows: NDArray[np.uint32], sample_ids: NDArray[np.int64]) -> NDArray[np.uint32]:
    """A copy of some rows of a view; zeros, which are never valid, beyond its end."""
    if len(rows) == 0:
        return np.zeros((len(sample_ids), rows.shape[1]), np.uint32)
    taken: NDArray[np.uint32] = rows.take(sample_ids, axis=0, mode="clip")
    unsigned = sample_ids.view(np.uint64)
    if unsigned.max() >= len(rows):
        taken[unsigned >= len(rows)] = 0
    return taken


def _write_runs(file: ViewFile, sample_ids: NDArray[np.int64], sealed: NDArray[np.uint8]) -> None:
    """Write rows whose ids ascend, neighbours at once."""
    width = sealed.shape[1]
    flat = sealed.data.cast("B")
    starts = [0, *(np.flatnonzero(np.diff(sample_ids) != 1) + 1).tolist(), len(sealed)]
    firsts = sample_ids[starts[:-1]].tolist()
    for first, start, stop in zip(firsts, starts[:-1], starts[1:], strict=True):
        file.write(first, flat[start * width : stop * width])
