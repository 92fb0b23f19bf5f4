"""One of two emulated teachers is killed with SIGKILL: how long does the student stand still?"""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.bench_online import Job, train
from benchmarks.fleets import ASK, EMULATED, Team, codec_of
from benchmarks.harness import Claim, claim_of
from stillhouse.foundation.errors import Interrupted
from stillhouse.knowledge.source import UnstoredSource
from stillhouse.recipe.engines import StepEngineSection
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.runtime.driver import Driver

WORDS = (
    "emulated: one of two workers is killed, {which}: steps a second in the longest gap that is allowed (the longest "
    "undisturbed one, {before:.0f} ms, + a batch, {step:.0f} ms, + 100 ms) / in the longest gap after the death, "
    "{after:.0f} ms; a worker takes {service:.0f} ms for a batch"
)
AMPLE, SCARCE = "either of which is twice as fast as the student", "which together give 0.8 of what the student takes"
WARM, SPAN = 20, 40
"""Steps before anything is looked at; steps undisturbed, and as many after the death."""


def gap_claims(folder: Path, job: Job, short: bool) -> list[Claim]:
    """``death_gap`` for a student with answers in stock, and for one that waits for each."""
    rows = folder / "none.npy"
    row_bytes = codec_of(job).row.itemsize
    np.save(rows, np.zeros((len(np.load(job.labels)), row_bytes), np.uint8))
    job = replace(job, student_engine=StepEngineSection(precision="bf16", channels_last=True))
    step_s = statistics.median(b - a for a, b in itertools.pairwise(_times(job, Team(EMULATED, {
        "rows": str(rows), "views_s": [1e-5]}, 2, row_bytes), die=False)))  # fmt: skip
    claims = []
    for name, which, service_s in (("death_gap", AMPLE, step_s / 2), ("death_gap_scarce", SCARCE, 2 * step_s / 0.8)):
        team = Team(EMULATED, {"rows": str(rows), "views_s": [service_s / job.batch_size]}, 2, row_bytes)
        found = [_gaps(_times(job, team, die=True)) for _ in range(1 if short else 5)]
        allowed = [before + step + 0.1 for before, step, _ in found]
        before, step, after = (1e3 * statistics.median(each) for each in zip(*found, strict=True))
        words = WORDS.format(which=which, before=before, step=step, after=after, service=1e3 * service_s)
        claims.append(
            claim_of(name, words, "steps/s", [1 / each for *_, each in found], [1 / each for each in allowed])
        )
    return claims


def _gaps(times: list[float]) -> tuple[float, float, float]:
    """The longest gap undisturbed, the usual one, and the longest after the death, in seconds."""
    gaps = [b - a for a, b in itertools.pairwise(times)]
    return (
        max(gaps[WARM : WARM + SPAN - 1]),
        statistics.median(gaps[WARM : WARM + SPAN - 1]),
        max(gaps[WARM + SPAN - 1 :]),
    )


def _times(job: Job, team: Team, die: bool) -> list[float]:
    """When each step ended; a worker dies in the middle."""
    driver, codec = team.driver(), codec_of(job)
    times: list[float] = []

    def pace() -> int | None:
        if len(times) == WARM + SPAN and die:
            os.kill(_pid_of_one(driver), signal.SIGKILL)
        times.append(time.perf_counter())
        return signal.SIGINT if len(times) == WARM + 2 * SPAN else None

    source = UnstoredSource(ASK, codec, team.rows(driver, "student"))
    try:
        train(pace, job, source, ObjectiveSection(), job.stream(1))
    except Interrupted:
        return times
    finally:
        driver.close()
    raise AssertionError("the loop has no end of its own")


def _pid_of_one(driver: Driver) -> int:
    return next(int(each.facts["pid"]) for each in driver.notices() if each.kind == "joined")
