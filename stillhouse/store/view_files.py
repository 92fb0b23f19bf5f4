"""The open files of a label store: rows are read through memory maps and written with ``pwrite``.

A map is never written to and never read beyond what ``fstat`` says of the file: a full disk is an error that can be
told, and a file that was cut short is short, where a careless map would kill the process (SIGBUS). A descriptor is
closed when the last one who uses it lets go: no row can reach a file that got the same number meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stillhouse.store.checksum import WORD_BYTES
from stillhouse.store.folder import view_path

_TMPFS = 0x01021994
_OPEN_MAX = 64


class ViewFile:
    """One open file of rows.

    Args:
        row_bytes: width of a row.
        samples: rows that the file may have.
        writable: whether rows will be written, too.

    Attributes:
        handle: the descriptor.

    Raises:
        OSError: it can't be opened.
    """

    def __init__(self, path: Path, row_bytes: int, samples: int, writable: bool) -> None:
        self.handle = -1
        self.writable = writable
        self._row_bytes, self._samples = row_bytes, samples
        self.handle = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        self._mapped: NDArray[np.uint32] = np.empty((0, row_bytes // WORD_BYTES), np.uint32)

    def __del__(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)

    def rows(self) -> NDArray[np.uint32] | None:
        """[n, row_bytes / 4] the rows that the file has now, not copied; None once it was deleted."""
        status = os.fstat(self.handle)
        if status.st_nlink == 0:
            return None
        count = min(status.st_size // self._row_bytes, self._samples)
        if count > len(self._mapped):
            length = count * self._row_bytes
            mapped = mmap.mmap(self.handle, length, access=mmap.ACCESS_READ)
            self._mapped = np.frombuffer(mapped, "<u4").reshape(count, -1)
        return self._mapped if count == len(self._mapped) else self._mapped[:count]

    def empty(self, start: int, stop: int) -> bool:
        """Whether the disk holds nothing of rows start..stop-1: they need not be read."""
        try:
            return os.lseek(self.handle, start * self._row_bytes, os.SEEK_DATA) >= stop * self._row_bytes
        except OSError as error:
            return error.errno == errno.ENXIO

    def write(self, first_row: int, rows: memoryview) -> None:
        """Write consecutive rows.

        Raises:
            OSError: the disk refused; some of them may be there, one in part.
        """
        offset = first_row * self._row_bytes
        written = os.pwrite(self.handle, rows, offset)
        while written < len(rows):
            written += os.pwrite(self.handle, rows[written:], offset + written)


class ViewFiles:
    """The open files of one store, the latest used of them. Not thread-safe."""

    def __init__(self, folder: Path, row_bytes: int, samples: int) -> None:
        self._folder, self._row_bytes, self._samples = folder, row_bytes, samples
        self._open: OrderedDict[int, ViewFile] = OrderedDict()

    def get(self, view: int, writable: bool = False) -> tuple[ViewFile, NDArray[np.uint32]] | None:
        """A view's file and its rows; None where there is no such file.

        Raises:
            OSError: it is there and can't be opened.
        """
        file = self._open.get(view)
        if file is not None and file.writable >= writable and (rows := file.rows()) is not None:
            self._open.move_to_end(view)
            return file, rows
        self._open.pop(view, None)
        try:
            file = ViewFile(view_path(self._folder, view), self._row_bytes, self._samples, writable)
        except FileNotFoundError:
            return None
        rows = file.rows()
        if rows is None:
            return None
        self._open[view] = file
        if len(self._open) > _OPEN_MAX:
            self._open.popitem(last=False)
        return file, rows

    def create(self, view: int) -> None:
        """Make a view's file in its full length, all of it a hole; one that is there is left or made longer.

        In a file system in memory there are no holes: reading one through a map takes a page, and a full one would
        end the process by a signal. So all of it is taken now, where a full one is an error.

        Raises:
            OSError: the disk refused.
        """
        length = self._samples * self._row_bytes
        path = view_path(self._folder, view)
        path.parent.mkdir(exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(handle).st_size < length:
                if in_memory(path):
                    os.posix_fallocate(handle, 0, length)
                os.truncate(handle, length)
        finally:
            os.close(handle)

    def close(self) -> None:
        """Let go of all."""
        self._open.clear()


def in_memory(path: Path) -> bool:
    """Whether a file lies in Linux's tmpfs; False wherever that can't be asked."""
    found = ctypes.create_string_buffer(256)
    statfs = getattr(ctypes.CDLL(None), "statfs", None)
    if sys.platform != "linux" or statfs is None or statfs(os.fsencode(path), found) != 0:
        return False
    return int.from_bytes(found.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) == _TMPFS
