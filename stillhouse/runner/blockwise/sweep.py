"""One sweep over the training samples in which many replacements are trained at once, from wherever each of them is."""

from __future__ import annotations

import contextlib
import copy
import time

import torch

from stillhouse.data.ahead import ahead
from stillhouse.foundation.block_events import ReplacementTrained
from stillhouse.foundation.clock import Stopwatch
from stillhouse.foundation.errors import Interrupted
from stillhouse.foundation.events import Event, PhaseStarted, Progress
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.blockwise.bench import Bench, Diverged, Done, Errand, Key
from stillhouse.students.optimizer import learning_rate

_TELL_S = 1.0


class Course:
    """How far a sweep is, in events.

    Args:
        steps_per_epoch: batches.
    """

    def __init__(self, errand: Errand, first: int, steps_per_epoch: int) -> None:
        self._errand, self._steps_per_epoch = errand, steps_per_epoch
        self._settings: TrainSection = errand.section.train
        self._errors = dict[Key, float]()
        self._said, self._said_s = first, time.monotonic()
        errand.emit(PhaseStarted(errand.phase, first, self.steps, self._settings.batch_size))

    @property
    def steps(self) -> int:
        """In all."""
        return self._settings.epochs * self._steps_per_epoch

    def hear(self, event: Event) -> None:
        """Pass on what a training tells."""
        if isinstance(event, ReplacementTrained):
            self._errors[event.block, event.replacement] = event.error
        self._errand.emit(event)

    def is_due(self, step: int) -> bool:
        """Whether to tell, once so many steps are done."""
        if step == self._said:
            return False
        epochs_over = step // self._steps_per_epoch > self._said // self._steps_per_epoch
        return epochs_over or time.monotonic() - self._said_s >= _TELL_S

    def passed(self, step: int) -> None:
        """So many steps are done by all; told where it is time, as time of steps."""
        if self.is_due(step):
            self.tell(step, {"step": time.monotonic() - self._said_s})

    def tell(self, step: int, seconds: dict[str, float]) -> None:
        """Say that so many steps are done."""
        errors = list(self._errors.values())
        self._errand.emit(
            Progress(
                phase=self._errand.phase,
                step=step,
                epoch=step / self._steps_per_epoch,
                losses={"total": sum(errors) / len(errors)} if errors else {},
                learning_rate=learning_rate(self._settings, step - 1, self._steps_per_epoch),
                seconds=seconds,
                samples=(step - self._said) * self._settings.batch_size,
            )
        )
        self._said, self._said_s = step, time.monotonic()


def sweep(errand: Errand, done: Done, diverged: Diverged) -> None:
    """Train all to their end in this process.

    Raises:
        Interrupted: a signal came; checkpoints were written.
    """
    stream, recipe, device = errand.stream, errand.materials.recipe, errand.materials.device
    heard: list[Course] = []
    bench = Bench(
        errand.phase,
        errand.blocks,
        copy.deepcopy(dict(errand.modules)),
        errand.section,
        recipe.seed,
        stream,
        device,
        errand.checkpoints,
        lambda event: heard[0].hear(event),
    )
    first = min(loop.state.step for loop in bench.loops.values())
    course = Course(errand, first, stream.steps_per_epoch)
    heard.append(course)
    watch = Stopwatch()
    made = ahead(stream.batches(first, course.steps), recipe.data.ahead_max_mb * 2**20)
    with contextlib.closing(made):
        for step, batch in enumerate(made, first):
            watch.lap("data")
            with torch.no_grad():
                inputs = errand.teacher.preprocess(batch.inputs.to(device))
            for key, error in bench.take(step, batch, inputs):
                errand.checkpoints(key).clear()
                diverged(key, error)
            watch.lap("step")
            signal = errand.signals.asked()
            if course.is_due(step + 1) or signal is not None:
                course.tell(step + 1, watch.take())
            if signal is not None and step + 1 < course.steps:
                bench.save()
                raise Interrupted(f"stopped at step {step + 1} of {course.steps} of {errand.phase}", signal)
    for key, weights in bench.results():
        done(key, weights)
        errand.checkpoints(key).clear()
