"""Real processes, really killed: nothing false is found, and a further pass fills the rest."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from stores import ROW, opened, rows_of

from stillhouse.store.label_store import LabelStore

SAMPLES, VIEWS = 3000, 4


def write_for_ever(root: Path, seed: int) -> None:
    """What a writer does until it is killed: random keys of all, in batches of any size."""
    generator = np.random.default_rng(seed)
    with opened(root, SAMPLES) as store:
        while True:
            ids = generator.integers(0, SAMPLES, generator.integers(1, 200))
            ids = np.sort(ids) if generator.random() < 0.5 else ids
            views = generator.integers(0, VIEWS, len(ids))
            store.write(ids, views, rows_of(ids, views))


def started(root: Path, seed: int) -> int:
    process_id = os.fork()
    if process_id == 0:
        try:
            write_for_ever(root, seed)
        finally:
            os._exit(99)
    return process_id


def found_right(store: LabelStore) -> int:
    """How many rows are found; each of them is the one that was written."""
    ids, count = np.arange(SAMPLES), 0
    for view in range(VIEWS):
        views = np.full(SAMPLES, view)
        rows, found = store.read(ids, views)
        assert (rows[found] == rows_of(ids, views)[found]).all()
        count += int(found.sum())
    return count


@pytest.mark.parametrize("rounds", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_writers_that_are_killed(tmp_path: Path, rounds: int) -> None:
    """Four processes write overlapping keys and die at any moment, the first ones while they make the store."""
    pause, number, before = random.Random(rounds), 0, 0
    while number < rounds or before == 0:
        number += 1
        writers = [started(tmp_path / "labels", 4 * number + each) for each in range(4)]
        for writer in writers:
            time.sleep(pause.uniform(0.002, 0.05))
            os.kill(writer, signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) for writer in writers]
        assert codes == [-signal.SIGKILL] * 4
        with opened(tmp_path / "labels", SAMPLES) as store:
            before = found_right(store)
    with opened(tmp_path / "labels", SAMPLES) as store:
        written = 0
        for view in range(VIEWS):
            ids = store.missing(np.arange(SAMPLES), view)
            views = np.full(len(ids), view)
            written += store.write(ids, views, rows_of(ids, views))
        assert written == (SAMPLES * VIEWS - before) * ROW
        assert found_right(store) == SAMPLES * VIEWS
