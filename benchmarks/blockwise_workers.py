"""Several workers train the blocks of a real run: against one, and against what the machine gives to two processes.

Each reading is a run of its own (``python -m benchmarks.blockwise_workers WORKERS``), up to the end of its phase
``blocks``, in which every worker has one thread: CIFAR-10 (JPEG), a VGG of six convolutions, one replacement for each.
Its first quarter does not count: caches and the kernels' choices settle.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Claim, claim_of, commit, machine
from stillhouse.foundation.block_events import BlocksPlanned, PlanMeasured
from stillhouse.foundation.errors import Interrupted
from stillhouse.foundation.events import Event, PhaseFinished, Progress
from stillhouse.recipe.load import validate
from stillhouse.runner.run import run

_BATCH = 128
WORDS = "a run's replacements (VGG of 6 convolutions, width 48, separable; CIFAR-10, batches of 128, fp32)"


@dataclass(frozen=True)
class Reading:
    """One run: steps a second; seconds a step as planned and as measured by the slowest worker, 0 for one alone."""

    steps_s: float
    planned_s: float
    measured_s: float


def recipe(folder: Path, workers: int, short: bool) -> dict[str, Any]:
    """A run whose teacher is next to untrained, which costs no time and changes none."""
    data = os.environ.get("STILLHOUSE_DATA", "../shared/data")
    source = {"kind": "parquet", "train": f"{data}/cifar10-jpeg-test.parquet"}
    return {
        "name": "workers",
        "data": {"source": source, "validation_fraction": 0.3, "test_fraction": 0.3},
        "teacher": {
            "model": {"arch": "vgg", "options": {"width": 48, "blocks": [2, 2, 2]}},
            "train": {"epochs": 1, "batch_size": 512, "engine": {"precision": "bf16", "channels_last": True}},
        },
        "student": {"model": {"arch": "blockwise"}, "train": {"epochs": 1}},
        "blockwise": {
            "blocks": "layer",
            "library": ["separable"],
            "budget": {"macs": 0.6},
            "train": {"epochs": 1 if short else 3, "warmup_epochs": 0, "engine": {"channels_last": True}},
        },
        "store": {"path": str(folder / "labels")},
        "fleet": {"block_workers": workers},
        "control": {"seeds": 0},
        "compute": {"device": "cpu", "threads": 1},
    }


def read(workers: int, short: bool) -> Reading:
    """A run in this process, up to the end of the blocks."""
    told: list[tuple[float, int]] = []
    plans: list[float] = []
    ends: list[tuple[float, float]] = []

    def hear(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "blocks":
            told.append((time.monotonic(), event.step))
        elif isinstance(event, BlocksPlanned):
            plans.append(event.step_s)
        elif isinstance(event, PlanMeasured):
            ends.append((event.planned_s, event.measured_s))
        elif isinstance(event, PhaseFinished) and event.phase == "blocks":
            raise Interrupted("measured", 15)

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Interrupted):
        run(validate(recipe(Path(folder), workers, short)), Path(folder) / "run", [hear])
    late = [each for each in told if each[1] >= told[-1][1] / 4]
    steps_s = (late[-1][1] - late[0][1]) / (late[-1][0] - late[0][0])
    return Reading(steps_s, *(ends[-1] if ends else (0.0, 0.0)))


def readings(workers: int, at_once: int, short: bool) -> list[Reading]:
    """As many such runs at once, each a process of its own."""
    command = [sys.executable, "-m", "benchmarks.blockwise_workers", str(workers), *(["few"] if short else [])]
    begun = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(at_once)]
    lines = [process.communicate()[0].splitlines()[-1] for process in begun]
    return [Reading(**json.loads(line)) for line in lines]


def claims(rounds: int, short: bool) -> list[Claim]:
    """Two workers against one and against the machine; what the planner promised against what came of it."""
    one, two, both = list[float](), list[float](), list[float]()
    wrong: list[Reading] = []
    for number in range(rounds):
        kinds = ((1, 1), (2, 1), (1, 2)) if number % 2 else ((1, 2), (2, 1), (1, 1))
        for workers, at_once in kinds:
            found = readings(workers, at_once, short)
            rate = _BATCH * sum(each.steps_s for each in found)
            (two if workers == 2 else both if at_once == 2 else one).append(rate)
            wrong += found if workers == 2 else []
    ceiling = (
        f"samples a second of {WORDS}: two workers, one thread each / two such runs at once, one worker each, added up"
    )
    return [
        claim_of(
            "two_workers", f"samples a second of {WORDS}: two workers, one thread each / one", "samples/s", two, one
        ),
        claim_of("two_workers_of_the_machine", ceiling, "samples/s", two, both),
        _planner_error(wrong),
    ]


def _planner_error(found: Sequence[Reading]) -> Claim:
    ratios = [each.measured_s / each.planned_s for each in found]
    error = statistics.median(abs(each - 1) for each in ratios)
    words = f"median of |measured / planned - 1| of seconds a step, two workers, {WORDS}; spread: measured / planned"
    measured_ms, planned_ms = (
        round(1e3 * statistics.median(each), 1)
        for each in ([one.measured_s for one in found], [one.planned_s for one in found])
    )
    spread = (round(min(ratios), 3), round(max(ratios), 3))
    return Claim(
        "planner_error", round(error, 3), measured_ms, planned_ms, "ms", spread, len(found), words, machine(), commit()
    )


if __name__ == "__main__":
    print(json.dumps(vars(read(int(sys.argv[1]), "few" in sys.argv))))
