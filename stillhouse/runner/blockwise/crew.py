"""Several processes that train the replacements of a phase together: the run's process plans, feeds and hears them.

It trains nothing itself meanwhile: it sends the keys of batches to whom nobody hands activations on, writes the
checkpoints and weights that come, and, when a worker is gone, ends the others and plans anew for those that are left:
what was finished stays so, the rest goes on from its newest checkpoints.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from stillhouse.blocks.schedule import Plan, plan
from stillhouse.blocks.seats import seats
from stillhouse.data.ahead import ahead
from stillhouse.data.batch import Batch
from stillhouse.foundation import errors
from stillhouse.foundation.block_events import (
    BlocksPlanned,
    BlockWorker,
    BlockWorkersAwaited,
    BlockWorkersLost,
    PlanMeasured,
    ReplacementTrained,
)
from stillhouse.foundation.cpu_time import cores
from stillhouse.foundation.errors import DivergedError, FleetError, Interrupted, StillhouseError
from stillhouse.foundation.events import Warned
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.weights import weights_bytes
from stillhouse.recipe.architectures import ModelSection
from stillhouse.recipe.load import dump
from stillhouse.recipe.recipe import DataSection, DigitsSource, Recipe
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.blockwise.bench import Diverged, Done, Errand, Key
from stillhouse.runner.blockwise.profile import Profile, mean_of, times_of
from stillhouse.runner.blockwise.pulse import Pulse
from stillhouse.runner.blockwise.sweep import Course
from stillhouse.runner.blockwise.worker import attend
from stillhouse.runner.gathering import Kind, gathering
from stillhouse.runner.group import RESTARTS_MAX, Gathered, Patience
from stillhouse.runner.job import sight_job
from stillhouse.runner.shares import pack_share
from stillhouse.runtime.local.crew import Came, Gone, Said
from stillhouse.students.checkpoint import packed

WORKERS = Kind("stillhouse.runner.blockwise.worker", "worker", "fleet.block_workers", attend)

_STEPS_AHEAD = 2
_WORDS_S = 1.0
_NO_LINK = 1e12


def train_apart(errand: Errand, done: Done, diverged: Diverged) -> None:
    """Train all to their end in several processes, however many of them die on the way.

    Raises:
        Interrupted: a signal came; checkpoints were written.
        FleetError: workers died again and again without getting further.
        StillhouseError: what any worker raised.
    """
    most = errand.materials.recipe.fleet.block_workers
    wanted, futile, left = most, 0, dict(errand.modules)

    def warn(message: str) -> None:
        errand.emit(Warned(message))

    def check() -> None:
        errand.signals.check(f"in {errand.phase}")

    _warn_of_crowds(errand.materials.recipe, warn)
    with gathering(errand.materials.recipe, warn, check, WORKERS, (1, most)) as gather:
        while left:
            begun = _far(errand, left)
            several = min(wanted, len(left) * errand.section.train.accumulate)
            errand.emit(BlockWorkersAwaited(errand.phase, several))
            gathered = gather(several)
            try:
                with contextlib.closing(gathered.crew):
                    _Attempt(errand, gathered, left, done, diverged).run()
            except _LostError as lost:
                further = _far(errand, left) > begun
                futile = 0 if further else futile + 1
                wanted = most if further else max(wanted - 1, 1)
                errand.emit(BlockWorkersLost(errand.phase, lost.workers, lost.step, lost.why))
                if futile > RESTARTS_MAX:
                    raise FleetError(
                        f"{errand.phase}: the workers died {futile} times without getting any further, at last: "
                        f"{lost.why}; mend that, or say fleet.block_workers: 1, and go on with 'stillhouse resume'"
                    ) from None


def _warn_of_crowds(recipe: Recipe, warn: Callable[[str], None]) -> None:
    """Say so where workers of this machine are in each other's way."""
    workers, threads, here = recipe.fleet.block_workers, int(recipe.compute.threads), cores()
    if recipe.fleet.backend == "local" and recipe.compute.device == "cpu" and workers * threads > here > 1:
        fewer = f"a run with compute.threads: {max(here // workers, 1)} is faster (one that is begun keeps its own)"
        mend = fewer if workers <= here else f"--block-workers {here} is as fast"
        warn(f"{workers} workers with {threads} thread{'s' if threads > 1 else ''} each share {here} cores: {mend}")


def _far(errand: Errand, left: Mapping[Key, object]) -> tuple[int, int]:
    """How far all are, to be compared: replacements that need nothing more, then checkpoints' steps of the others."""
    newest = [errand.checkpoints(key).newest() for key in left]
    return -len(left), sum(int(each.stem.removeprefix("step-")) for each in newest if each is not None)


class _LostError(Exception):
    """A worker is gone, and with it the crew."""

    def __init__(self, why: str, workers: int, step: int) -> None:
        super().__init__(why)
        self.why, self.workers, self.step = why, workers, step


class _Attempt:
    """From checkpoints to the end, or to a death.

    Args:
        left: what is to be trained; what needs nothing more is taken out.
    """

    def __init__(
        self, errand: Errand, gathered: Gathered, left: dict[Key, nn.Module], done: Done, diverged: Diverged
    ) -> None:
        self._errand, self._left, self._done, self._diverged = errand, left, done, diverged
        self._crew, self._names, self._meeting = gathered
        self._stream = errand.stream
        self._steps = errand.section.train.epochs * self._stream.steps_per_epoch
        self._states = {key: errand.checkpoints(key).load() for key in left}
        self._first = min(state["step"] if state else 0 for state in self._states.values())
        last = max(at for at, block in enumerate(errand.blocks) if any(key[0] == block.name for key in left))
        self._blocks = [block.name for block in errand.blocks[: last + 1]]
        self._keys = [key for block in self._blocks for key in left if key[0] == block]
        self._ahead_max_bytes = errand.materials.recipe.data.ahead_max_mb * 2**20
        self._in = dict[str, tuple[str, int]]()
        self._reads = dict[str, str]()
        self._measured = dict[str, Mapping[str, Any]]()
        self._readers: list[str] = []
        self._took = dict[str, int]()
        self._ended = dict[str, Mapping[str, Any]]()
        self._sent: deque[tuple[int, int]] = deque()
        self._patience = Patience()
        self._stopping: int | None = None

    def run(self) -> None:
        """To the end."""
        errand = self._errand
        for said in (self._in, self._reads, self._measured):
            self._wait_for_all(said)
        self._course = Course(errand, self._first, self._stream.steps_per_epoch)
        planned = self._assign()
        unseen = all(self._reads[name] != "sent" for name in self._readers)
        made = ahead(self._stream.batches(self._first, self._steps, unseen=unseen), self._ahead_max_bytes)
        with contextlib.closing(made), self._told():
            self._feed(made)
        taken_s = [float(each["step_s"]) for each in self._ended.values() if each["how"] == "done"]
        if max(taken_s):
            errand.emit(PlanMeasured(errand.phase, planned.step_s, max(taken_s)))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """However it ends, say how busy the workers were to the last."""
        try:
            yield
        finally:
            if (told := self._pulse.rest()) is not None:
                self._errand.emit(told)

    def _wait_for_all(self, said: Mapping[str, object]) -> None:
        """Until every worker has said something."""
        while len(said) < len(self._names):
            self._hear(1.0)
            self._errand.signals.check(f"while the workers of {self._errand.phase} were starting")
            if self._patience.is_over(0):
                raise self._lost("the workers fell silent before they began")

    def _assign(self) -> Plan:
        """Plan, and tell every worker its part."""
        errand = self._errand
        profile = mean_of([Profile.from_json(each["profile"]) for each in self._measured.values()])
        links = [each["link_bytes_s"] for each in self._measured.values() if each["link_bytes_s"]]
        link_bytes_s = min(links, default=_NO_LINK)
        times = times_of(profile, self._blocks, self._keys)
        parts_max = errand.section.train.accumulate
        planned = plan(times, len(self._names), link_bytes_s, profile.load_s, parts_max, profile.input_bytes)
        own = seats(planned)
        offered = {block: [key for key in self._keys if key[0] == block] for block in self._blocks}
        workers = []
        groups = sorted({seat.mates for seat in own if len(seat.mates) > 1})
        for name, seat in itertools.zip_longest(self._names, own):
            keys = [offered[self._blocks[block]][which] for block, which in seat.own] if seat else []
            told_seat = {"do": "seat", "seat": dataclasses.asdict(seat) if seat else None}
            self._crew.send(name, {**told_seat, "keys": keys, "groups": groups})
            for key in keys:
                newest, state = errand.checkpoints(key).newest(), self._states[key]
                told = {"do": "checkpoint", "newest": newest.name if newest else ""}
                self._crew.send(name, told, packed(state) if state else b"")
            if seat is not None:
                self._took[name] = self._first - 1
                self._readers += [name] if seat.source is None else []
                ends = self._blocks[seat.first], self._blocks[seat.last]
                workers.append(BlockWorker(*self._in[name], *ends, tuple(keys)))
        self._states.clear()
        self._pulse = Pulse(errand.phase, list(self._took), self._first)
        load_s = round(profile.load_s, 6)
        relayed = any(seat.source is not None for seat in own)
        told_plan = (relayed, planned.step_s, planned.efficiency, link_bytes_s, load_s, tuple(workers))
        errand.emit(BlocksPlanned(errand.phase, self._first, *told_plan))
        return planned

    def _feed(self, made: Iterator[Batch]) -> None:
        number = self._first
        while len(self._ended) < len(self._names):
            room = number < self._steps and self._stopping is None and self._has_room(number)
            self._hear(0.0 if room else 1.0)
            if self._patience.is_over(min(self._took.values()) - self._first):
                raise self._lost("the workers fell silent in the middle of a step")
            if self._stopping is None and (signal := self._errand.signals.asked()) is not None:
                self._stopping = signal
                for name in self._readers:
                    self._crew.send(name, {"do": "stop", "signal": signal})
            elif room:
                self._hand_out(number, next(made))
                number += 1
        for name in self._names:
            self._crew.send(name, {"do": "dismiss"})
        stopped = [each for each in self._ended.values() if each["how"] == "Interrupted"]
        if stopped:
            step = min(self._took.values()) + 1
            where = f"at step {step} of {self._steps} of {self._errand.phase}"
            raise Interrupted(f"stopped {where}", int(stopped[0]["signal"]))

    def _has_room(self, number: int) -> bool:
        """Whether who makes batches may be given the keys of one more."""
        slowest = min(self._took[name] for name in self._readers)
        while self._sent and self._sent[0][0] <= slowest:
            self._sent.popleft()
        held = sum(size for _, size in self._sent)
        return number - slowest <= _STEPS_AHEAD or held < self._ahead_max_bytes

    def _hand_out(self, number: int, batch: Batch) -> None:
        total = 0
        for name in self._readers:
            nothing, pixels = Knowledge(batch.sample_ids, batch.views), self._reads[name] == "sent"
            forms, body = pack_share(batch, nothing, 0, len(batch), pixels=pixels)
            self._crew.send(name, {"do": "share", "number": number, "forms": forms}, body)
            total += len(body)
        self._sent.append((number, total))

    def _hear(self, timeout_s: float) -> None:
        heard = self._crew.poll(timeout_s)
        for at, news in enumerate(heard):
            self._patience.heard()
            if isinstance(news, Gone):
                if news.name not in self._ended:
                    gone = [each for each in heard[at:] if isinstance(each, Gone) and each.name not in self._ended]
                    raise self._lost(self._story(gone))
            elif isinstance(news, Came):
                self._in[news.name] = str(news.hello.get("host")), int(news.hello.get("pid") or 0)
                self._hand_over(news.name)
            else:
                self._understand(news)

    def _understand(self, news: Said) -> None:
        header, name = news.header, news.name
        key: Key = tuple(header.get("key", ()))
        match header["do"]:
            case "sees":
                self._reads[name] = str(header["reads"])
            case "measures":
                pass  # it lives
            case "measured":
                self._measured[name] = header
            case "took":
                self._took[name] = int(header["number"])
                if (told := self._pulse.took(name, self._took[name], float(header["busy_s"]))) is not None:
                    self._errand.emit(told)
                self._course.passed(min(self._took.values()) + 1)
            case "event":
                self._course.hear(ReplacementTrained(**header["values"]))
            case "checkpoint":
                self._errand.checkpoints(key).write(int(header["step"]), news.body)
            case "trained":
                self._done(key, bytes(news.body))
                self._leave(key)
            case "diverged":
                self._diverged(key, DivergedError(str(header["why"])))
                self._leave(key)
            case "ended":
                self._end(name, header)
            case said:
                raise FleetError(f"worker {name} says '{said}', which this run does not know")

    def _leave(self, key: Key) -> None:
        """Nothing is to be done about it any more in this phase."""
        del self._left[key]
        self._errand.checkpoints(key).clear()

    def _end(self, name: str, header: Mapping[str, Any]) -> None:
        how, why = header["how"], str(header.get("why", ""))
        if how in ("done", "Interrupted"):
            self._ended[name] = header
            return
        kind = getattr(errors, how, None)
        if isinstance(kind, type) and issubclass(kind, StillhouseError):
            raise kind(why)
        raise StillhouseError(f"{how}: {why}")

    def _hand_over(self, name: str) -> None:
        """Tell a worker that came what all are about, and all that it needs to measure."""
        errand, rank = self._errand, self._names.index(name)
        interface = errand.materials.interface
        job = {
            "do": "job",
            "recipe": dump(_bare(errand)),
            "phase": errand.phase,
            "rank": rank,
            "size": len(self._names),
            "meeting": self._meeting,
            "first": self._first,
            "steps": self._steps,
            "steps_per_epoch": self._stream.steps_per_epoch,
            "samples": len(errand.materials.data.labels),
            "shape": interface.shape,
            "image": interface.image,
            "classes": interface.classes,
            "blocks": len(self._blocks),
            "keys": self._keys,
            "checkpoints": str(errand.folder.checkpoints(errand.phase)),
        }
        self._crew.send(name, job)
        self._crew.send(name, {"do": "sight"}, json.dumps(sight_job(errand.materials).as_json()).encode())
        self._crew.send(name, {"do": "teacher"}, weights_bytes(errand.teacher))
        for key in self._keys:
            self._crew.send(name, {"do": "initial"}, weights_bytes(self._left[key]))

    def _lost(self, why: str) -> _LostError:
        return _LostError(why, len(self._names), max([*self._took.values(), self._first - 1]) + 1)

    def _story(self, first: Sequence[Gone]) -> str:
        """Who is gone, and why: of several that went together the one that was killed, or else those seen first."""
        found, until_s = list(first), time.monotonic() + _WORDS_S
        while time.monotonic() < until_s and len(found) < len(self._names):
            found += [each for each in self._crew.poll(0.1) if isinstance(each, Gone)]
        killed = [each for each in found if each.why.startswith("killed")]
        chosen = killed[:1] or [each for each in first if each.why == first[0].why]
        who = " and ".join(str(place) for place in sorted(self._names.index(each.name) + 1 for each in chosen))
        return f"worker{'s' if len(chosen) > 1 else ''} {who} of {len(self._names)}: {chosen[0].why}"


def _bare(errand: Errand) -> Recipe:
    """The recipe with this training's settings, and without files that a worker need not have."""
    recipe = errand.materials.recipe
    teacher = recipe.teacher.with_models(ModelSection.without_weights).model_copy(update={"train": TrainSection()})
    data = DataSection(source=DigitsSource(kind="digits"), ahead_max_mb=recipe.data.ahead_max_mb)
    return recipe.model_copy(update={"teacher": teacher, "data": data, "blockwise": errand.section})
