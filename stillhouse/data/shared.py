"""Decoded samples that other processes of this machine and user may map, instead of decoding them again.

The memory is a file without a name; who shares it tells where the kernel shows it (``/proc/PID/fd/N``), and who can
open that maps it read-only. A killed process leaves nothing behind. Linux only: elsewhere nothing is shared.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def memory_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int | None]:
    """Zeros [*shape] in memory, and its open descriptor; None where the system has no such files."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not hasattr(os, "memfd_create") or size == 0:
        return np.zeros(shape, dtype), None
    descriptor = os.memfd_create("stillhouse-samples")
    os.ftruncate(descriptor, size)
    return np.frombuffer(mmap.mmap(descriptor, size), dtype).reshape(shape), descriptor


def told(rows: NDArray[Any], descriptor: int | None) -> dict[str, Any] | None:
    """Plain JSON by which another process finds the rows; None: it can't."""
    if descriptor is None or not Path(f"/proc/self/fd/{descriptor}").exists():
        return None
    return {"path": f"/proc/{os.getpid()}/fd/{descriptor}", "shape": list(rows.shape), "dtype": rows.dtype.str}


def mapped(told: Mapping[str, Any] | None) -> NDArray[Any] | None:
    """The rows another process tells of, not to be written to; None where they can't be reached from here.

    What is found may be something else, if the telling is from another machine: compare a few bits before use.
    """
    if told is None:
        return None
    dtype, shape = np.dtype(told["dtype"]), tuple(told["shape"])
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    try:
        with Path(told["path"]).open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return None
            return np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), dtype).reshape(shape)
    except (OSError, ValueError):
        return None
