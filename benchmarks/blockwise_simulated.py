"""Several workers, simulated: a profile of every block, measured here, and the plan that the scheduler makes of it.

A step takes as long as its slowest worker; transfers count, none of them hidden behind work. Twice: with one
replacement a block, as in the paper, and with all that a run would train of ``LIBRARY``.

Of one replacement a block, what a step costs whatever the size of its batch (calls, the optimiser) is told apart by a
second profile, on half of each batch: who shares a batch with others pays that in full. Any number may share one: a run
needs as many micro-batches (``accumulate``). Of the library nobody shares batches, which is how a run begins; its
profile is taken by the very code of a run.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from benchmarks.blockwise_ours import BLOCKS, Course, Ours
from benchmarks.blockwise_task import CPU, Task
from benchmarks.harness import Claim, claim_of
from stillhouse.blocks.schedule import BlockTimes, Plan, plan
from stillhouse.blocks.train import Line
from stillhouse.data.stream import Stream
from stillhouse.models.placement import autocast
from stillhouse.models.trials import label_of, typical_s
from stillhouse.recipe.architectures import BLOCKWISE, ModelSection
from stillhouse.recipe.blockwise import BlockwiseSection, BudgetSection, Replacement
from stillhouse.recipe.engines import StepEngineSection
from stillhouse.recipe.recipe import DataSection, DigitsSource, Recipe, StudentSection, TeacherSection
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.blockwise.profile import measured, times_of
from stillhouse.runner.blockwise.replacements import offered

AIMS = {4: 0.97, 8: 0.93}
LIBRARY: tuple[Replacement, ...] = ("separable", "low_rank", "grouped")
MESSAGE_BYTES, MESSAGES, ROUNDS = 16 * 2**20, 8, 5


def simulated(task: Task, engine: StepEngineSection, link_bytes_s: float, rounds: int) -> list[Claim]:
    """Efficiency with four and eight workers, each round from profiles of its own."""
    one = [profiled(task, engine) for _ in range(rounds)]
    every = [of_library(task, engine) for _ in range(rounds)]
    words = "one replacement a block (who shares a batch has micro-batches; the one worker alone none)"
    single = _claims(task, engine, link_bytes_s, one, "", words)
    kinds = f"{sum(len(each.train_s) for each in every[0])} replacements ({', '.join(LIBRARY)})"
    return single + _claims(task, engine, link_bytes_s, every, "_library", kinds, parts_max=1)


def _claims(
    task: Task,
    engine: StepEngineSection,
    link_bytes_s: float,
    profiles: Sequence[Sequence[BlockTimes]],
    suffix: str,
    words: str,
    parts_max: int | None = None,
) -> list[Claim]:
    size, claims = len(task.batches[0]), []
    for workers, aim in AIMS.items():
        plans = [plan(each, workers, link_bytes_s, task.load_s, parts_max, _input_bytes(task)) for each in profiles]
        definition = (
            f"SIMULATED from a measured profile of steps of {size}, {task.words}, {words}, "
            f"{label_of(engine)}, links of {link_bytes_s / 1e9:.2f} GB/s (gloo over loopback, measured): samples "
            f"a second of {workers} workers, the slowest one sets the pace, / {workers} times one worker; aim {aim}; "
            f"{told(plans[0])}"
        )
        rates = [size / each.step_s for each in plans]
        ideal = [rate / each.efficiency for rate, each in zip(rates, plans, strict=True)]
        claims.append(claim_of(f"simulated_{workers}_{task.name}{suffix}", definition, "samples/s", rates, ideal))
    return claims


def _input_bytes(task: Task) -> int:
    return task.batches[0].inputs.nbytes


def of_library(task: Task, engine: StepEngineSection) -> list[BlockTimes]:
    """Every block with all that may replace it, up to the last that anything may replace."""
    train = TrainSection(epochs=1, warmup_epochs=0, optimizer=BLOCKS, engine=engine)
    section = BlockwiseSection(blocks="layer", library=LIBRARY, budget=BudgetSection(params=0.25), train=train)
    recipe = Recipe(
        data=DataSection(source=DigitsSource(kind="digits")),  # which nobody looks at
        teacher=TeacherSection(model=ModelSection(arch="vgg"), train=train),
        student=StudentSection(model=ModelSection(arch=BLOCKWISE)),
        blockwise=section,
    )
    others = offered(task.blocks, recipe)
    names = [block.name for block in task.blocks]
    modules = {(name, key): each for name, own in zip(names, others, strict=True) for key, each in own.items()}
    last = max(names.index(block) for block, _ in modules)
    pace = cast(Stream, Course(task))
    found = measured(task.blocks[: last + 1], modules, section, pace, lambda: task.batches[0].inputs, lambda: None)
    return times_of(found, names[: last + 1], list(modules))


def told(found: Plan) -> str:
    """A plan in words."""
    shares = (f"{each.first}-{each.last} ({len(each.own)}) on {each.workers}" for each in found.shares)
    return f"{'relay' if found.relayed else 'own prefixes'}, blocks {', '.join(shares)}"


def profiled(task: Task, engine: StepEngineSection) -> list[BlockTimes]:
    """Every block on the task's batches, and in turns on halves of them."""
    whole, half = _Passes(task, engine), _Passes(task.halved(), engine)
    for step in range(len(task.batches)):
        whole.take(step)
        half.take(step)
    full, small = whole.typical(), half.typical()
    # Blocks alike, for the difference of two readings is lost in the noise of one block.
    fixed_s = max(2 * sum(map(sum, small)) - sum(map(sum, full)), 0.0) / sum(len(each) > 1 for each in full)
    last = max(at for at, (_, *train_s) in enumerate(full) if train_s)
    return [
        BlockTimes(teacher_s, tuple(train_s), weights_bytes, output_bytes, min(fixed_s, sum(train_s)))
        for (teacher_s, *train_s), (weights_bytes, output_bytes) in zip(full, _bytes(task, engine), strict=True)
    ][: last + 1]


class _Passes:
    """Seconds of each block's teacher, and of its replacement's step where it has one."""

    def __init__(self, task: Task, engine: StepEngineSection) -> None:
        self._task, self._precision = task, engine.precision
        self._stations = Ours(task, engine).stations()
        self._readings: list[list[tuple[float, ...]]] = [[] for _ in self._stations]

    def take(self, step: int) -> None:
        """One step of every block."""
        batch = self._task.batches[step]
        inputs = batch.inputs
        for station, readings in zip(self._stations, self._readings, strict=True):
            begun = time.perf_counter()
            with torch.no_grad(), autocast(self._precision, CPU):
                outputs = station.block.forward(inputs)
            teacher_s = time.perf_counter() - begun
            begun = time.perf_counter()
            Line([station], self._precision).take(step, batch, inputs)
            both_s = time.perf_counter() - begun
            readings.append((teacher_s, max(both_s - teacher_s, 0.0)) if station.loops else (teacher_s,))
            inputs = outputs

    def typical(self) -> list[tuple[float, ...]]:
        """Of all steps; others on the machine only add time."""
        return [tuple(typical_s(each) for each in zip(*readings, strict=True)) for readings in self._readings]


def _bytes(task: Task, engine: StepEngineSection) -> list[tuple[int, int]]:
    """Of each block's gradients, and of what it puts out."""
    inputs, found = task.batches[0].inputs, []
    for station in Ours(task, engine).stations():
        with torch.no_grad(), autocast(engine.precision, CPU):
            inputs = station.block.forward(inputs)
        trained = [each for loop in station.loops.values() for each in loop.state.network.parameters()]
        found.append((sum(each.nbytes for each in trained), inputs.nbytes))
    return found


def loopback_bytes_s() -> float:
    """What gloo carries between two processes of this machine, one way."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_carry, (folder,), nprocs=2)
        return float((Path(folder) / "bytes_s").read_text())


def _carry(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    message, readings = torch.zeros(MESSAGE_BYTES, dtype=torch.uint8), []
    for _ in range(ROUNDS):
        dist.barrier()
        begun = time.perf_counter()
        for _ in range(MESSAGES):
            dist.send(message, 1) if rank == 0 else dist.recv(message, 0)
        readings.append(time.perf_counter() - begun)
    if rank == 1:
        (Path(folder) / "bytes_s").write_text(str(MESSAGES * MESSAGE_BYTES / statistics.median(readings)))
    dist.destroy_process_group()
