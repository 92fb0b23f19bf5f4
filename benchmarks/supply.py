"""Several emulated teachers, several students that take all they get: is everybody busy?"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.bench_online import Job
from benchmarks.fleets import EMULATED, Team
from benchmarks.harness import Claim, claim_of
from stillhouse.runtime.dispatch.status import Status
from stillhouse.runtime.driver import Driver

BUSY = (
    "emulated: 5 workers of 100 ms for 128 views, 3 students on one driver that take all they get: the least busy "
    "worker, % of the time (answers times their service time) / 100 %; the mean {mean:.1f} %"
)
MIXED = (
    "emulated: views a second of 4 workers of 400, 200, 100 and 50 ms for 128 views, one student that takes all it "
    "gets / sum of their own"
)
ROW_BYTES = 44


def supply_claims(folder: Path, job: Job, short: bool) -> list[Claim]:
    """``all_busy`` and ``mixed_speeds``."""
    rows = folder / "any.npy"
    np.save(rows, np.zeros((len(np.load(job.labels)), ROW_BYTES), np.uint8))
    rounds, span_s = (1, 4.0) if short else (3, 12.0)
    busy, mean, mixed, own = [], [], [], []
    for _ in range(rounds):
        paces = [0.1 / 128] * 5
        shares = [pace * rate for pace, rate in zip(paces, supplied(job, rows, paces, 3, span_s), strict=True)]
        busy.append(100 * min(shares))
        mean.append(100 * statistics.mean(shares))
        paces = [each / 128 for each in (0.4, 0.2, 0.1, 0.05)]
        mixed.append(sum(supplied(job, rows, paces, 1, span_s)))
        own.append(sum(1 / pace for pace in paces))
    return [
        claim_of("all_busy", BUSY.format(mean=statistics.median(mean)), "%", busy, [100.0] * rounds),
        claim_of("mixed_speeds", MIXED, "views/s", mixed, own),
    ]


def supplied(job: Job, rows: Path, paces: Sequence[float], students: int, span_s: float) -> list[float]:
    """Views a second of each worker, once all have their stride."""
    team = Team(EMULATED, {"rows": str(rows), "views_s": list(paces)}, len(paces), ROW_BYTES)
    driver, over = team.driver(), threading.Event()

    def study(name: str, seed: int) -> None:
        stream = job.stream(1).batches(1000 * seed, 10**9)
        for _ in team.rows(driver, name).rows(stream):
            if over.is_set():
                return

    threads = [threading.Thread(target=study, args=(f"student-{each}", each)) for each in range(students)]
    for thread in threads:
        thread.start()
    try:
        while driver.workers_ready < len(paces):
            time.sleep(0.05)
        time.sleep(2.0)
        before = _looked(driver)
        time.sleep(span_s)
        after = _looked(driver)
    finally:
        over.set()
        for thread in threads:
            thread.join()
        driver.close()
    begun = {each.name: each.units for each in before.workers}
    # In the order of their names, which is that of their speeds.
    return [
        (each.units - begun[each.name]) / (after.at_s - before.at_s)
        for each in sorted(after.workers, key=lambda each: each.name)
    ]


def _looked(driver: Driver) -> Status:
    """The next look at the fleet."""
    last = driver.status
    while driver.status is last:
        time.sleep(0.01)
    assert driver.status is not None
    return driver.status
