"""One of several processes that train a search's trials: one job after the other, as the run gives them.

Like a student of several (``runner.student``) it needs no store, no teacher and no file of the run. What its network is
worth it finds out itself where it sees the data.

run     begin {threads, place}, then sight
worker  sees {reads}
run     job {...}, then network, objective, checkpoint + body; validation + body, once, to whom sees the data
run     share {job, number, forms} + body; evaluated {...}; stop {signal}
worker  took {number, waited_s}; event {...}; checkpoint {step} + body; looks; evaluate + body
worker  ended {how, why, signal, accuracy}
run     dismiss, and a job that is none
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from stillhouse.data.ahead import ahead
from stillhouse.data.batch import Batch
from stillhouse.data.stream import Stream, plain_batches
from stillhouse.foundation.allocator import keep_freed_memory
from stillhouse.foundation.garbage import unswept
from stillhouse.foundation.seeding import subseed
from stillhouse.models.placement import fixed_numerics
from stillhouse.recipe.load import parse
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.materials import EVALUATION_BATCH
from stillhouse.runner.shares import unpack
from stillhouse.runner.sight import Sight
from stillhouse.runner.student import (
    Asker,
    Desk,
    HandedOver,
    SentCheckpoints,
    Stop,
    Teller,
    device_of,
    errors_told,
    handed_over,
    network_by,
    objective_by,
    sight_by,
)
from stillhouse.runtime.local.children import die_with_parent
from stillhouse.runtime.local.door import connected
from stillhouse.runtime.local.line import Line
from stillhouse.students.evaluate import Evaluation, evaluate
from stillhouse.students.fit import FitContext, fit

_SAID_S = 5.0


def attend(line: Line) -> int:
    """Train what the run gives, until it gives no more; the exit code."""
    begin = line.next("begin").header
    with fixed_numerics(int(begin["threads"])), unswept():
        desk = _Place(line, int(begin["place"]), sight_by(line))
        while (job := line.next("job").header)["job"] is not None:
            handed = handed_over(line)
            with errors_told(line):
                try:
                    desk.train(job, handed)
                except torch.OutOfMemoryError as error:
                    line.say({"do": "ended", "how": "ModelError", "why": str(error)})
    return 0


class _Place:
    """Where one worker works.

    Args:
        place: its number among those of this machine, from 0.
    """

    def __init__(self, line: Line, place: int, sight: Sight) -> None:
        self._line, self._place, self._sight = line, place, sight

    def train(self, job: Mapping[str, Any], handed: HandedOver) -> None:
        """One job, and say what came of it.

        Raises:
            Interrupted: the run wants to stop; a checkpoint is on its way.
            StillhouseError: it can't be trained.
        """
        line, begun_s = self._line, time.monotonic()
        recipe = parse(job["recipe"], (), "the run's recipe")
        settings = recipe.student.train
        device, _ = device_of(recipe, self._place, 1)
        network = network_by(handed, recipe, job)
        objective = objective_by(handed, recipe, job, network)
        make = self._sight.by(recipe.data.augment)
        desk = Desk(line, make, objective.ask, settings.batch_size, job)
        context = FitContext(
            phase=job["phase"],
            seed=subseed(recipe.seed, job["phase"], "steps"),
            device=device,
            emit=Teller(line).emit,
            checkpoints=SentCheckpoints(line, job, handed, recipe.checkpoint.every_s),
            evaluate=(lambda network: self._evaluated(network, recipe, device)) if job["evaluates"] else None,
            interrupted=Stop(line).asked,
            ahead_max_bytes=recipe.data.ahead_max_mb * 2**20,
            until_step=job["until_step"],
            saves_epochs=job["saves_epochs"],
            averages=job["averages"],
        )
        result = fit(network, desk, cast(Stream, desk), objective, settings, context)
        found = self._evaluated(result, recipe, device)
        spent_s = round(time.monotonic() - begun_s, 3)
        line.say({"do": "ended", "how": "done", "accuracy": found.accuracy, "seconds": spent_s})

    def _evaluated(self, network: nn.Module, recipe: Recipe, device: torch.device) -> Evaluation:
        if self._sight.table is None:
            return Asker(self._line).evaluate(network)
        ids, labels, crop_px = self._split
        batches = plain_batches(self._sight.table, labels, ids, EVALUATION_BATCH, crop_px)
        with contextlib.closing(ahead(batches, recipe.data.ahead_max_mb * 2**20)) as made:
            return evaluate(network, self._heard(made), device)

    def _heard(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same; the run hears that this worker lives."""
        said_s = time.monotonic()
        for batch in batches:
            if time.monotonic() - said_s > _SAID_S:
                said_s = time.monotonic()
                self._line.say({"do": "looks"})
            yield batch

    @cached_property
    def _split(self) -> tuple[Any, Any, Any]:
        """Ids of the validation split, labels by id, and the size of a view."""
        told = self._line.next("validation")
        found = unpack(told.header["forms"], told.body)
        ids = found["sample_ids"].numpy()
        labels = np.zeros(int(ids.max()) + 1, np.int64)
        labels[ids] = found["targets"].numpy()
        return ids, labels, told.header["crop_px"]


if __name__ == "__main__":
    keep_freed_memory()
    die_with_parent()
    door, own_name = sys.argv[1:]
    sys.exit(attend(Line(connected(door), own_name)))
