"""Where some replacements are trained: a loop for each, fed by one pass of the teacher; and what is to be trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from stillhouse.blocks.objective import BlockObjective
from stillhouse.blocks.partition import Block
from stillhouse.blocks.train import HandOn, Line, Station
from stillhouse.data.batch import Batch
from stillhouse.data.stream import Stream
from stillhouse.foundation.block_events import ReplacementTrained
from stillhouse.foundation.errors import DivergedError
from stillhouse.foundation.events import CheckpointRefused, Event, Progress
from stillhouse.foundation.seeding import subseed
from stillhouse.knowledge.source import NoKnowledge
from stillhouse.models.network import Network
from stillhouse.models.weights import weights_bytes
from stillhouse.recipe.blockwise import BlockwiseSection
from stillhouse.runner.materials import Materials
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.signals import Signals
from stillhouse.students.checkpoint import Checkpoints, Keeper
from stillhouse.students.fit import FitContext, Loop
from stillhouse.students.group import Alone, Group

CURVE_S = 5.0

Key = tuple[str, str]
"""Names of a block and of a replacement."""

Done = Callable[[Key, bytes], None]
"""Given the weights of a replacement that is trained, a canonical safetensors file."""

Diverged = Callable[[Key, DivergedError], None]
"""Told of a replacement that is not; it is left out from there on."""


@dataclass(frozen=True)
class Errand:
    """What is to be trained, as the run's process sees it.

    Attributes:
        phase: its name in events, and of its checkpoints' folder.
        teacher: in evaluation mode, on the device.
        blocks: of the teacher.
        modules: what is trained, with initial weights.
        section: of the recipe, with this training's settings.
    """

    phase: str
    materials: Materials
    folder: RunDir
    teacher: Network
    blocks: Sequence[Block]
    modules: Mapping[Key, nn.Module]
    section: BlockwiseSection
    emit: Callable[[Event], None]
    signals: Signals

    @property
    def stream(self) -> Stream:
        """Its batches."""
        return self.materials.stream(self.section.train, 0)

    def checkpoints(self, key: Key) -> Checkpoints:
        """Those of one replacement; what is written to them is not told, for it is told too often."""
        keep, name = self.materials.recipe.checkpoint, "/".join((self.phase, *key))

        def hear(event: Event) -> None:
            if isinstance(event, CheckpointRefused):
                self.emit(event)

        return Checkpoints(self.folder.checkpoints(name), name, keep.every_s, keep.keep, hear)


class Bench:
    """Loops side by side, each at a step of its own.

    Args:
        blocks: consecutive ones of the teacher, on the device.
        modules: what is trained; changed.
        seed: of the run.
        pace: says how long a batch and an epoch are.
        keeper: of each training's checkpoints; it goes on from the newest.
        emit: told of each training's progress.
        group: who trains along.
    """

    def __init__(
        self,
        phase: str,
        blocks: Sequence[Block],
        modules: Mapping[Key, nn.Module],
        section: BlockwiseSection,
        seed: int,
        pace: Stream,
        device: torch.device,
        keeper: Callable[[Key], Keeper | None],
        emit: Callable[[Event], None],
        group: Group | None = None,
    ) -> None:
        self._phase, self._emit = phase, emit
        self.loops: dict[Key, Loop] = {}
        for key, module in modules.items():
            context = FitContext(
                phase="/".join((phase, *key)),
                seed=subseed(seed, "blocks", *key, "steps"),
                device=device,
                emit=partial(self._hear, key),
                checkpoints=keeper(key),
                progress_every_s=CURVE_S,
                group=group or Alone(),
            )
            objective = BlockObjective(section.cosine)
            self.loops[key] = Loop(module.train(), NoKnowledge(), pace, objective, section.train, context)
        self._begun = {key: loop.state.step for key, loop in self.loops.items()}
        stations = []
        for block in blocks:
            own = {name: loop for (at, name), loop in self.loops.items() if at == block.name}
            stations.append(Station(block, own))
        self._line = Line(stations, str(section.train.engine.precision))

    def take(
        self, step: int, batch: Batch, inputs: Tensor, hand_on: HandOn | None = None
    ) -> list[tuple[Key, DivergedError]]:
        """One step, as :meth:`stillhouse.blocks.train.Line.take`; what diverged is left out from now on."""
        lost = [((block, name), error) for block, name, error in self._line.take(step, batch, inputs, hand_on)]
        for key, _ in lost:
            del self.loops[key]
        return lost

    def save(self) -> None:
        """A checkpoint of each training that got further, and is not at its end."""
        for key, loop in self.loops.items():
            if self._begun[key] < loop.state.step < loop.steps:
                loop.save()

    def results(self) -> Iterator[tuple[Key, bytes]]:
        """The weights of all, once they are at their end."""
        for key, loop in self.loops.items():
            yield key, weights_bytes(loop.state.result)

    def _hear(self, key: Key, event: Event) -> None:
        """What one training tells, told as one of many."""
        if isinstance(event, Progress):
            self._emit(ReplacementTrained(self._phase, *key, event.step, event.epoch, event.losses["error"]))
