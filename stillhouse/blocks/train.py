"""Trains replacements on one device: one pass of the teacher feeds every block, front to back.

At each step a batch runs through the teacher's blocks in order; at each block all of its alternatives take their step
on what went in and what came out, and the input is let go: two activations are alive, however deep the network. Where
somebody waits for an activation, he gets it first, and all before it live until they are learnt from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.blocks.objective import OUTPUT
from stillhouse.blocks.partition import Block
from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import DivergedError
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.placement import autocast
from stillhouse.models.taps import Taps
from stillhouse.students.fit import Loop


@dataclass(frozen=True)
class Station:
    """A block of the teacher with the trainings of what may replace it.

    Attributes:
        block: in evaluation mode, on its device.
        loops: by the alternative's name; each at a step of its own. One that diverges is taken out.
    """

    block: Block
    loops: dict[str, Loop]

    def due(self, step: int) -> dict[str, Loop]:
        """Trainings that take this step next; others took it before they were stopped."""
        return {name: loop for name, loop in self.loops.items() if loop.state.step == step}


class HandOn(NamedTuple):
    """Who waits for an activation.

    Attributes:
        before: the station whose input is wanted; one past the last: what the last puts out.
        give: is given it, before anything learns.
    """

    before: int
    give: Callable[[Tensor], None]


class Line:
    """Consecutive stations on one device.

    Args:
        stations: front to back.
        precision: of the teacher's pass.
    """

    def __init__(self, stations: Sequence[Station], precision: str = "fp32") -> None:
        self._stations, self._precision = stations, precision
        self._taps = Taps(nn.Identity(), ())

    def take(
        self, step: int, batch: Batch, inputs: Tensor, hand_on: HandOn | None = None
    ) -> list[tuple[str, str, DivergedError]]:
        """One step of every training that is due.

        Args:
            step: its number; a training that is ahead of it, from a checkpoint, waits.
            batch: says whose activations these are.
            inputs: [B, ...] of the first station.
            hand_on: none: nobody waits.

        Returns:
            Block and name of each training that diverged, and how.
        """
        lost: list[tuple[str, str, DivergedError]] = []
        waiting: list[tuple[Station, Tensor, Tensor]] = []
        due = [at for at, each in enumerate(self._stations) if each.due(step)]
        wanted = hand_on.before if hand_on else 0
        inputs = dense(inputs)
        for at, station in enumerate(self._stations[: max(wanted, max(due, default=-1) + 1)]):
            if hand_on is not None and at == wanted:
                hand_on.give(inputs)
            with torch.no_grad(), autocast(self._precision, inputs.device):
                entry = station.block.lead(inputs)
                inputs = dense(station.block.core(entry))
            if at in due:
                waiting.append((station, entry, inputs))
            if at >= wanted:
                lost += self._trained(waiting, step, batch)
        if hand_on is not None and wanted > max(due, default=-1):
            hand_on.give(inputs)
        return lost + list(self._trained(waiting, step, batch))

    def _trained(
        self, waiting: list[tuple[Station, Tensor, Tensor]], step: int, batch: Batch
    ) -> Iterator[tuple[str, str, DivergedError]]:
        while waiting:
            yield from self._train(waiting[0][0], step, batch, *waiting.pop(0)[1:])

    def _train(
        self, station: Station, step: int, batch: Batch, entry: Tensor, output: Tensor
    ) -> Iterator[tuple[str, str, DivergedError]]:
        seen = Batch(batch.sample_ids, batch.views, entry, batch.targets)
        told = Knowledge(batch.sample_ids, batch.views, features={OUTPUT: output})
        for name, loop in station.due(step).items():
            try:
                loop.step(*_share(loop, seen, told), self._taps)
                loop.after_step()
            except DivergedError as error:
                del station.loops[name]
                yield station.block.name, name, error


def _share(loop: Loop, seen: Batch, told: Knowledge) -> tuple[Batch, Knowledge]:
    """The rows that this process learns from, where several share a batch."""
    group, count = loop.context.group, loop.settings.accumulate
    if group.size == 1:
        return seen, told
    share, size = group.share(count), len(seen) // count
    rows = share.start * size, share.stop * size
    return seen.part(*rows), told.part(*rows)


def dense(tensor: Tensor) -> Tensor:
    """The tensor, without gaps in memory: one with gaps could not be handed to another process as it lies."""
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    return tensor if tensor.permute(order).is_contiguous() else tensor.contiguous()
