"""One of several processes that train replacements: its part of the teacher's blocks, fed by a batch or by whom it
follows.

It needs no file of the run: weights, checkpoints to go on from and keys of batches come by its line, pixels where it
can't see the data; checkpoints and weights go back by it. Activations go from worker to worker (``blocks.relay``).

run     job {...}, then sight, teacher, and initial + body of each replacement
worker  sees {reads}; measures, while it does; measured {profile, link_bytes_s}
run     seat {seat, keys}, then checkpoint + body of each replacement of its own
run     share {number, forms} + body, to whom nobody hands on; stop {signal}
worker  took {number, busy_s}; event {...}; checkpoint {key, step} + body; trained {key} + body; diverged {key, why}
worker  ended {how, why, signal, step_s}
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed import Store  # type: ignore[attr-defined]

from stillhouse.blocks.assemble import cut, replacement
from stillhouse.blocks.partition import Block
from stillhouse.blocks.relay import Receiver, Sender, round_trip_bytes_s
from stillhouse.blocks.seats import Seat
from stillhouse.blocks.train import HandOn
from stillhouse.data.ahead import ahead
from stillhouse.data.batch import Batch
from stillhouse.data.stream import Stream
from stillhouse.foundation.allocator import keep_freed_memory
from stillhouse.foundation.errors import Interrupted, StillhouseError
from stillhouse.models.build import build
from stillhouse.models.network import Network
from stillhouse.models.placement import fixed_numerics
from stillhouse.models.weights import load_into
from stillhouse.recipe.architectures import Normalisation
from stillhouse.recipe.blockwise import BlockwiseSection
from stillhouse.recipe.load import parse
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.blockwise.bench import Bench, Key
from stillhouse.runner.blockwise.profile import Profile, measured
from stillhouse.runner.shares import unpack_share
from stillhouse.runner.sight import Sight
from stillhouse.runner.student import Stop, Teller, device_of, errors_told, in_folder, interface_in, sight_by
from stillhouse.runtime.local.children import die_with_parent
from stillhouse.runtime.local.door import connected
from stillhouse.runtime.local.line import Line
from stillhouse.students.checkpoint import packed, unpacked
from stillhouse.students.group import Group
from stillhouse.students.joined import Joined

_LOOK_S = 0.2
_WARM_STEPS = 3
_LINK_BYTES_MAX = 2**26


def attend(line: Line, meeting: Callable[[Mapping[str, Any]], Store | None] = lambda job: None) -> int:
    """Train as the run says, to the end; the exit code.

    Args:
        meeting: makes the store where the workers find one another, from the job; None where they have.
    """
    job = line.next("job").header
    recipe = parse(job["recipe"], (), "the run's recipe")
    with errors_told(line):
        with fixed_numerics(int(recipe.compute.threads)):
            _work(line, job, recipe, meeting)
        return 0
    line.next("dismiss")
    return 0


def _work(
    line: Line, job: Mapping[str, Any], recipe: Recipe, meeting: Callable[[Mapping[str, Any]], Store | None]
) -> None:
    rank, size, section = job["rank"], job["size"], recipe.blockwise
    assert section is not None
    device, own = device_of(recipe, rank, size)
    sight = sight_by(line)
    teacher = _teacher(line, recipe, job, section, device)
    blocks = cut(teacher, interface_in(job), section.blocks)[: job["blocks"]]
    modules = {(block, name): _initial(line, blocks, block, name) for block, name in job["keys"]}
    pace = cast(Stream, _Pace(section.train.batch_size, job["steps_per_epoch"]))
    with Joined(meeting(job), rank, size, device, own_device=own) as group:
        group.largest([0])  # all begin at once
        make = _load(job, sight, teacher, section, device)
        found = measured(blocks, modules, section, pace, make, lambda: line.say({"do": "measures"}))
        link = round_trip_bytes_s(rank, 1 - rank, _link_bytes(found), group.wire) if rank < 2 <= size else None
        line.say({"do": "measured", "profile": found.as_json(), "link_bytes_s": link})
        told = line.next("seat").header
        step_s = 0.0
        if told["seat"] is not None:
            seat = Seat.from_json(told["seat"])
            own_blocks = blocks[seat.begin : seat.last + 1]
            own_modules = {(block, name): modules[block, name] for block, name in told["keys"]}
            speaks = seat.mates[0] == rank  # for all who share a batch
            keeper = partial(_Keeper, line, job, recipe.checkpoint.every_s if speaks else None)
            told_by = (keeper, Teller(line).emit if speaks else lambda event: None)
            mates = group.among(told["groups"])
            bench = Bench(job["phase"], own_blocks, own_modules, section, recipe.seed, pace, device, *told_by, mates)
            del modules, own_modules
            step_s = _Part(line, job, recipe, seat, bench, teacher, sight, group.wire, mates, speaks=speaks).train()
        else:
            group.among(told["groups"])
        line.say({"do": "ended", "how": "done", "step_s": step_s})
        line.next("dismiss")  # the others may not have taken all that was sent to them


class _Part:
    """What one worker does from its first batch to its last."""

    def __init__(
        self,
        line: Line,
        job: Mapping[str, Any],
        recipe: Recipe,
        seat: Seat,
        bench: Bench,
        teacher: Network,
        sight: Sight,
        wire: torch.device,
        mates: Group,
        *,
        speaks: bool,
    ) -> None:
        self._mates, self._speaks = mates, speaks
        self._line, self._bench, self._teacher, self._sight = line, bench, teacher, sight
        self._first, self._steps = job["first"], job["steps"]
        self._ahead_max_bytes = recipe.data.ahead_max_mb * 2**20
        self._device = teacher.device
        self._sender = Sender(seat.targets, wire) if seat.targets else None
        self._hands_on = HandOn(seat.hands_on - seat.begin, self._give) if seat.targets else None
        self._receiver = Receiver(seat.source, wire, self._device) if seat.source is not None else None
        self._stop = Stop(line)
        self._ids: NDArray[np.int64] = np.empty(0, np.int64)
        self._handing_s = 0.0

    def train(self) -> float:
        """To the end; seconds a step, 0 where there were too few to say.

        Raises:
            Interrupted: a signal came; checkpoints are on their way.
        """
        made = self._received() if self._receiver is not None else self._made()
        taken, busy_s = 0, 0.0
        begun_s = since_s = time.perf_counter()
        try:
            with contextlib.closing(made):
                for step in range(self._first, self._steps):
                    batch, inputs = self._next(made)
                    taken, started_s = taken + 1, time.perf_counter()
                    if taken == _WARM_STEPS + 1:
                        since_s = begun_s
                    self._ids, self._handing_s = batch.sample_ids, 0.0
                    for key, error in self._bench.take(step, batch, inputs, self._hands_on):
                        self._tell({"do": "diverged", "key": key, "why": str(error)})
                    begun_s = time.perf_counter()
                    busy_s += begun_s - started_s - self._handing_s
                    self._line.say({"do": "took", "number": step, "busy_s": round(busy_s, 4)})
        except Interrupted as stop:
            self._bench.save()
            if self._sender is not None:
                self._sender.stop(stop.exit_code - 128)
            raise
        if self._sender is not None:
            self._sender.close()
        for key, weights in self._bench.results():
            self._tell({"do": "trained", "key": key}, weights)
        return (begun_s - since_s) / (taken - _WARM_STEPS) if taken > 2 * _WARM_STEPS else 0.0

    def _tell(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Say what one of those who share a batch says for all."""
        if self._speaks:
            self._line.say(header, body)

    def _next(self, made: Iterator[tuple[Batch, Tensor]]) -> tuple[Batch, Tensor]:
        """The next batch; all who share batches take it, or none does.

        Raises:
            Interrupted: one of them was asked to stop, or whom it follows was.
        """
        signal = self._stop.asked() or 0 if self._receiver is None else 0
        found: tuple[Batch, Tensor] | None = None
        if not signal:
            try:
                found = next(made)
            except Interrupted as stop:
                signal = stop.exit_code - 128
        (signal,) = self._mates.largest([signal])
        if signal:
            raise Interrupted("stopped", signal)
        assert found is not None
        return found

    def _give(self, activation: Tensor) -> None:
        assert self._sender is not None
        begun_s = time.perf_counter()
        self._sender.send(self._ids, activation)
        self._handing_s = time.perf_counter() - begun_s

    def _received(self) -> Generator[tuple[Batch, Tensor], None, None]:
        assert self._receiver is not None
        for ids, activation in self._receiver.batches(self._steps - self._first):
            yield _batch(ids, activation), activation

    def _made(self) -> Generator[tuple[Batch, Tensor], None, None]:
        made = ahead(self._shares(), self._ahead_max_bytes)
        with contextlib.closing(made):
            for batch in made:
                with torch.no_grad():
                    inputs = self._teacher.preprocess(batch.inputs.to(self._device))
                yield batch, inputs

    def _shares(self) -> Generator[Batch, None, None]:
        """Batches by their keys, as the run sends them; asked for in another thread, ahead of the step."""
        for number in range(self._first, self._steps):
            while (frame := self._line.heard("share", _LOOK_S)) is None:
                if (signal := self._stop.asked()) is not None:
                    raise Interrupted("stopped", signal)
            if frame.header["number"] != number:
                raise StillhouseError(f"the batch of step {frame.header['number']} came at step {number}")
            yield unpack_share(frame.header["forms"], frame.body, self._sight.make)[0]


@dataclasses.dataclass(frozen=True)
class _Pace:
    """What a loop asks of a stream."""

    batch_size: int
    steps_per_epoch: int


class _Keeper:
    """Keeps one replacement's checkpoints by sending them to the run; of several who share
    its batches one does.

    Args:
        every_s: None: another one does.
    """

    def __init__(self, line: Line, job: Mapping[str, Any], every_s: float | None, key: Key) -> None:
        self._line, self._key, self._every_s = line, key, every_s
        self._folder = Path(job["checkpoints"], *key)
        self._newest = ""
        self._last_s = time.monotonic()

    def due(self) -> bool:
        """Whether the time between checkpoints has passed."""
        return self._every_s is not None and time.monotonic() - self._last_s >= self._every_s

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Send it."""
        if self._every_s is not None:
            self._line.say({"do": "checkpoint", "key": self._key, "step": step}, packed(state))
        self._newest, self._last_s = f"step-{step:010d}.ckpt", time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What the run wants to go on from."""
        frame = self._line.next("checkpoint")
        self._newest = frame.header["newest"]
        return unpacked(frame.body, "the run's checkpoint") if frame.body else None

    def newest(self) -> Path | None:
        """Where the run keeps it."""
        return self._folder / self._newest if self._newest else None


def _teacher(
    line: Line, recipe: Recipe, job: Mapping[str, Any], section: BlockwiseSection, device: torch.device
) -> Network:
    """The run's teacher, from its own weights; nothing that the recipe says of weights is looked for."""
    model = recipe.teacher.models["teacher.model"]
    state = safetensors.torch.load(bytes(line.next("teacher").body))
    mean, std = (tuple(state[f"preprocess.{name}"].flatten().tolist()) for name in ("mean", "std"))
    network = build(model, interface_in(job), Normalisation(mean=mean, std=std), 0, "teacher")
    load_into(network, state, "the run's teacher")
    layout = torch.channels_last if section.train.engine.channels_last is True else torch.contiguous_format
    network.eval().to(device=device, memory_format=layout)  # type: ignore[call-overload]
    return network


def _initial(line: Line, blocks: Sequence[Block], block: str, name: str) -> nn.Module:
    """A replacement as the run begins with it."""
    module = replacement(next(each for each in blocks if each.name == block), name, 0)
    module.load_state_dict(safetensors.torch.load(bytes(line.next("initial").body)))
    return module


def _load(
    job: Mapping[str, Any], sight: Sight, teacher: Network, section: BlockwiseSection, device: torch.device
) -> Callable[[], Tensor]:
    """What makes a batch of some samples; where data can't be seen, of numbers."""
    ids = np.arange(section.train.batch_size) % job["samples"]
    zeros = interface_in(job).zeros(len(ids), torch.device("cpu"))
    ramp = torch.arange(zeros.numel(), dtype=torch.int32).remainder(251).view(zeros.shape).to(zeros.dtype)

    @torch.no_grad()
    def make() -> Tensor:
        seen = sight.make(ids, np.zeros_like(ids)).inputs if sight.reads != "sent" else ramp
        inputs: Tensor = teacher.preprocess(seen.to(device))
        return inputs

    return make


def _link_bytes(found: Profile) -> int:
    return min(max(found.output_bytes), _LINK_BYTES_MAX)


def _batch(ids: NDArray[np.int64], inputs: Tensor) -> Batch:
    return Batch(ids, np.zeros_like(ids), inputs, torch.zeros(len(ids), dtype=torch.int64))


if __name__ == "__main__":
    keep_freed_memory()
    die_with_parent()
    door, own_name = sys.argv[1:]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    sys.exit(attend(Line(connected(door), own_name), in_folder))
