"""All samples of a source, decoded once into one array.

In memory up to a bound, beyond it in a memory-mapped file that has no name any more: the kernel frees its
space when the process ends, however it ends. The space is reserved first, so that a full disk is an error at
the start and not a crash in the middle.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.decode import Form, decode, form_of
from stillhouse.data.source import Source
from stillhouse.foundation.errors import DataError, StorageError

_CHUNK = 256


class Table:
    """Decoded samples by id.

    Attributes:
        rows: [N, *form.shape], uint8 for images, float32 otherwise.
        skipped: ids that could not be read (only where ``skip``), ascending; their rows are zeros.
        reasons: the story of each skipped one.
    """

    def __init__(self, rows: NDArray[Any], form: Form, skipped: NDArray[np.int64], reasons: tuple[str, ...]) -> None:
        self.rows = rows
        self.form = form
        self.skipped = skipped
        self.reasons = reasons


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
) -> Table:
    """Decode a whole source.

    Args:
        form: of every row.
        resize: bring images of another size to the form's; otherwise they are errors.
        skip: leave unreadable samples out instead of stopping.
        scratch: folder for the memory-mapped file.
        tell: called with (samples done, samples in all).

    Raises:
        DataError: a sample can't be read; names it.
        StorageError: no space for the memory-mapped file.
    """
    count = len(source.labels)
    rows = _allocate((count, *form.shape), np.dtype(np.uint8 if form.image else np.float32), memory_max_bytes, scratch)
    failures: dict[int, str] = {}

    def fill(start: int) -> int:
        for sample_id in range(start, min(start + _CHUNK, count)):
            try:
                rows[sample_id] = decode(source.read(sample_id), form, resize)
            except DataError:
                raise
            except Exception as error:
                story = f"{source.describe(sample_id)}: {error or type(error).__name__}"
                if not skip:
                    raise DataError(f"{story} (or leave such samples out with data.bad_samples: skip)") from error
                failures[sample_id] = story
        return min(start + _CHUNK, count)

    starts = range(0, count, _CHUNK)
    for done in _in_order(fill, starts, threads):
        tell(done, count)
    ids = sorted(failures)
    return Table(rows, form, np.array(ids, np.int64), tuple(failures[each] for each in ids))


def first_form(source: Source, size_px: tuple[int, int] | None, channels: int | None) -> Form:
    """The form set by the first readable sample.

    Raises:
        DataError: none of the first few can be read.
    """
    story = "it holds no samples"
    for sample_id in range(min(len(source.labels), 16)):
        try:
            return form_of(source.read(sample_id), size_px, channels)
        except Exception as error:
            story = f"{source.describe(sample_id)}: {error}"
    raise DataError(f"{source.name}: no sample could be read; {story}")


def _in_order(fill: Callable[[int], int], starts: range, threads: int) -> Iterator[int]:
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


def _allocate(shape: tuple[int, ...], dtype: np.dtype[Any], memory_max_bytes: int, scratch: Path) -> NDArray[Any]:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size <= memory_max_bytes:
        return np.zeros(shape, dtype)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=scratch) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise StorageError(
            f"no room for {size / 1e9:.1f} GB of decoded samples in {scratch}: {error.strerror}. "
            "Free some space, choose another --out, or lower data.size_px"
        ) from error
