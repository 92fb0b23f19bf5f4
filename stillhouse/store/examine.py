"""What is in a label store: counted, checked row by row, or handed on as a Parquet file."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.foundation.errors import StorageError
from stillhouse.store.folder import views_in
from stillhouse.store.label_store import LabelStore, open_folder
from stillhouse.store.manifest import Manifest, dtype_of

_LOOKS = 20_000
_DAMAGED_TOLD = 5

Tell = Callable[[int, int], None]
"""Called with (rows done, rows in all)."""


@dataclass(frozen=True)
class ViewCounts:
    """The rows of one view; ``first_damaged`` are sample ids."""

    view: int
    valid: int
    absent: int
    damaged: int
    first_damaged: tuple[int, ...]


def filled(folder: Path) -> float:
    """Share of valid rows in the views of a store, 0 to 1: estimated from some, exact up to 20,000 rows."""
    views = views_in(folder)
    with open_folder(folder) as store:
        rows = len(views) * store.samples
        if rows == 0:
            return 0.0
        looked = np.unique(np.linspace(0, rows - 1, min(rows, _LOOKS)).astype(np.int64))
        found = 0
        for place, view in enumerate(views):
            ids = looked[looked // store.samples == place] % store.samples
            found += sum(int(each.found.sum()) for each in store.scan(ids, view))
    return found / len(looked)


def verify(folder: Path, tell: Tell) -> list[ViewCounts]:
    """Check every row of a store.

    Raises:
        UserError, CorruptError, StorageError: it can't be read as a store.
    """
    counts, views = [], views_in(folder)
    with open_folder(folder) as store:
        for place, view in enumerate(views):
            valid, damaged = 0, 0
            first: list[int] = []
            for rows in store.scan(range(store.samples), view):
                valid += int(rows.found.sum())
                damaged += int(rows.damaged.sum())
                first += rows.sample_ids[rows.damaged][: _DAMAGED_TOLD - len(first)].tolist()
                tell(place * store.samples + int(rows.sample_ids[-1]) + 1, len(views) * store.samples)
            counts.append(ViewCounts(view, valid, store.samples - valid - damaged, damaged, tuple(first)))
    return counts


def export(folder: Path, file: Path, tell: Tell) -> int:
    """Write all valid rows of a store to a Parquet file, whole or not at all; returns their number.

    Columns: ``sample_id``, ``view`` (-1: the sample as it is), and one for each field: numbers, or lists of fixed size,
    row-major where the field has more axes; float16 as float32. The manifest's identity and fields go into the
    file's metadata. Needs some MB of memory, however large the store is.

    Raises:
        UserError, CorruptError, StorageError: the store can't be read, or the file can't be written.
    """
    import pyarrow.parquet as pq

    part = file.with_name(f".{file.name}.{secrets.token_hex(8)}.part")
    with open_folder(folder) as store:
        schema = _schema(store.manifest)
        try:
            with open(part, "wb") as out:
                with pq.ParquetWriter(out, schema, compression="zstd") as writer:
                    count = _write_rows(store, views_in(folder), schema, writer, tell)
                out.flush()
                os.fsync(out.fileno())
            os.replace(part, file)
        except OSError as error:
            raise StorageError(f"could not write {file} ({error.strerror or error}): choose another place") from error
        finally:
            part.unlink(missing_ok=True)
    return count


def _write_rows(store: LabelStore, views: list[int], schema: Any, writer: Any, tell: Tell) -> int:
    import pyarrow as pa

    row, count = dtype_of(store.manifest.fields), 0
    for place, view in enumerate(views):
        for rows in store.scan(range(store.samples), view):
            ids, payload = rows.sample_ids[rows.found], rows.payload[rows.found].view(row)[:, 0]
            columns = [pa.array(ids), pa.array(np.full(len(ids), view, np.int32))]
            columns += [_column(payload[name]) for name in row.names or ()]
            if len(ids):
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            count += len(ids)
            tell(place * store.samples + int(rows.sample_ids[-1]) + 1, len(views) * store.samples)
    return count


def _column(values: NDArray[Any]) -> Any:
    import pyarrow as pa

    plain = values.astype(np.float32) if values.dtype == np.float16 else values
    numbers = pa.array(np.ascontiguousarray(plain).reshape(-1))
    if values.ndim == 1:
        return numbers
    width = prod(values.shape[1:])
    if width == 0:  # Arrow knows no lists of the fixed size 0
        return pa.ListArray.from_arrays(pa.array(np.zeros(len(values) + 1, np.int32)), numbers)
    return pa.FixedSizeListArray.from_arrays(numbers, width)


def _schema(manifest: Manifest) -> Any:
    import pyarrow as pa

    columns = [("sample_id", pa.int64()), ("view", pa.int32())]
    empty = np.empty(0, dtype_of(manifest.fields))
    columns += [(name, _column(empty[name]).type) for name in empty.dtype.names or ()]
    told = {"identity": manifest.identity.parts, "fields": [list(field) for field in manifest.fields]}
    return pa.schema(columns, metadata={"stillhouse": json.dumps(told)})
