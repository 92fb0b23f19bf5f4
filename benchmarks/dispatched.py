"""Answers on their way to a student, dispatcher and all: what a step of a real run pays for a batch of rows.

The student's end is the real source of rows, asker and driver; the one worker, of whichever backend, answers at once.
CPU time is that of this process, or of all that it started as well: a Ray cluster's own programs, too.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bench_transport import IN_FLIGHT, SHAPE, answers
from stillhouse.data.batch import Batch
from stillhouse.runtime.backend import Backend
from stillhouse.runtime.dispatch.settings import Settings
from stillhouse.runtime.driver import Driver
from stillhouse.runtime.local.serving import Served
from stillhouse.runtime.scaling.policy import Policy
from stillhouse.teachers.fleet import Fleet, FleetRows

ROW_BYTES = SHAPE[1] * np.dtype(np.float16).itemsize


def prepare(_: Mapping[str, Any]) -> Served:
    """A worker that answers at once."""
    ready = answers()
    return Served({}, IN_FLIGHT, lambda keys: ready.data)


class Dispatched:
    """A student with a fleet of one.

    Args:
        backend: where the worker lives.
        close: called when the backend is closed.
    """

    def __init__(self, backend: Backend, close: Callable[[], None] = lambda: None) -> None:
        self._close = close
        self._driver = Driver(backend, Settings(), Policy(1, 1), lambda facts, proof: None)
        self._driver.start()
        fleet = Fleet(
            asker=lambda: self._driver.asker("student"),
            answer=_nobody,
            helps=lambda: False,
            teachers=lambda: True,
            tell=lambda: None,
            group=SHAPE[0],
            row_bytes=ROW_BYTES,
            line_bytes=2**20,
        )
        self._rows = FleetRows(fleet).rows(itertools.repeat(_batch()))
        self._take()

    def rate(self, count: int, everything: bool) -> float:
        """Answers a second of CPU time; ``everything``: of this process and all below it."""
        spent = _all_s if everything else time.process_time
        begun = spent()
        for _ in range(count):
            self._take()
        return count / (spent() - begun)

    def close(self) -> None:
        """End the worker."""
        self._rows.close()  # type: ignore[attr-defined]
        self._driver.close()
        self._close()

    def _take(self) -> None:
        _, rows = next(self._rows)
        assert rows is not None and rows.shape == (SHAPE[0], ROW_BYTES)


def on_ray() -> Dispatched:
    """The same with the worker on a cluster of this machine alone."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # read once, when Ray is loaded
    os.environ["RAY_ADDRESS"] = "local"
    from stillhouse.runtime.ray_backend import RayBackend, connect

    disconnect = connect()
    return Dispatched(RayBackend({}, prepare, {"num_cpus": 1}, print), disconnect)


def _batch() -> Batch:
    ids = np.arange(SHAPE[0])
    return Batch(ids, np.zeros_like(ids), torch.zeros(SHAPE[0], 1, 8, 8, dtype=torch.uint8), torch.zeros(SHAPE[0]))


def _nobody(batch: Batch) -> Any:
    raise AssertionError("the student helps itself to nothing here")


def _all_s() -> float:
    """CPU seconds of this process and of all that it started and that lives, threads that ended left out."""
    parents = {int(each.name): _parent(each) for each in Path("/proc").iterdir() if each.name.isdigit()}
    mine, found = {os.getpid()}, 0
    while found != len(mine):
        found = len(mine)
        mine |= {pid for pid, parent in parents.items() if parent in mine}
    return time.process_time() + sum(map(_spent_s, mine - {os.getpid()}))


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _spent_s(pid: int) -> float:
    total_ns = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total_ns += int(thread.read_text().split()[0])
        except OSError:
            continue
    return total_ns / 1e9
