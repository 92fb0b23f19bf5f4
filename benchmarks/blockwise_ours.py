"""Our way: one pass of the teacher feeds every block. And, on the same engine, one block after another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import nn

from benchmarks.bench_online import SEED
from benchmarks.blockwise_task import CPU, Task
from stillhouse.blocks.cost import macs_of
from stillhouse.blocks.library.offers import offers
from stillhouse.blocks.norms import recalibrate
from stillhouse.blocks.objective import OUTPUT, BlockObjective
from stillhouse.blocks.partition import Block
from stillhouse.blocks.train import Line, Station
from stillhouse.data.batch import Batch
from stillhouse.data.stream import Stream
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.knowledge.source import NoKnowledge
from stillhouse.models.network import Network
from stillhouse.models.placement import autocast
from stillhouse.models.taps import Taps
from stillhouse.recipe.engines import StepEngineSection
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.recipe.train import SGD, AdamW, TrainSection
from stillhouse.students.fit import FitContext, Loop
from stillhouse.students.objective import Objective, StepObjective
from stillhouse.students.trial import choose_step_engine

REPLACEMENT = "separable"
LONG = 1_000_000
TRIED = StepEngineSection(precision="auto", channels_last="auto", compile=False)
BLOCKS = AdamW(kind="adamw", learning_rate=3e-3)


class Ours:
    """One conversion; :meth:`together` or :meth:`alone`, then :meth:`whole`."""

    def __init__(self, task: Task, engine: StepEngineSection) -> None:
        self._task, self._engine, self._loops = task, engine, dict[str, Loop]()
        for block, module in replacements(task):
            settings = TrainSection(epochs=1, warmup_epochs=0, optimizer=BLOCKS, engine=engine)
            self._loops[block.name] = self._loop(module, BlockObjective(), settings)

    def together(self) -> None:
        """Train every replacement on one pass of the teacher."""
        self._run(self.stations())

    def stations(self) -> list[Station]:
        """All blocks, with their trainings."""
        return [self._station(each) for each in self._task.blocks]

    def alone(self) -> None:
        """Train every replacement by itself, each on passes of its own of the teacher up to its block."""
        for last, block in enumerate(self._task.blocks):
            if block.name in self._loops:
                before = [Station(each, {}) for each in self._task.blocks[:last]]
                self._run([*before, self._station(block)])

    def whole(self) -> None:
        """Put them in, measure norms anew, and fine-tune all of it on the teacher's answers."""
        batches = self._task.batches
        cores = {name: loop.state.network for name, loop in self._loops.items()}
        kept = {each.name: copy.deepcopy(each.core) for each in self._task.blocks if each.name not in cores}
        mixed = {**cores, **kept}
        network = nn.Sequential(*(part for each in self._task.blocks for part in (each.lead, mixed[each.name])))
        with autocast(self._engine.precision, CPU):
            recalibrate(network, [batches[0].inputs])
        settings = TrainSection(epochs=1, warmup_epochs=0, optimizer=SGD(kind="sgd"), engine=self._engine)
        loop = self._loop(network.requires_grad_(True), Objective(ObjectiveSection()), settings)
        taps = Taps(network, ())
        for batch in batches[: self._task.tuning]:
            with torch.no_grad(), autocast(self._engine.precision, CPU):
                logits = self._task.teacher(batch.inputs).float()
            loop.step(batch, Knowledge(batch.sample_ids, batch.views, logits), taps)
            loop.after_step()

    def _run(self, stations: Sequence[Station]) -> None:
        line = Line(stations, self._engine.precision)
        for step, batch in enumerate(self._task.batches):
            line.take(step, batch, batch.inputs)

    def _station(self, block: Block) -> Station:
        return Station(block, {REPLACEMENT: self._loops[block.name]} if block.name in self._loops else {})

    def _loop(self, module: nn.Module, objective: StepObjective, settings: TrainSection) -> Loop:
        context = FitContext("benchmark", SEED, CPU, emit=lambda event: None)
        return Loop(module.train(), NoKnowledge(), cast(Stream, Course(self._task)), objective, settings, context)


class Course:
    """A stream's two numbers."""

    def __init__(self, task: Task) -> None:
        self.steps_per_epoch, self.batch_size = len(task.batches), len(task.batches[0])


def replacements(task: Task) -> Iterator[tuple[Block, nn.Module]]:
    """Blocks with what may stand for them: two separable convolutions for each dense one, with norms."""
    for block in task.blocks:
        for each in offers(block, SEED, ["separable"]):
            if each.name == REPLACEMENT:
                yield block, each.module


def engine_for(task: Task) -> StepEngineSection:
    """What the trial finds for the block with most multiply-adds; eager, for compiling every block repays nothing."""
    block, module = max(replacements(task), key=lambda each: macs_of(each[0].core, each[0].in_shape))
    known = []
    with torch.no_grad():
        for batch in task.batches[:10]:
            inputs = batch.inputs
            for each in task.blocks[: list(task.blocks).index(block)]:
                inputs = each.forward(inputs)
            entry = block.lead(inputs)
            answers = Knowledge(batch.sample_ids, batch.views, features={OUTPUT: block.core(entry)})
            known.append((Batch(batch.sample_ids, batch.views, entry, batch.targets), answers))
    settings = TrainSection(epochs=1, warmup_epochs=0, optimizer=BLOCKS, engine=TRIED)
    make = cast(Callable[[], Network], lambda: copy.deepcopy(module))
    objective = cast(Callable[[Network], Objective], lambda network: BlockObjective())
    return choose_step_engine(make, objective, known, settings, LONG, CPU).engine
