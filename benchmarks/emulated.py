"""A teacher on hardware of its own, **emulated**: a real worker process that sleeps where a teacher would compute.

It comes in by the door of a real run and replays true stored answers after a service time. Which rows and which time
are in the job: ``rows``, an .npy file [samples, row bytes] of encoded answers about view 0, and ``views_s``, seconds a
view, taken in turn by the workers that are started. Knows no torch, so that it is ready at once.

A program: ``python -m benchmarks.emulated ADDRESS NAME``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stillhouse.runtime.local.serving import Served, serve

SLOTS = 8


def prepare(job: Mapping[str, Any], name: str) -> Served:
    """A worker of a job; the number in its name picks its speed."""
    number = int(name.rpartition("-")[2]) - 1
    view_s = float(job["views_s"][number % len(job["views_s"])])
    rows = np.load(job["rows"], mmap_mode="r")
    # What it looks like to the driver: a teacher that measured its own pace, and reads the data itself.
    return Served({"pace_s": view_s, "device": "emulated", "reads": "mapped"}, SLOTS, answerer(rows, view_s))


def answerer(rows: np.ndarray[Any, np.dtype[np.uint8]], view_s: float) -> Callable[[bytes], memoryview]:
    """Answers a question (``stillhouse.teachers.messages``: three numbers, sample ids, views) when its time is up."""

    def answer(message: bytes) -> memoryview:
        begun = time.perf_counter()
        count = int(np.frombuffer(message, "<u4", 1)[0])
        found = np.ascontiguousarray(rows[np.frombuffer(message, "<i8", count, 12)])
        time.sleep(max(count * view_s - (time.perf_counter() - begun), 0.0))
        return found.reshape(-1).data

    return answer


if __name__ == "__main__":
    address, own_name = sys.argv[1:]
    sys.exit(serve(address, lambda job: prepare(job, own_name), name=own_name))
