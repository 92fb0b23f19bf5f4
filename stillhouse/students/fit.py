"""The one training loop: of a teacher, a student, a control, and later of blocks and search trials.

What differs is passed in. Same recipe, same bits: a step's batch, knowledge, learning rate and random numbers
depend on its number alone, so that a training continued from a checkpoint ends in the same weights, and one by several
students (``students.group``) in those of one alone.
Order of a step's end: evaluation, progress, checkpoint; a crash between them repeats work and loses none.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from stillhouse.data.ahead import ahead
from stillhouse.data.batch import Batch
from stillhouse.data.stream import Stream
from stillhouse.foundation.clock import Stopwatch
from stillhouse.foundation.errors import Interrupted, StillhouseError
from stillhouse.foundation.events import Evaluated, Event, PhaseStarted, Progress
from stillhouse.foundation.files import sha256
from stillhouse.foundation.seeding import subseed
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.knowledge.source import KnowledgeSource
from stillhouse.models.compiled import compiled
from stillhouse.models.network import Network
from stillhouse.models.placement import autocast, seed_device
from stillhouse.models.taps import Taps
from stillhouse.models.weights import weights_bytes
from stillhouse.recipe.train import TrainSection
from stillhouse.students.checkpoint import Keeper
from stillhouse.students.evaluate import Evaluation
from stillhouse.students.group import Alone, Group
from stillhouse.students.guard import LossGuard
from stillhouse.students.micro import MicroBatches
from stillhouse.students.objective import StepObjective
from stillhouse.students.optimizer import learning_rate
from stillhouse.students.state import TrainingState


@dataclass(frozen=True)
class FitContext:
    """What surrounds a training.

    Attributes:
        phase: its name in events and messages.
        seed: fixes dropout and the like.
        device: where it runs.
        emit: takes events.
        checkpoints: where it can be continued from; None: it can't.
        evaluate: called at each epoch's end on the network so far; None: never.
        interrupted: the number of a signal that asks to stop, or None; looked at after each step. A source that
            waits may end its waiting with Interrupted.
        progress_every_s: seconds between progress events (each epoch's end has one anyway).
        ahead_max_bytes: batches made ahead of the step, in the background; 0: each when it is needed.
        group: who trains along; the stream then gives this student's share of each batch.
        until_step: ends here, with a checkpoint, though the settings have more epochs; None: at their end.
        saves_epochs: whether each epoch's end has a checkpoint.
        averages: whether what comes of a training that ends early is an average over its last steps, while the rate
            is high: what it promises shows there.
    """

    phase: str
    seed: int
    device: torch.device
    emit: Callable[[Event], None]
    checkpoints: Keeper | None = None
    evaluate: Callable[[nn.Module], Evaluation] | None = None
    interrupted: Callable[[], int | None] = lambda: None
    progress_every_s: float = 1.0
    ahead_max_bytes: int = 0
    group: Group = field(default_factory=Alone)
    until_step: int | None = None
    saves_epochs: bool = False
    averages: bool = False


def fit(
    network: Network,
    source: KnowledgeSource,
    stream: Stream,
    objective: StepObjective,
    settings: TrainSection,
    context: FitContext,
) -> Network:
    """Train a network to the end of its epochs, or as far as the context says, from its newest good checkpoint.

    Args:
        network: trained in place.
        source: yields every batch of the stream with knowledge.
        stream: training batches by step.
        objective: the loss; its adapters are trained along.

    Returns:
        The network to use: ``network``, or its moving average where the settings or the context ask for one.

    Raises:
        DivergedError: the loss is NaN, infinite or exploded.
        Interrupted: a signal came; a checkpoint was written.
        StorageError: a checkpoint could not be written.
    """
    result = Loop(network, source, stream, objective, settings, context).run()
    assert isinstance(result, Network)
    return result


class Loop:
    """One training, step by step; :func:`fit` runs it to its end, a trial of engines a few steps of it."""

    def __init__(
        self,
        network: nn.Module,
        source: KnowledgeSource,
        stream: Stream,
        objective: StepObjective,
        settings: TrainSection,
        context: FitContext,
    ) -> None:
        self.source, self.stream, self.settings, self.context = source, stream, settings, context
        layout = torch.channels_last if settings.engine.channels_last else torch.contiguous_format
        network.to(device=context.device, memory_format=layout)  # type: ignore[call-overload]
        objective.to(context.device)
        self.state = TrainingState(network, objective, settings, context.device, averages=context.averages)
        saved = context.checkpoints.load() if context.checkpoints else None
        if saved is not None:
            self.state.load_state_dict(saved)
        self.steps = settings.epochs * stream.steps_per_epoch
        if context.until_step is not None:
            self.steps = min(self.steps, context.until_step)
        self.guard = LossGuard(context.phase, self.state, settings.loss_ratio_max, context.checkpoints)
        self.forward: Callable[[Tensor], Tensor] = network
        if settings.engine.compile:
            self.forward = compiled(network)
        self.watch = Stopwatch()
        self.losses: dict[str, Tensor] = {}
        self.seen = torch.empty(0, dtype=torch.int64)
        self.unsaid_steps = 0
        self.said_at = time.monotonic()

    def run(self) -> nn.Module:
        """All steps that are left."""
        state, context = self.state, self.context
        context.emit(PhaseStarted(context.phase, state.step, self.steps, self.stream.batch_size))
        if not self.source.ask.covers(state.objective.ask):
            raise StillhouseError(f"{context.phase}: the source answers {self.source.ask}, not {state.objective.ask}")
        state.network.train()
        self.source.waits(), self.source.counts()
        self.watch = Stopwatch()
        with contextlib.closing(Taps(state.network, state.objective.student_taps)) as taps:
            made = ahead(self.stream.batches(state.step, self.steps), context.ahead_max_bytes)
            answers = self.source.teach(made)
            with contextlib.closing(made), contextlib.closing(answers):  # type: ignore[type-var]
                for batch, knowledge in self.told(answers):
                    self.watch.lap("wait")
                    knowledge.check_aligned(batch)
                    self.step(batch, knowledge, taps)
                    self.after_step()
        at_the_end = state.step == self.settings.epochs * self.stream.steps_per_epoch
        return state.network if at_the_end and self.settings.ema_decay is None else state.result

    def told(self, answers: Iterator[tuple[Batch, Knowledge]]) -> Iterator[tuple[Batch, Knowledge]]:
        """What the source says; where a signal ended the waiting for it, what was learnt so far is saved."""
        try:
            yield from answers
        except Interrupted as stop:
            self.watch.lap("wait")
            if self.unsaid_steps:
                self.tell()
            self.save()
            where = f"at step {self.state.step} of {self.steps} of {self.context.phase}"
            raise Interrupted(f"{stop}, {where}", stop.exit_code - 128) from None

    def step(self, batch: Batch, knowledge: Knowledge, taps: Taps) -> None:
        """One optimiser step, over this student's share of ``accumulate`` micro-batches."""
        state, settings, group = self.state, self.settings, self.context.group
        device, count = self.context.device, settings.accumulate
        rate = learning_rate(settings, state.step, self.stream.steps_per_epoch)
        for each in state.optimizer.param_groups:
            each["lr"] = rate
        trainable = [parameter for each in state.optimizer.param_groups for parameter in each["params"]]
        names = ("total", *state.objective.part_names(partly=knowledge.known is not None))
        found = MicroBatches(group, trainable, (state.network, state.objective), names, count)
        share = group.share(count)
        size = len(batch) // len(share)
        whole, knowledge = batch.to(device), knowledge.to(device)
        for number in share:
            seed_device(subseed(self.context.seed, state.step * count + number), device)
            start = (number - share.start) * size
            micro, known = whole.part(start, start + size), knowledge.part(start, start + size)
            inputs = micro.inputs
            if settings.engine.channels_last and inputs.ndim == 4:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with autocast(settings.engine.precision, device):
                logits = self.forward(inputs)
            loss, parts = state.objective(logits, taps.read(), known, micro.targets, micro.partners, micro.shares)
            state.scaler.scale(loss / count).backward()
            found.put({"total": loss.detach(), **parts})
        step_loss = torch.zeros((), device=device)
        for losses in found.close():
            step_loss += losses["total"] / count
            self.note(losses)
        self.seen = group.gathered(torch.from_numpy(batch.sample_ids).view(len(share), size), count).flatten()
        if settings.clip_norm is not None:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(trainable, settings.clip_norm)
        self.guard.watch(state.step, self.seen, step_loss)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        if state.ema is not None:
            state.ema.add(state.step)
        state.step += 1
        self.unsaid_steps += 1

    def note(self, losses: dict[str, Tensor]) -> None:
        """Add to the sums that the next progress event averages."""
        for name, value in losses.items():
            self.losses[name] = self.losses[name] + value if name in self.losses else value

    def after_step(self) -> None:
        """Evaluate, tell, save, stop: each when it is time, and when one student says so all do."""
        state, context, watch = self.state, self.context, self.watch
        epoch_ends = state.step % self.stream.steps_per_epoch == 0
        due = context.checkpoints is not None and context.checkpoints.due()
        signal, wanted = context.group.largest([context.interrupted() or 0, int(due)])
        kept = wanted or signal or state.step == self.steps or (epoch_ends and context.saves_epochs)
        saves = context.checkpoints is not None and bool(kept)
        watch.lap("step")
        if epoch_ends and context.evaluate is not None:
            found = context.evaluate(state.result)
            epoch = state.step / self.stream.steps_per_epoch
            context.emit(Evaluated(context.phase, state.step, epoch, "validation", found.accuracy, found.loss))
            watch.lap("evaluate")
        if epoch_ends or saves or time.monotonic() - self.said_at >= context.progress_every_s:
            self.tell()
        if saves or state.step == self.steps:
            self.save()
        if signal and state.step < self.steps:
            raise Interrupted(f"stopped at step {state.step} of {self.steps} of {context.phase}", signal)

    def save(self) -> None:
        """Write a checkpoint, if there are any, of what is sound."""
        self.guard.settle()
        self.state.check_finite(self.context.phase, self.seen)
        self.check_same()
        if self.context.checkpoints is not None:
            self.context.checkpoints.save(self.state.step, self.state.state_dict())
            self.watch.lap("checkpoint")

    def check_same(self) -> None:
        """Refuse to go on with students that don't have the same weights any more.

        Raises:
            StillhouseError: they compute otherwise: unlike hardware, libraries or threads.
        """
        group = self.context.group
        if group.size == 1:
            return
        found = sha256(weights_bytes(self.state.network))
        parts = [int(found[start : start + 15], 16) for start in range(0, 60, 15)]
        largest = group.largest([*parts, *(-part for part in parts)])
        if largest != [*parts, *(-part for part in parts)]:
            raise StillhouseError(
                f"{self.context.phase}: after step {self.state.step} the students' weights differ, though all took the "
                "same steps: give every one the same kind of processor and the same versions, or train by one process "
                "(fleet.students or fleet.block_workers: 1)"
            )

    def tell(self) -> None:
        """Emit the progress since the last time."""
        state, micro_batches = self.state, self.unsaid_steps * self.settings.accumulate
        self.context.emit(
            Progress(
                phase=self.context.phase,
                step=state.step,
                epoch=state.step / self.stream.steps_per_epoch,
                losses={name: value.item() / micro_batches for name, value in self.losses.items()},
                learning_rate=learning_rate(self.settings, state.step - 1, self.stream.steps_per_epoch),
                seconds=self.take_seconds(),
                samples=self.unsaid_steps * self.stream.batch_size,
                counts=self.source.counts(),
            )
        )
        self.losses, self.unsaid_steps, self.said_at = {}, 0, time.monotonic()

    def take_seconds(self) -> dict[str, float]:
        """Where the time went since the last telling; what was no wait for knowledge was a wait for data."""
        seconds, waits = self.watch.take(), self.source.waits()
        waited = seconds.pop("wait", 0.0)
        return {"data": max(waited - sum(waits.values()), 0.0), **waits, **seconds}
