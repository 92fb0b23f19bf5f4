"""Conversion block by block: one pass of the teacher for all blocks, against one block after another.

A VGG and a ResNet (``blockwise_task``) on CIFAR-10 (JPEG), every block as many steps on all sides.

    one_device_vs_paper       against the paper's algorithm (``blockwise_paper``)
    one_device_like_for_like  against one block after another with our replacements, loop and engine

    energy_saving             1 - E / E1 against both, with assembly and fine-tuning; measured, or by a power model
    simulated_4, simulated_8  more workers, from a profile (``blockwise_simulated``)
    two_workers               in real runs, against one; and against two runs at once, which is all that the machine
                              gives: sibling threads of one core are not two (``blockwise_workers``)
    planner_error             of those two, what was planned against what came of it

The first two without and, ``_end_to_end``, with assembly and fine-tuning. Nobody scores or chooses here.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from benchmarks.blockwise_ours import Ours, engine_for
from benchmarks.blockwise_paper import Paper
from benchmarks.blockwise_simulated import loopback_bytes_s, simulated
from benchmarks.blockwise_task import Task, tasks
from benchmarks.blockwise_workers import claims as several
from benchmarks.harness import Claim, claim_of, commit, machine, quick, tell
from stillhouse.foundation.allocator import keep_freed_memory
from stillhouse.foundation.energy import Energy, EnergyMeter, Estimate, PowerModel, energy_saving
from stillhouse.foundation.errors import RecipeError
from stillhouse.models.placement import fixed_numerics
from stillhouse.models.trials import label_of
from stillhouse.recipe.engines import StepEngineSection

POWER = PowerModel(idle_w=60.0, busy_w=140.0, cores=os.cpu_count() or 1)
"""Assumed where no counter can be read; all sides keep the same cores busy, so the saving hardly depends on it."""


@dataclass(frozen=True)
class Took:
    """What one conversion took."""

    blocks_s: float
    whole_s: float
    energy: Energy


def took(blocks: Callable[[], None], whole: Callable[[], None]) -> Took:
    """Time both parts, and count what they use together."""
    meter = EnergyMeter(Estimate(POWER))
    begun = time.perf_counter()
    blocks()
    between = time.perf_counter()
    whole()
    return Took(between - begun, time.perf_counter() - between, meter.read())


WAYS = ("ours", "alone", "paper")
RIVALS = {"one_device_vs_paper": "paper", "one_device_like_for_like": "alone"}
WORDS = {
    "paper": "each 3x3 convolution alone, in fp32, the teacher run up to it at every step (arXiv 2012.03096)",
    "alone": "each block alone, the teacher run up to it at every step, same replacements, loop and engine",
}
SAVINGS = {"energy_saving": "alone", "energy_saving_vs_paper": "paper"}
PARTS: dict[str, tuple[str, Callable[[Took], float]]] = {
    "": ("nothing else", lambda each: each.blocks_s),
    "_end_to_end": ("assembly and {} steps of fine-tuning", lambda each: each.blocks_s + each.whole_s),
}


def converted(task: Task, engine: StepEngineSection, way: str) -> Took:
    """One conversion; replacements are made before the clock starts."""
    if way == "paper":
        paper = Paper(task)
        return took(paper.blocks, paper.whole)
    ours = Ours(task, engine)
    return took(ours.together if way == "ours" else ours.alone, ours.whole)


def one_device(task: Task, engine: StepEngineSection, rounds: int) -> list[Claim]:
    """All ways take turns; the order changes every round."""
    readings: dict[str, list[Took]] = {way: [] for way in WAYS}
    for way in WAYS:
        converted(task.shortened(1), engine, way)
    for number in range(rounds):
        for way in WAYS[:: -1 if number % 2 else 1]:
            readings[way].append(converted(task, engine, way))
    claims = []
    for claim, rival in RIVALS.items():
        for suffix, (words, seconds) in PARTS.items():
            definition = (
                f"samples a second that pass {task.words}, {len(task.batches)} steps of {len(task.batches[0])} for "
                f"each block, {words.format(task.tuning)}: all blocks on one pass of the teacher, {label_of(engine)} / "
                f"{WORDS[rival]}"
            )
            rates = ([task.samples / seconds(each) for each in readings[way]] for way in ("ours", rival))
            claims.append(claim_of(f"{claim}_{task.name}{suffix}", definition, "samples/s", *rates))
    for name, rival in SAVINGS.items():
        claims.extend(saving(f"{name}_{task.name}", task, rival, readings["ours"], readings[rival]))
    return claims


def saving(claim: str, task: Task, rival: str, ours: Sequence[Took], theirs: Sequence[Took]) -> Iterator[Claim]:
    """The energy of a conversion end to end; no claim where it is unavailable."""
    pairs = [
        (mine.energy.joules, other.energy.joules)
        for mine, other in zip(ours, theirs, strict=True)
        if mine.energy.joules is not None and other.energy.joules is not None
    ]
    if not pairs:
        return
    saved = [energy_saving(before_j, after_j) for after_j, before_j in pairs]
    after_j, before_j = (round(statistics.median(each), 1) for each in zip(*pairs, strict=True))
    definition = (
        f"1 - E / E1, joules of the same conversion of {task.words} end to end, E all blocks on one pass of the "
        f"teacher, E1 {WORDS[rival]}; {ours[0].energy.source}"
    )
    spread = (round(min(saved), 3), round(max(saved), 3))
    middle = round(statistics.median(saved), 3)
    yield Claim(claim, middle, after_j, before_j, "J", spread, len(saved), definition, machine(), commit())


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    batch_size: int
    steps: int
    rounds: int
    profile_steps: int
    profiles: int
    worker_rounds: int


QUICK, FULL = Size(32, 3, 3, 4, 1, 1), Size(128, 6, 4, 10, 3, 4)


def main(size: Size) -> list[Claim]:
    """Measure."""
    keep_freed_memory()
    claims: list[Claim] = []
    try:
        found = tasks(size.batch_size, max(size.steps, size.profile_steps))
    except RecipeError as error:
        print(f"skipped: {error}; STILLHOUSE_DATA names the folder of CIFAR-10 (JPEG)")
        return []
    link_bytes_s = loopback_bytes_s()
    with fixed_numerics(torch.get_num_threads()):
        for task in found:
            engine = engine_for(task)
            claims += one_device(task.shortened(size.steps), engine, size.rounds)
            claims += simulated(task.shortened(size.profile_steps), engine, link_bytes_s, size.profiles)
    return claims + several(size.worker_rounds, short=size.worker_rounds == 1)


if __name__ == "__main__":
    short = quick()
    if measured := main(QUICK if short else FULL):
        tell("blockwise", measured, write=not short)
