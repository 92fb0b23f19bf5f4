"""One student of several, in a process of its own: the run's loop on the share of each batch that the run sends.

It needs no store, no teacher and no file of the run: keys, knowledge and the state to begin with come by its line,
pixels where it can't see the data; what the first student has to tell (progress, checkpoints, weights to look at) goes
back by it.

run      job {...}, then sight, network, objective, checkpoint + body: what to train, and from where
student  sees {reads}
run      share {number, forms} + body; evaluated {...}; stop {signal}; pause {signal}, where no share will come
student  took {number, waited_s}; event {...}; checkpoint {step} + body; evaluate + body
student  ended {how, why, signal}, after its weights
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.distributed import FileStore, Store  # type: ignore[attr-defined]

from stillhouse.blocks.assemble import build_any
from stillhouse.data.batch import Batch
from stillhouse.data.stream import Stream
from stillhouse.foundation.allocator import keep_freed_memory
from stillhouse.foundation.errors import Interrupted, ModelError, StillhouseError
from stillhouse.foundation.events import Event
from stillhouse.foundation.seeding import subseed
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network
from stillhouse.models.placement import fixed_numerics, resolve_device
from stillhouse.models.taps import shapes
from stillhouse.models.weights import load_into, weights_bytes
from stillhouse.recipe.architectures import Normalisation
from stillhouse.recipe.load import parse
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.job import Job
from stillhouse.runner.shares import Make, unpack, unpack_share
from stillhouse.runner.sight import BLIND, Sight, sight_of
from stillhouse.runtime.local.children import die_with_parent
from stillhouse.runtime.local.door import connected
from stillhouse.runtime.local.frames import Frame
from stillhouse.runtime.local.line import Line
from stillhouse.students.checkpoint import packed, unpacked
from stillhouse.students.evaluate import Evaluation
from stillhouse.students.fit import FitContext, fit
from stillhouse.students.joined import Joined
from stillhouse.students.objective import Objective

_LOOK_S = 0.2


def attend(line: Line, meeting: Callable[[Mapping[str, Any]], Store | None] = lambda job: None) -> int:
    """Train as the run says, to the end; the exit code.

    Args:
        meeting: makes the store where the students find one another, from the job; None where they have.
    """
    job = line.next("job").header
    recipe = parse(job["recipe"], (), "the run's recipe")
    with errors_told(line):
        with fixed_numerics(int(recipe.compute.threads)):
            line.say({"do": "weights"}, _trained(line, job, recipe, meeting))
        line.say({"do": "ended", "how": "done"})
    line.next("dismiss")  # the others may not be done with what they have to tell each other
    return 0


@contextlib.contextmanager
def errors_told(line: Line) -> Iterator[None]:
    """Tell the run what ended the work, where it is a signal or an error of ours."""
    try:
        yield
    except Interrupted as error:
        line.say({"do": "ended", "how": "Interrupted", "why": str(error), "signal": error.exit_code - 128})
    except StillhouseError as error:
        line.say({"do": "ended", "how": type(error).__name__, "why": str(error)})


def _trained(
    line: Line, job: Mapping[str, Any], recipe: Recipe, meeting: Callable[[Mapping[str, Any]], Store | None]
) -> bytes:
    rank, size, settings = job["rank"], job["size"], recipe.student.train
    device, own = device_of(recipe, rank, size)
    sight = sight_by(line)
    handed = handed_over(line)
    network = network_by(handed, recipe, job)
    objective = objective_by(handed, recipe, job, network)
    first = rank == 0
    with Joined(meeting(job), rank, size, device, own_device=own) as group:
        desk = Desk(line, sight.make, objective.ask, settings.batch_size, job)
        context = FitContext(
            phase=job["phase"],
            seed=subseed(recipe.seed, job["phase"], "steps"),
            device=device,
            emit=Teller(line).emit if first else lambda event: None,
            checkpoints=SentCheckpoints(line, job, handed, recipe.checkpoint.every_s if first else None),
            evaluate=Asker(line).evaluate if first else None,
            interrupted=Stop(line).asked,
            ahead_max_bytes=recipe.data.ahead_max_mb * 2**20,
            group=group,
        )
        result = fit(network, desk, cast(Stream, desk), objective, settings, context)
        return weights_bytes(result) if first else b""


def device_of(recipe: Recipe, rank: int, size: int) -> tuple[torch.device, bool]:
    """Where this student computes, and whether every student on this machine has a device of its own."""
    device = resolve_device(recipe.compute.device, "compute.device")
    if device.type != "cuda":
        return device, False
    devices, place = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", rank))
    device = torch.device("cuda", place % devices)
    torch.cuda.set_device(device)
    return device, int(os.environ.get("LOCAL_WORLD_SIZE", size)) <= devices


def sight_by(line: Line) -> Sight:
    """How this process sees the data; the run is told."""
    job = Job.from_json(json.loads(line.next("sight").body))
    try:
        sight = sight_of(parse(job.recipe, (), "the run's recipe"), job)
    except StillhouseError:  # the recipe names files that are not here
        sight = BLIND
    line.say({"do": "sees", "reads": sight.reads})
    return sight


class HandedOver(NamedTuple):
    """What a job begins with, as it came by the line."""

    network: Frame
    objective: Frame
    checkpoint: Frame


def handed_over(line: Line) -> HandedOver:
    """All of it, before anything can fail: nothing is left over for the next job."""
    return HandedOver(line.next("network"), line.next("objective"), line.next("checkpoint"))


def network_by(handed: HandedOver, recipe: Recipe, job: Mapping[str, Any]) -> Network:
    """The run's network, from its own weights; nothing that the recipe says of weights is looked for."""
    bare = recipe.student.model.without_weights()
    content = bytes(handed.network.body)
    state = safetensors.torch.load(content)
    mean, std = (tuple(state[f"preprocess.{name}"].flatten().tolist()) for name in ("mean", "std"))
    network = build_any(bare, interface_in(job), Normalisation(mean=mean, std=std), 0, "student")
    load_into(network, state, "the run's student")
    return network


def interface_in(job: Mapping[str, Any]) -> Interface:
    """What the run's data offer a model."""
    return Interface(tuple(job["shape"]), job["image"], job["classes"])


def objective_by(handed: HandedOver, recipe: Recipe, job: Mapping[str, Any], network: Network) -> Objective:
    """The run's objective, its adapters as the run begins with them."""
    section = recipe.objective
    objective = Objective(
        section,
        recipe.student.train.label_smoothing,
        shapes(network, [term.student for term in section.features], interface_in(job)),
        {name: tuple(shape) for name, shape in job["teacher_shapes"].items()},
        leaves_out_unknown=recipe.fleet.without_teachers == "stored_only",
    )
    objective.load_state_dict(unpack(handed.objective.header["forms"], handed.objective.body))
    return objective


class Desk:
    """Where shares arrive: a stream and a source in one, for a loop that asks both.

    Shares of another job, which ended before it had taken them, are left out.
    """

    def __init__(self, line: Line, make: Make, ask: Ask, batch_size: int, job: Mapping[str, Any]) -> None:
        self.ask, self.batch_size, self.steps_per_epoch = ask, batch_size, int(job["steps_per_epoch"])
        self._line, self._make, self._job = line, make, job["job"]
        self._known: deque[tuple[int, Knowledge]] = deque()
        self._over = False
        self._waited_s = 0.0

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """This student's part of each step's batch; may be asked for in another thread, ahead of the step."""
        for number in range(first, last):
            if (frame := self._share()) is None:
                return
            if frame.header["number"] != number:
                raise StillhouseError(f"the share of step {frame.header['number']} came at step {number}")
            batch, knowledge = unpack_share(frame.header["forms"], frame.body, self._make)
            self._known.append((number, knowledge))
            yield batch

    def _share(self) -> Frame | None:
        """The next share of this job; None where nobody wants one any more."""
        while not self._over:
            frame = self._line.heard("share", _LOOK_S)
            if frame is not None and frame.header["job"] == self._job:
                return frame
            if frame is None and (pause := self._line.heard("pause")) is not None:
                raise Interrupted("stopped while waiting for a teacher", int(pause.header["signal"]))
        return None

    def teach(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Knowledge]]:
        """Each with the knowledge that came along; the run hears when a step begins, and of the waiting."""
        try:
            for batch in self._timed(batches):
                number, knowledge = self._known.popleft()
                self._line.say({"do": "took", "number": number, "waited_s": round(self._waited_s, 4)})
                yield batch, knowledge
        finally:
            self._over = True

    def _timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        asked_s = time.perf_counter()
        for batch in batches:
            self._waited_s += time.perf_counter() - asked_s
            yield batch
            asked_s = time.perf_counter()

    def waits(self) -> dict[str, float]:
        """The run knows."""
        return {}

    def counts(self) -> dict[str, int]:
        """The run knows."""
        return {}


class Teller:
    """Sends events to the run."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def emit(self, event: Event) -> None:
        """One."""
        values = dataclasses.asdict(event)
        self._line.say({"do": "event", "event": type(event).__name__, "values": values})


class SentCheckpoints:
    """Keeps checkpoints by sending them to the run; those of other students than the first are not wanted."""

    def __init__(self, line: Line, job: Mapping[str, Any], handed: HandedOver, every_s: float | None) -> None:
        self._line, self._every_s, self._begun = line, every_s, handed.checkpoint.body
        self._folder, self._newest = Path(job["checkpoints"]), job["newest"]
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the first student's time has come."""
        return self._every_s is not None and time.monotonic() - self._last >= self._every_s

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Send it."""
        self._newest = f"step-{step:010d}.ckpt"
        if self._every_s is not None:
            self._line.say({"do": "checkpoint", "step": step}, packed(state))
            self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What the run wants to go on from."""
        return unpacked(self._begun, "the run's checkpoint") if self._begun else None

    def newest(self) -> Path | None:
        """Where the run keeps it."""
        return self._folder / self._newest if self._newest else None


class Asker:
    """Has the run, which has the data, look at the network so far."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def evaluate(self, network: nn.Module) -> Evaluation:
        """As the run does.

        Raises:
            ModelError: it can't.
        """
        assert isinstance(network, Network)
        self._line.say({"do": "evaluate"}, weights_bytes(network))
        found = self._line.next("evaluated")
        if "refused" in found.header:
            raise ModelError(found.header["refused"])
        return Evaluation(np.frombuffer(bytes(found.body), np.bool_), found.header["loss"])


class Stop:
    """Whether the run wants to stop."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._signal: int | None = None

    def asked(self) -> int | None:
        """The signal's number, or None."""
        if (frame := self._line.heard("stop")) is not None:
            self._signal = int(frame.header["signal"])
        return self._signal


def in_folder(job: Mapping[str, Any]) -> Store:
    """The meeting of processes of one machine, at a file that the job names."""
    return FileStore(job["meeting"], job["size"])


if __name__ == "__main__":
    keep_freed_memory()
    die_with_parent()
    door, own_name = sys.argv[1:]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    sys.exit(attend(Line(connected(door), own_name), in_folder))
