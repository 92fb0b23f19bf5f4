"""Samples in the form that views are made of, and the usual way to have them: all decoded once into one array.

In memory up to a bound, beyond it in a memory-mapped file that has no name any more: the kernel frees its
space when the process ends, however it ends. The space is reserved first, so that a full disk is an error at
the start and not a crash in the middle.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from stillhouse.data.decode import Form, decode, form_of, is_colour
from stillhouse.data.shared import memory_of
from stillhouse.data.source import Source, spread
from stillhouse.foundation.errors import DataError, StorageError

_T = TypeVar("_T")

_CHUNK = 256
_LOOK_AT = 16
_ZEROS = bytes(2**20)


class Samples(Protocol):
    """Decoded samples by id, wherever they come from.

    Attributes:
        form: of every row.
        kept: whether rows are there already; otherwise each is decoded when it is taken.
        skipped: ids that could not be read (only where ``skip``), ascending; their rows are zeros.
        reasons: the story of each skipped one.
        greyed: number of colour images that became grey because ``form`` is, as far as known.
        digest: hex; equal digests mean equal rows, as far as it says; "" for a table that was not decoded.
    """

    form: Form
    kept: bool
    skipped: NDArray[np.int64]
    reasons: tuple[str, ...]
    greyed: int
    digest: str

    def take(self, sample_ids: NDArray[np.int64]) -> NDArray[Any]:
        """[B, *form.shape], uint8 for images, float32 otherwise; a copy.

        Raises:
            DataError: a sample can't be read; names it.
        """

    def at(self, sample_ids: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Rows and the [B] places of the samples among them: ``rows[places]`` without the copy. Not to be changed."""


class Table:
    """Samples that were all decoded. Attributes as in :class:`Samples`, and:

    Attributes:
        rows: [N, *form.shape].
        digest: of all rows: SHA-256 over those of 256 rows each.
        descriptor: of an open file that is the rows' memory, closed with the table; None where they are not shared.
    """

    kept = True

    def __init__(
        self,
        rows: NDArray[Any],
        form: Form,
        skipped: NDArray[np.int64],
        reasons: tuple[str, ...],
        greyed: int = 0,
        digest: str = "",
        descriptor: int | None = None,
    ) -> None:
        self.rows = rows
        self.descriptor = descriptor
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)
        self.form = form
        self.skipped = skipped
        self.reasons = reasons
        self.greyed = greyed
        self.digest = digest

    def take(self, sample_ids: NDArray[np.int64]) -> NDArray[Any]:
        """Copies of rows."""
        return self.at(sample_ids)[0][sample_ids]

    def at(self, sample_ids: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The whole table."""
        return self.rows.view(np.ndarray), sample_ids  # a memory map's own class makes every slice slow


def build_table(
    source: Source,
    *,
    form: Form,
    resize: bool,
    skip: bool,
    memory_max_bytes: int,
    scratch: Path,
    threads: int,
    tell: Callable[[int, int], None],
    shared: bool = False,
) -> Table:
    """Decode a whole source.

    Args:
        form: of every row.
        resize: bring images of another size to the form's; otherwise they are errors.
        skip: leave unreadable samples out instead of stopping.
        scratch: folder for the memory-mapped file.
        tell: called with (samples done, samples in all).
        shared: let other processes of this user map the rows, where the system can (``data.shared``).

    Raises:
        DataError: a sample can't be read; names it.
        StorageError: no space for the memory-mapped file.
    """
    count = len(source.labels)
    dtype = np.dtype(np.uint8 if form.image else np.float32)
    rows, descriptor = _allocate((count, *form.shape), dtype, memory_max_bytes, scratch, shared)
    failures: dict[int, str] = {}

    grey = form.image and form.shape[0] == 1

    def fill(start: int) -> tuple[int, int, bytes]:
        """Decode a chunk: where it ends, colour images made grey, digest of its rows while they are in the cache."""
        stop, greyed = min(start + _CHUNK, count), 0
        for sample_id in range(start, stop):
            try:
                sample = source.read(sample_id)
                rows[sample_id] = decode(sample, form, resize)
                greyed += grey and is_colour(sample)
            except DataError:
                raise
            except Exception as error:
                story = unreadable(source, sample_id, error)
                if not skip:
                    raise DataError(f"{story} (or leave such samples out with data.bad_samples: skip)") from error
                failures[sample_id] = story
        return stop, greyed, hashlib.sha256(rows[start:stop].reshape(-1).data).digest()

    greyed, content = 0, hashlib.sha256()
    for done, more, digest in _in_order(fill, range(0, count, _CHUNK), threads):
        greyed += more
        content.update(digest)
        tell(done, count)
    ids = sorted(failures)
    reasons = tuple(failures[each] for each in ids)
    return Table(rows, form, np.array(ids, np.int64), reasons, greyed, content.hexdigest(), descriptor)


def unreadable(source: Source, sample_id: int, error: Exception) -> str:
    """Which sample can't be read and why."""
    reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
    return f"{source.describe(sample_id)}: {reason}"


def first_form(source: Source, size_px: tuple[int, int] | None, channels: int | None) -> Form:
    """The form set by the first readable one of a few samples spread over the source; RGB if any of them is colour.

    Raises:
        DataError: none of them can be read.
    """
    form, stories = None, []
    for sample_id in spread(len(source.labels), _LOOK_AT).tolist():
        try:
            found = form_of(source.read(sample_id), size_px, channels)
        except Exception as error:
            stories.append(f"{source.describe(sample_id)}: {error}")
            continue
        form = form or found
        if form.image and found.image and found.shape[0] > form.shape[0]:
            form = Form((found.shape[0], *form.shape[1:]), image=True)
        if not form.image or channels is not None or form.shape[0] == 3:
            break
    if form is None:
        raise DataError(f"{source.name}: no sample could be read; {(*stories, 'it holds none')[0]}")
    return form


def _in_order(fill: Callable[[int], _T], starts: range, threads: int) -> Iterator[_T]:
    if threads < 2:
        yield from map(fill, starts)
        return
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(fill, start) for start in starts]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _allocate(
    shape: tuple[int, ...], dtype: np.dtype[Any], memory_max_bytes: int, scratch: Path, shared: bool
) -> tuple[NDArray[Any], int | None]:
    """Rows of zeros; where they are shared, an open descriptor of the file behind them."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size <= memory_max_bytes:
        return memory_of(shape, dtype) if shared else (np.zeros(shape, dtype), None)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=scratch) as file:
            _reserve(file, size)
            return np.memmap(file, dtype, "r+", shape=shape), os.dup(file.fileno()) if shared else None
    except OSError as error:
        raise StorageError(
            f"no room for {size / 1e9:.1f} GB of decoded samples in {scratch}: {error.strerror}. "
            "Free some space, choose another --out, or lower data.size_px"
        ) from error


def _reserve(file: IO[bytes], size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, len(_ZEROS)):  # macOS
        file.write(_ZEROS[: size - start])
    file.flush()
