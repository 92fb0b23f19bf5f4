"""Trains replacements on one device: one pass of the teacher feeds every block, front to back.

At each step a batch runs through the teacher's blocks in order; at each block all of its alternatives take their step
on what went in and what came out, and the input is let go: two activations are alive, however deep the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillhouse.blocks.objective import OUTPUT
from stillhouse.blocks.partition import Block
from stillhouse.data.batch import Batch
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.taps import Taps
from stillhouse.students.fit import Loop


@dataclass(frozen=True)
class Station:
    """A block of the teacher with the trainings of what may replace it.

    Attributes:
        block: in evaluation mode, on its device.
        loops: by the alternative's name; each at a step of its own.
    """

    block: Block
    loops: Mapping[str, Loop]

    def due(self, step: int) -> list[Loop]:
        """Trainings that take this step next; others took it before they were stopped."""
        return [loop for loop in self.loops.values() if loop.state.step == step]


class Line:
    """Consecutive stations on one device.

    Args:
        stations: front to back.
    """

    def __init__(self, stations: Sequence[Station]) -> None:
        self._stations = stations
        self._taps = Taps(nn.Identity(), ())

    def take(self, step: int, batch: Batch, inputs: Tensor) -> None:
        """One step of every training that is due.

        Args:
            step: its number; a training that is ahead of it, from a checkpoint, waits.
            batch: says whose activations these are.
            inputs: [B, ...] of the first station.
        """
        last = max((at for at, each in enumerate(self._stations) if each.due(step)), default=-1)
        for station in self._stations[: last + 1]:
            with torch.no_grad():
                entry = station.block.lead(inputs)
                output = station.block.core(entry)
            self._train(station, step, batch, entry, output)
            inputs = output

    def _train(self, station: Station, step: int, batch: Batch, entry: Tensor, output: Tensor) -> None:
        seen = Batch(batch.sample_ids, batch.views, entry, batch.targets)
        told = Knowledge(batch.sample_ids, batch.views, features={OUTPUT: output})
        for loop in station.due(step):
            loop.step(seen, told, self._taps)
            loop.after_step()
