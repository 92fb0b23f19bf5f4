"""One sweep over the training samples in which many replacements are trained at once, from wherever each of them is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from stillhouse.blocks.objective import BlockObjective
from stillhouse.blocks.partition import Block
from stillhouse.blocks.train import Line, Station
from stillhouse.data.ahead import ahead
from stillhouse.foundation.clock import Stopwatch
from stillhouse.foundation.errors import DivergedError, Interrupted
from stillhouse.foundation.events import (
    CheckpointRefused,
    Event,
    PhaseStarted,
    Progress,
    ReplacementTrained,
)
from stillhouse.foundation.seeding import subseed
from stillhouse.knowledge.source import NoKnowledge
from stillhouse.models.weights import weights_bytes
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.materials import Materials
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.signals import Signals
from stillhouse.students.checkpoint import Checkpoints
from stillhouse.students.fit import FitContext, Loop
from stillhouse.students.optimizer import learning_rate

_TELL_S = 1.0
_CURVE_S = 5.0

Key = tuple[str, str]


class Sweep:
    """Trains some replacements to their end.

    Args:
        phase: its name in events, and of its checkpoints' folder.
        preprocess: of the teacher.
        blocks: of the teacher, on the device.
        modules: what is trained, by names of block and replacement.
        cosine: weight of 1 - cosine.
    """

    def __init__(
        self,
        phase: str,
        materials: Materials,
        folder: RunDir,
        preprocess: nn.Module,
        blocks: Sequence[Block],
        modules: Mapping[Key, nn.Module],
        settings: TrainSection,
        cosine: float,
        emit: Callable[[Event], None],
        signals: Signals,
    ) -> None:
        self._phase, self._materials, self._folder, self._preprocess = phase, materials, folder, preprocess
        self._settings, self._emit, self._signals = settings, emit, signals
        self._stream = materials.stream(settings, 0)
        self._errors = dict[Key, float]()
        self._loops = {key: self._loop(key, module, cosine) for key, module in modules.items()}
        stations = []
        for block in blocks:
            own = {name: loop for (at, name), loop in self._loops.items() if at == block.name}
            stations.append(Station(block, own))
        self._line = Line(stations, str(settings.engine.precision))
        self._watch, self._unsaid, self._said_s = Stopwatch(), 0, time.monotonic()

    def run(self, done: Callable[[Key, bytes], None], diverged: Callable[[Key, DivergedError], None]) -> None:
        """To the end of all.

        Args:
            done: given the weights of each that is trained, a canonical safetensors file.
            diverged: told of each that is not; it is left out from there on.

        Raises:
            Interrupted: a signal came; checkpoints were written.
        """
        steps = self._settings.epochs * self._stream.steps_per_epoch
        first = min(loop.state.step for loop in self._loops.values())
        self._emit(PhaseStarted(self._phase, first, steps, self._stream.batch_size))
        made = ahead(self._stream.batches(first, steps), self._materials.recipe.data.ahead_max_mb * 2**20)
        self._watch = Stopwatch()
        with contextlib.closing(made):
            for step, batch in enumerate(made, first):
                self._watch.lap("data")
                with torch.no_grad():
                    inputs = self._preprocess(batch.inputs.to(self._materials.device))
                for block, name, error in self._line.take(step, batch, inputs):
                    self._leave_out((block, name))
                    diverged((block, name), error)
                self._watch.lap("step")
                self._unsaid += 1
                if (signal := self._signals.asked()) is not None:
                    self._stop(step, steps, signal)
                if time.monotonic() - self._said_s >= _TELL_S or (step + 1) % self._stream.steps_per_epoch == 0:
                    self._tell(step + 1)
        for key, loop in self._loops.items():
            done(key, weights_bytes(loop.state.result))
            self._checkpoints(key).clear()

    def _loop(self, key: Key, module: nn.Module, cosine: float) -> Loop:
        context = FitContext(
            phase="/".join((self._phase, *key)),
            seed=subseed(self._materials.recipe.seed, "blocks", *key, "steps"),
            device=self._materials.device,
            emit=partial(self._hear, key),
            checkpoints=self._checkpoints(key),
            progress_every_s=_CURVE_S,
        )
        return Loop(module.train(), NoKnowledge(), self._stream, BlockObjective(cosine), self._settings, context)

    def _checkpoints(self, key: Key) -> Checkpoints:
        keep, name = self._materials.recipe.checkpoint, "/".join((self._phase, *key))
        return Checkpoints(self._folder.checkpoints(name), name, keep.every_s, keep.keep, partial(self._hear, key))

    def _hear(self, key: Key, event: Event) -> None:
        """What one training tells, told as one of many."""
        if isinstance(event, Progress):
            self._errors[key] = event.losses["error"]
            self._emit(ReplacementTrained(self._phase, *key, event.step, event.epoch, event.losses["error"]))
        elif isinstance(event, CheckpointRefused):
            self._emit(event)

    def _leave_out(self, key: Key) -> None:
        del self._loops[key]
        self._checkpoints(key).clear()

    def _stop(self, step: int, steps: int, signal: int) -> None:
        if step + 1 == steps:
            return
        self._tell(step + 1)
        for loop in self._loops.values():
            if loop.state.step == step + 1:
                loop.save()
        raise Interrupted(f"stopped at step {step + 1} of {steps} of {self._phase}", signal)

    def _tell(self, step: int) -> None:
        epoch = step / self._stream.steps_per_epoch
        errors = list(self._errors.values())
        self._emit(
            Progress(
                phase=self._phase,
                step=step,
                epoch=epoch,
                losses={"total": sum(errors) / len(errors)} if errors else {},
                learning_rate=learning_rate(self._settings, step - 1, self._stream.steps_per_epoch),
                seconds=self._watch.take(),
                samples=self._unsaid * self._stream.batch_size,
            )
        )
        self._unsaid, self._said_s = 0, time.monotonic()
