"""Trains replacements on one device: one pass of the teacher feeds every block, front to back.

At each step a batch runs through the teacher's blocks in order; at each block all of its alternatives take their step
on what went in and what came out, and the input is let go: two activations are alive, however deep the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillhouse.blocks.objective import OUTPUT
from stillhouse.blocks.partition import Block
from stillhouse.data.batch import Batch
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.taps import Taps
from stillhouse.students.fit import Loop

_NO_TAPS = Taps(nn.Identity(), ())


@dataclass(frozen=True)
class Station:
    """A block of the teacher with the trainings of what may replace it.

    Attributes:
        block: in evaluation mode, on its device.
        loops: by the alternative's name; each at a step of its own.
    """

    block: Block
    loops: Mapping[str, Loop]

    @property
    def step(self) -> int | None:
        """The first step that any of its trainings has yet to take; None when all are done."""
        left = [loop.state.step for loop in self.loops.values() if loop.state.step < loop.steps]
        return min(left, default=None)


class Line:
    """Consecutive stations on one device.

    Args:
        precision: runs the teacher's passes under autocast, or not.
        relay: is given each activation behind the last station, before anything is trained; None: nobody waits.
    """

    def __init__(self, stations: Sequence[Station], relay: Callable[[int, Tensor], None] | None = None) -> None:
        self._stations, self._relay = stations, relay

    def needed(self, step: int) -> int:
        """How many of the stations, from the first, must see a step."""
        if self._relay is not None:
            return len(self._stations)
        waiting = [at + 1 for at, each in enumerate(self._stations) if each.step is not None]
        return max(waiting, default=0)

    def take(self, step: int, batch: Batch, inputs: Tensor) -> None:
        """One step of every training that is due.

        Args:
            step: its number; a training that is ahead of it, from a checkpoint, waits.
            batch: says whose activations these are.
            inputs: [B, ...] of the first station.
        """
        for station in self._stations[: self.needed(step)]:
            with torch.no_grad():
                entry = station.block.lead(inputs)
                output = station.block.core(entry)
            self._train(station, step, batch, entry, output)
            inputs = output

    def _train(self, station: Station, step: int, batch: Batch, entry: Tensor, output: Tensor) -> None:
        seen = Batch(batch.sample_ids, batch.views, entry, batch.targets)
        told = Knowledge(batch.sample_ids, batch.views, features={OUTPUT: output})
        for loop in station.loops.values():
            if loop.state.step == step:
                loop.step(seen, told, _NO_TAPS)
                loop.after_step()
