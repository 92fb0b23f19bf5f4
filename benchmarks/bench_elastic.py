"""Fleets that are elsewhere, **emulated** unless a claim says real: what a student gains, and what a death costs it.

The student, its driver, the local backend, the worker processes and what goes between them are real; emulated workers
sleep for a teacher's measured time and replay its true answers (:mod:`benchmarks.emulated`). Their processes run on
the student's cores, which real ones elsewhere would not. CIFAR-10 (JPEG), crop + flip, a ResNet student, batch 128; its
engine is bf16 channels-last, which ``auto`` chose where the figures were taken. Loops take turns, each in a process of
its own (:mod:`benchmarks.turns`).
"""

from __future__ import annotations

import math
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.bench_online import Job, alone, cifar_job, plain, train
from benchmarks.fleets import ASK, EMULATED, REAL, HeldPace, Team, codec_of
from benchmarks.gaps import gap_claims
from benchmarks.harness import Claim, claim_of, quick, tell
from benchmarks.sized import Cost, sized
from benchmarks.supply import supply_claims
from benchmarks.turns import Contestant, Pace
from stillhouse.data.batch import Batch
from stillhouse.foundation.allocator import keep_freed_memory
from stillhouse.knowledge.source import Answerer, AskedRows, EncodedRows, UnstoredSource
from stillhouse.models.placement import fixed_numerics
from stillhouse.recipe.engines import StepEngineSection, TeacherEngineSection
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.teachers.engine import Teacher

CPU = torch.device("cpu")
BF16 = {"precision": "bf16", "channels_last": True}
SAMPLES = 6400
THREADS = 1
"""Of a student: its steps leave a core to the driver and to what emulated workers cost here, and not elsewhere."""
AMPLE = 2.0
"""An ample fleet can do so many times what the student takes."""
EDL_RATES = (1828.0, 656.0)
"""Samples a second of EDL's student without a teacher, and with one on its own hardware (arXiv 2207.06667)."""
EDL_COST, HIGH_COST = EDL_RATES[0] / EDL_RATES[1] - 1.0, 2.2
AMPLE_WORDS = (
    "emulated: samples a second, a student with {count} workers that replay true answers after {service:.0f} ms for "
    "128 views, {ample:.1f} times what it takes / the student alone, same engine"
)
ONLINE_WORDS = (
    "emulated: samples a second, a student with {count} workers that replay a teacher's true answers, ample / the same "
    "loop with that teacher computing on the student's cores; teacher/student cost {cost:.2f} measured in the same "
    "rounds (wanted: {wanted:.2f}), so that {limit:.2f} is all there is to win"
)
HYBRID_WORDS = (
    "samples a second, fp32, two cores: a real teacher in a worker with one thread, a student with one thread that "
    "answers itself while it waits / plain online KD with two threads and a DataLoader"
)
FLAT_WORDS = (
    "emulated: resident memory of a student that takes a batch each {step:.0f} ms from workers that could give one "
    "each {service:.1f} ms, answers of 2,000 bytes a view, a window of {window} MB: after {warm:,} batches / {steps:,} "
    "batches later; {growth:+.2f} MB for 1,000 batches"
)


@dataclass(frozen=True)
class Emulation:
    """A teacher, and the emulated fleet of it."""

    job: Job
    team: Team
    cost: Cost


def with_fleet(pace: Pace, job: Job, team: Team) -> None:
    """Our loop with a fleet."""
    held, codec = HeldPace(pace), codec_of(job)
    rows = team.rows(team.driver(held.clock), "student")
    train(held, job, UnstoredSource(ASK, codec, rows), ObjectiveSection(), job.stream(1))


def online(pace: Pace, job: Job) -> None:
    """Our loop with the teacher in it, asked about every batch."""
    codec = codec_of(job)
    asked = AskedRows(Answerer(engine_of(job).answer, int(job.teacher_engine.batch_size)), codec)
    train(pace, job, UnstoredSource(ASK, codec, asked), ObjectiveSection(), job.stream(1))


def hybrid(pace: Pace, job: Job, team: Team) -> None:
    """Our loop with a fleet on the same cores; a waiting student answers itself."""
    held, codec, engine = HeldPace(pace), codec_of(job), engine_of(job)
    group = next(iter(job.stream(1).batches(0, 1)))
    seconds = [_seconds(lambda: engine.answer(group)) for _ in range(2)]

    def answer(batch: Batch) -> EncodedRows:
        return codec.encode(engine.answer(batch))

    driver = team.driver(held.clock, lambda: min(seconds) / len(group))
    rows = team.rows(driver, "student", answer)
    train(held, job, UnstoredSource(ASK, codec, rows), ObjectiveSection(), job.stream(None))


def slow(pace: Pace, job: Job, team: Team, step_s: float) -> None:
    """A student whose step is a sleep."""
    held = HeldPace(pace)
    rows = team.rows(team.driver(held.clock), "student")
    for _ in rows.rows(job.stream(1).batches(0, 10**9)):
        time.sleep(step_s)
        held()


def engine_of(job: Job) -> Teacher:
    """The job's teacher."""
    return Teacher(job.network(job.teacher), ASK, torch.device(job.device), job.teacher_engine)


def emulation(job: Job, folder: Path, cost: Cost) -> Emulation:
    """A teacher asked about all samples once, for true answers."""
    job, rows = replace(job, teacher=cost.model), folder / f"rows-{cost.share:.2f}.npy"
    codec, engine, stream = codec_of(job), engine_of(job), job.stream(1)
    ids = np.arange(len(np.load(job.labels)))
    parts = np.array_split(ids, len(ids) // 128)
    answers = [codec.encode(engine.answer(stream.make(part, np.zeros(len(part), np.int64)))) for part in parts]
    np.save(rows, np.concatenate(answers))
    told = {"rows": str(rows), "views_s": [cost.view_s]}
    return Emulation(job, Team(EMULATED, told, math.ceil(AMPLE * cost.share), codec.row.itemsize), cost)


def race(loops: dict[str, Contestant], steps: dict[str, int], rounds: int) -> dict[str, list[float]]:
    """Samples a second of each, round by round."""
    rates: dict[str, list[float]] = {each: [] for each in loops}
    try:
        for number in range(rounds):
            for each in list(loops)[:: 1 if number % 2 else -1]:
                rates[each].append(128 * steps[each] / loops[each].stretch_s())
    finally:
        for contestant in loops.values():
            contestant.end()
    return rates


def ample_claims(folder: Path, job: Job, short: bool) -> list[Claim]:
    """A fleet that has always answered before it is asked for, against no teacher and one on the same cores."""
    job = replace(job, student_engine=StepEngineSection(**BF16), teacher_engine=TeacherEngineSection(**BF16))
    costs = {"edl": EDL_COST} if short else {"edl": EDL_COST, "high": HIGH_COST}
    found = sized(job, list(costs.values()), 5 if short else 15)
    fleets = {name: emulation(job, folder, cost) for name, cost in zip(costs, found, strict=True)}
    alone_steps, online_steps = (25, 8) if short else (50, 20)
    steps = {"alone": alone_steps}
    loops = {"alone": Contestant(alone, alone_steps, 5, THREADS, {"job": job})}
    for name, each in fleets.items():
        steps |= {name: alone_steps, f"{name} online": online_steps}
        loops[name] = Contestant(with_fleet, alone_steps, 40, THREADS, {"job": each.job, "team": each.team})
        loops[f"{name} online"] = Contestant(online, online_steps, 5, THREADS, {"job": each.job})
    rates = race(loops, steps, 3 if short else 7)
    edl = fleets["edl"]
    words = AMPLE_WORDS.format(count=edl.team.count, service=128e3 * edl.cost.view_s, ample=AMPLE)
    claims = [claim_of("ample_vs_alone", words, "samples/s", rates["edl"], rates["alone"])]
    for name, wanted in costs.items():
        pairs = zip(rates["alone"], rates[f"{name} online"], strict=True)
        cost = statistics.median(mine / theirs for mine, theirs in pairs) - 1.0
        words = ONLINE_WORDS.format(count=fleets[name].team.count, cost=cost, wanted=wanted, limit=1.0 + cost)
        claims.append(claim_of(f"{name}_vs_online", words, "samples/s", rates[name], rates[f"{name} online"]))
    return claims


def hybrid_claims(folder: Path, job: Job, short: bool) -> list[Claim]:
    """A fleet of one real worker on the student's own cores."""
    (folder / "job.pickle").write_bytes(pickle.dumps(job))
    team = Team(REAL, {"job": str(folder / "job.pickle")}, 1, codec_of(job).row.itemsize)
    steps = dict.fromkeys(("hybrid", "plain"), 6 if short else 12)
    loops = {
        "hybrid": Contestant(hybrid, steps["hybrid"], 30 if short else 60, 1, {"job": job, "team": team}),
        "plain": Contestant(plain, steps["plain"], 5, 2, {"job": job}),
    }
    rates = race(loops, steps, 2 if short else 7)
    return [claim_of("hybrid_same_cores", HYBRID_WORDS, "samples/s", rates["hybrid"], rates["plain"])]


def flat_claims(folder: Path, job: Job, short: bool) -> list[Claim]:
    """Memory of a student that is slower than its teachers."""
    rows, window, step_s, view_s = folder / "wide.npy", 32, 0.002, 2e-6
    np.save(rows, np.random.default_rng(0).integers(0, 256, (len(np.load(job.labels)), 2000), dtype=np.uint8))
    team = Team(EMULATED, {"rows": str(rows), "views_s": [view_s]}, 2, 2000, window_mb=window)
    stretch, warm, stretches = (200, 400, 5) if short else (1000, 2000, 10)
    student = Contestant(slow, stretch, warm, 1, {"job": job, "team": team, "step_s": step_s})
    try:
        resident = [student.resident_bytes()]
        for _ in range(stretches):
            student.stretch_s()
            resident.append(student.resident_bytes())
    finally:
        student.end()
    growth = np.polyfit(np.arange(len(resident)) * stretch / 1000, np.array(resident) / 1e6, 1)[0]
    words = FLAT_WORDS.format(
        step=1e3 * step_s, service=128e3 * view_s / team.count, window=window, warm=warm, steps=stretch * stretches,
        growth=growth,
    )  # fmt: skip
    return [claim_of("memory_flat", words, "MB", [resident[0] / 1e6], [resident[-1] / 1e6])]


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def noted(claim: Claim) -> Claim:
    """The claim with a note of how busy the machine was: rates suffer from others' work, and ratios a little."""
    return replace(claim, definition=f"{claim.definition}; load average, ours included, {os.getloadavg()[0]:.1f}")


def main(short: bool) -> None:
    """Measure and tell."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name, fixed_numerics(THREADS):
        folder = Path(name)
        job = cifar_job(folder, 2560 if short else SAMPLES)
        claims = [
            noted(claim)
            for part in (ample_claims, supply_claims, gap_claims, hybrid_claims, flat_claims)
            for claim in part(folder, job, short)
        ]
    tell("elastic", claims, write=not short)


if __name__ == "__main__":
    main(quick())
