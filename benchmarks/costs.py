"""Where two benchmarks' time goes: what stored knowledge adds to a step, and what a photograph's view is made of.

Medians of single calls on one thread. ``bench_online`` and ``bench_data`` hold the ratios; this says why.

    python -m benchmarks.costs
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.bench_online import cifar_job, stored
from stillhouse.data.views import augmented, draw
from stillhouse.foundation.allocator import keep_freed_memory
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.recipe.recipe import AugmentSection
from stillhouse.students.objective import LABELS_ONLY, Objective


def micros(work: Callable[[int], object], calls: int = 200) -> float:
    """Median of ``work(0), work(1), ...``."""
    taken = []
    for number in range(calls):
        begun = time.perf_counter()
        work(number)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1e6


def knowledge() -> dict[str, float]:
    """What a step on 128 stored answers about ten classes costs beside one on labels alone."""
    with tempfile.TemporaryDirectory() as name:
        job = cifar_job(Path(name), 6400)
        source, stream = stored(job, "costs"), job.stream(1)
        batches = [batch for batch, _ in source.teach(stream.batches(0, 40))]
        source._writer.drain()  # what was asked is to be read now

        def reads(number: int) -> object:
            return next(source.teach([batches[number % 40]]))

        known = [next(source.teach([batch]))[1] for batch in batches]
        logits = torch.randn(128, 10, requires_grad=True)

        def loss(section: ObjectiveSection, informed: bool) -> Callable[[int], object]:
            objective = Objective(section)

            def step(number: int) -> None:
                batch = batches[number % 40]
                told = known[number % 40] if informed else Knowledge(batch.sample_ids, batch.views)
                objective(logits, {}, told, batch.targets)[0].backward()

            return step

        return {
            "read, check and decode 128 rows": micros(reads),
            "loss on labels, forward and backward": micros(loss(LABELS_ONLY, False)),
            "loss with KD, forward and backward": micros(loss(ObjectiveSection(), True)),
        }


def photographs() -> dict[str, float]:
    """128 views of 224 px out of samples of 256 px."""
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 256, (1500, 3, 256, 256), dtype=np.uint8)
    places = generator.integers(0, 1500, (50, 128))
    cut, target = np.ascontiguousarray(rows[:, :, :224, :224]), np.empty((128, 3, 224, 224), np.uint8)
    views = np.zeros(128, np.int64)

    def copied(number: int) -> None:
        for row, place in zip(target, places[number], strict=True):
            np.copyto(row, cut[place])

    def made(augment: AugmentSection) -> Callable[[int], object]:
        def make(number: int) -> object:
            return augmented(rows, places[number], draw(places[number], views, 0, augment), augment, (224, 224))

        return make

    return {
        "128 photographs copied, nothing else": micros(copied, 50),
        "128 crops": micros(made(AugmentSection()), 50),
        "128 crops, half of them mirrored": micros(made(AugmentSection(flip=True)), 50),
    }


if __name__ == "__main__":
    keep_freed_memory()
    torch.set_num_threads(1)
    for what, spent in (knowledge() | photographs()).items():
        print(f"{what:<40} {spent:8.0f} us")
