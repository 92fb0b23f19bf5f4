"""A few steps of everything, on copies, while every other worker does the same: what a plan is made of.

Times taken alone would promise what processes that share caches, memory and power can't keep.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stillhouse.blocks.objective import OUTPUT
from stillhouse.blocks.partition import Block
from stillhouse.blocks.schedule import BlockTimes
from stillhouse.data.batch import Batch
from stillhouse.data.stream import Stream
from stillhouse.foundation.errors import DivergedError
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.placement import autocast
from stillhouse.models.taps import Taps
from stillhouse.recipe.blockwise import BlockwiseSection
from stillhouse.runner.blockwise.bench import Bench, Key
from stillhouse.students.fit import Loop

STEPS = 10
"""Steps that are timed; two before them warm up."""

T = TypeVar("T")

_WARM = 2
_STILL = 1e-12


@dataclass(frozen=True)
class Profile:
    """What one worker measured; seconds a batch.

    Attributes:
        load_s, input_bytes: making the batch, and its size.
        teacher_s, output_bytes: of each block.
        train_s, weights_bytes: of each replacement.
    """

    load_s: float
    input_bytes: int
    teacher_s: Sequence[float]
    output_bytes: Sequence[int]
    train_s: Mapping[Key, float]
    weights_bytes: Mapping[Key, int]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        trained = [[*key, self.train_s[key], self.weights_bytes[key]] for key in self.train_s]
        blocks = [list(each) for each in zip(self.teacher_s, self.output_bytes, strict=True)]
        return {"load_s": self.load_s, "input_bytes": self.input_bytes, "blocks": blocks, "trained": trained}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Profile:
        """What a worker told."""
        trained = {(block, name): (seconds, size) for block, name, seconds, size in values["trained"]}
        return cls(
            values["load_s"],
            values["input_bytes"],
            [seconds for seconds, _ in values["blocks"]],
            [size for _, size in values["blocks"]],
            {key: seconds for key, (seconds, _) in trained.items()},
            {key: size for key, (_, size) in trained.items()},
        )


def mean_of(profiles: Sequence[Profile]) -> Profile:
    """What workers measured at the same time, as one."""
    one = profiles[0]
    return Profile(
        statistics.mean(each.load_s for each in profiles),
        one.input_bytes,
        [statistics.mean(column) for column in zip(*(each.teacher_s for each in profiles), strict=True)],
        one.output_bytes,
        {key: statistics.mean(each.train_s[key] for each in profiles) for key in one.train_s},
        one.weights_bytes,
    )


def times_of(profile: Profile, blocks: Sequence[str], wanted: Sequence[Key]) -> list[BlockTimes]:
    """Of each block, by name, with those of its replacements that are wanted, in their order."""
    found = []
    for at, name in enumerate(blocks):
        own = [key for key in wanted if key[0] == name]
        trained = tuple(profile.train_s[key] for key in own)
        weights = sum(profile.weights_bytes[key] for key in own)
        found.append(BlockTimes(profile.teacher_s[at], trained, weights, profile.output_bytes[at]))
    return found


def measured(
    blocks: Sequence[Block],
    modules: Mapping[Key, nn.Module],
    section: BlockwiseSection,
    pace: Stream,
    make: Callable[[], Tensor],
    tell: Callable[[], None],
) -> Profile:
    """Time everything, one block after the other, so that no more than one block's trainings are in memory.

    Args:
        blocks: of the teacher, on the device.
        modules: not changed.
        make: a batch's inputs for the first block, on the device.
        tell: called now and then: this may take long.
    """
    optimizer = section.train.optimizer.model_copy(update={"learning_rate": _STILL})
    still = section.model_copy(update={"train": section.train.model_copy(update={"optimizer": optimizer})})
    inputs = make()
    timed = _Timed(inputs.device)
    for _ in timed.steps():
        inputs = timed.call("load", make)
    input_bytes, output_bytes = inputs.nbytes, []
    for block in blocks:
        tell()
        own = {key: copy.deepcopy(module) for key, module in modules.items() if key[0] == block.name}
        bench = Bench("profile", (), own, still, 0, pace, inputs.device, lambda key: None, lambda event: None)
        inputs = _one_block(block, bench, inputs, str(section.train.engine.precision), timed)
        output_bytes.append(inputs.nbytes)
    sizes = {key: sum(each.nbytes for each in module.parameters()) for key, module in modules.items()}
    return Profile(
        timed.mean("load"),
        input_bytes,
        [timed.mean(("teacher", block.name)) for block in blocks],
        output_bytes,
        {key: timed.mean(key) for key in modules},
        sizes,
    )


def _one_block(block: Block, bench: Bench, inputs: Tensor, precision: str, timed: _Timed) -> Tensor:
    """Time the teacher's block and all that may replace it; what the block puts out."""
    ids, taps = torch.arange(len(inputs)).numpy(), Taps(nn.Identity(), ())
    for _ in timed.steps():
        with torch.no_grad(), autocast(precision, inputs.device):
            entry, output = timed.call(("teacher", block.name), partial(_passed, block, inputs))
        seen = Batch(ids, ids, entry, torch.zeros(len(ids), dtype=torch.int64))
        told = Knowledge(ids, ids, features={OUTPUT: output})
        for key, loop in bench.loops.items():
            timed.call(key, partial(_step, loop, seen, told, taps))
    return output


def _step(loop: Loop, seen: Batch, told: Knowledge, taps: Taps) -> None:
    with contextlib.suppress(DivergedError):  # that is told when it is trained
        loop.step(seen, told, taps)
        loop.after_step()


def _passed(block: Block, inputs: Tensor) -> tuple[Tensor, Tensor]:
    entry = block.lead(inputs)
    return entry, block.core(entry)


class _Timed:
    """Seconds of calls, by name."""

    def __init__(self, device: torch.device) -> None:
        self.keeps = False
        self._device = device
        self._found: dict[object, list[float]] = {}

    def steps(self) -> Iterator[int]:
        """Those that warm up, then those that are timed."""
        for step in range(_WARM + STEPS):
            self.keeps = step >= _WARM
            yield step

    def call(self, name: object, action: Callable[[], T]) -> T:
        """Call and time it."""
        begun_s = self._now_s()
        result = action()
        if self.keeps:
            self._found.setdefault(name, []).append(self._now_s() - begun_s)
        return result

    def mean(self, name: object) -> float:
        """Of what was timed."""
        return statistics.mean(self._found[name])

    def _now_s(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
