"""The fastest faithful engine for a training's step, found by a few steps of the training itself.

Every candidate begins with the same weights and takes the same steps on the same batches through the loop that will run
in earnest; the losses must stay near those of fp32. They train at a constant 0.3 of the training's learning rate, or of
the optimiser's default where that is lower: fast enough that a wrong gradient shows in ten losses (by some 10 %), slow
enough that rounding does not grow into another trajectory (bf16: 0.06 %, measured on a ResNet).
Candidates step in turns, so that a machine that slows down slows all alike. Cheap ones first; compiling only where the
steps still to be taken can repay it (``models.trials.pays``). Memory: a network and its optimiser for each engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch

from stillhouse.data.batch import Batch
from stillhouse.data.stream import Stream
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.knowledge.source import NoKnowledge
from stillhouse.models.network import Network
from stillhouse.models.taps import Taps
from stillhouse.models.trials import (
    Chosen,
    Ledger,
    Tried,
    compile_guess_s,
    gain_wanted,
    pays,
    reason,
    row_of,
    seconds_of,
    trial_key,
    typical_s,
    without_trace,
)
from stillhouse.recipe.engines import StepEngineSection
from stillhouse.recipe.train import TrainSection
from stillhouse.students.fit import FitContext, Loop
from stillhouse.students.objective import StepObjective

_STEPS, _WARM_UPS = 10, 3
_RATE = 0.3
_HOPED = 1.5
_REFERENCE = StepEngineSection()


def choose_step_engine(
    make: Callable[[], Network],
    objective_of: Callable[[Network], StepObjective],
    batches: Sequence[tuple[Batch, Knowledge]],
    settings: TrainSection,
    steps: int,
    device: torch.device,
    tell: Callable[[Tried], None] = lambda row: None,
    check: Callable[[], None] = lambda: None,
) -> Chosen[StepEngineSection]:
    """Settle what is ``auto`` in ``settings.engine``; what is fixed stays. Where nothing better is found: fp32.

    Threads are torch's own number at the time. The process's generators are afterwards as they were.

    Args:
        make: a network of the training, with the same weights each time; it is trained and thrown away.
        objective_of: its loss, likewise the same each time; from labels alone, too.
        batches: of the training, with what its objective asks; ten are best, fewer are used again and again.
        steps: of the whole training.
        tell: takes each engine when it was tried, and at last the chosen one again, with ``chosen``.
        check: called between two engines' steps; ends the trial by what it raises.
    """
    if settings.engine.settled:
        return Chosen(settings.engine)
    with without_trace(device):
        return _Trial(make, objective_of, batches, settings, steps, device, tell, check).run()


class _Pace:
    """Stands where the loop expects a stream, of which it asks no batches here: only when an epoch ends, never."""

    steps_per_epoch = 10**9

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size


@dataclass
class _Candidate:
    """An engine in training.

    Attributes:
        row: of the table; an engine with a reason for refusal in it is not taken.
        losses, seconds: of each step so far.
        step_s: typical seconds of a step, once timed.
    """

    engine: StepEngineSection
    loop: Loop
    taps: Taps
    row: Tried
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    step_s: float = 0.0

    @property
    def newest_s(self) -> float:
        """Typical seconds of the newest steps, the first few of a trial left out."""
        return typical_s(self.seconds[_WARM_UPS - _STEPS :])


class _Trial:
    def __init__(
        self,
        make: Callable[[], Network],
        objective_of: Callable[[Network], StepObjective],
        batches: Sequence[tuple[Batch, Knowledge]],
        settings: TrainSection,
        steps: int,
        device: torch.device,
        tell: Callable[[Tried], None],
        check: Callable[[], None],
    ) -> None:
        self.make, self.objective_of, self.batches, self.steps, self.device = make, objective_of, batches, steps, device
        self.settings = settings
        self.reference: _Candidate | None = None
        self.best: _Candidate | None = None
        network, inputs = make(), batches[0][0].inputs
        self.image = inputs.ndim == 4
        self.compile_s, self.compile_gain = 2 * compile_guess_s(network), _HOPED  # forward and backward
        work = steps.bit_length() // 2  # within a factor of four, the same choice
        values = settings.model_dump(mode="json", include={"accumulate", "optimizer", "ema_decay", "loss_tolerance"})
        objective = repr(objective_of(network))
        asked = (list(inputs.shape), str(inputs.dtype), values, objective, work)
        key = trial_key("step", network, device, settings.engine, *asked)
        self.ledger = Ledger(settings.engine, _REFERENCE, key, tell, check)

    def run(self) -> Chosen[StepEngineSection]:
        """The whole trial."""
        if (found := self.remembered()) is not None:
            return found
        self.compiled(self.eager())
        if self.best is None:
            return self.ledger.nothing_better()
        return self.ledger.close(self.best.engine, self.best.row)

    def eager(self) -> list[_Candidate]:
        """Train with every eager engine, in turns; those that train as fp32 does, the fastest first."""
        engines = list(self.eager_engines())
        if not pays(_STEPS * len(engines), self.steps, _HOPED):  # in steps
            for engine in engines:
                self.ledger.skip(engine, f"{self.steps} steps are too few for a trial")
            engines = []
        candidates = self.trained([_REFERENCE, *engines])
        for each in candidates:
            each.step_s = each.newest_s
        return sorted((each for each in candidates if self.enter(each)), key=lambda each: each.step_s)

    def compiled(self, scouts: list[_Candidate]) -> None:
        """Compile the best layout of each precision, where it can pay."""
        if self.settings.engine.compile is False:
            return
        seen: set[str] = set()
        for scout in scouts:
            engine = scout.engine.model_copy(update={"compile": True})
            if engine.precision in seen or not self.ledger.fits(engine):
                continue
            seen.add(engine.precision)
            rival = self.best or scout
            if self.best is not None:
                gain, rest_s = self.best.step_s * self.compile_gain / scout.step_s, self.steps * self.best.step_s
                if not self.ledger.worth(engine, self.best.row, rest_s, 2 * self.compile_s, gain):
                    continue
            for found in self.trained([engine], rival):
                found.step_s = rival.step_s * found.newest_s / rival.newest_s
                self.compile_s = found.seconds[0]
                self.compile_gain = scout.step_s / found.step_s
                self.enter(found)

    def trained(self, engines: Sequence[StepEngineSection], rival: _Candidate | None = None) -> list[_Candidate]:
        """Take the steps, in turns with each other and with a rival that goes on; those that got through."""
        alive = [each for each in map(self.open, engines) if each is not None]
        for _ in range(_STEPS):
            alive = [each for each in alive if self.step(each)]
            if rival is not None and alive:
                self.step(rival)
        for each in alive:
            if each.engine == _REFERENCE:
                self.reference = each
        return alive

    def open(self, engine: StepEngineSection) -> _Candidate | None:
        """The training's loop on a fresh network; a row of the table says why where that fails."""
        optimizer = self.settings.optimizer
        usual = type(optimizer).model_fields["learning_rate"].default
        slow = optimizer.model_copy(update={"learning_rate": _RATE * min(optimizer.learning_rate, usual)})
        settings = self.settings.model_copy(
            update={"engine": engine, "optimizer": slow, "epochs": 1, "warmup_epochs": 0.0}
        )
        try:
            network = self.make()
            objective = self.objective_of(network)
            pace = cast(Stream, _Pace(settings.batch_size))
            context = FitContext("engine trial", 0, self.device, emit=lambda event: None)
            loop = Loop(network, NoKnowledge(), pace, objective, settings, context)
            network.train()
            return _Candidate(engine, loop, Taps(network, objective.student_taps), row_of(engine))
        except Exception as error:  # no memory, mostly; none ends the run
            self.ledger.note(row_of(engine, refused=reason(error)))
            return None

    def step(self, candidate: _Candidate) -> bool:
        """One more step; false, and a row of the table, where it failed."""
        self.ledger.check()
        batch, knowledge = self.batches[len(candidate.losses) % len(self.batches)]
        loop = candidate.loop
        try:
            seconds = seconds_of(lambda: loop.step(batch, knowledge, candidate.taps), self.device)
            candidate.losses.append(loop.losses["total"].item() / self.settings.accumulate)
            loop.losses.clear()
            loop.guard.settle()
        except Exception as error:  # no compiler, no memory, a loss that is not finite: anything, and none ends the run
            self.ledger.note(row_of(candidate.engine, refused=reason(error)))
            return False
        candidate.seconds.append(seconds)
        return True

    def enter(self, candidate: _Candidate) -> bool:
        """Put a trained engine into the table, and in front where it will be done first; whether it is faithful."""
        error = self.loss_error(candidate)
        refused = ""
        if not error <= self.settings.loss_tolerance:
            refused = f"its losses differ from fp32 by {error:.2g}, more than loss_tolerance"
        elif not self.ledger.fits(candidate.engine):
            refused = "only to compare with: the recipe fixes other settings"
        candidate.row = replace(
            candidate.row,
            samples_per_s=len(self.batches[0][0]) / candidate.step_s,
            first_call_s=candidate.seconds[0],
            loss_error=None if candidate is self.reference else error,
            refused=refused,
        )
        self.ledger.note(candidate.row)
        if not refused and (self.best is None or self.wins(candidate, self.best)):
            self.best = candidate
        return error <= self.settings.loss_tolerance

    def wins(self, candidate: _Candidate, best: _Candidate) -> bool:
        """Whether the training ends sooner, by more than timing can't tell."""
        return self.rest_s(candidate) * gain_wanted(candidate.engine, best.engine) < self.rest_s(best)

    def loss_error(self, candidate: _Candidate) -> float:
        """Largest relative difference from the reference's losses; without a reference nothing is near."""
        if self.reference is None:
            return float("inf")
        pairs = list(zip(candidate.losses, self.reference.losses, strict=False))[:_STEPS]
        return max(abs(loss - expected) / max(abs(expected), 1e-12) for loss, expected in pairs)

    def rest_s(self, candidate: _Candidate) -> float:
        """Seconds for all steps, compiling included."""
        return self.steps * candidate.step_s + candidate.seconds[0]

    def remembered(self) -> Chosen[StepEngineSection] | None:
        """What an earlier trial found, if it still trains as fp32 does."""
        found = self.ledger.recalled()
        if found is None:
            return None
        candidates = self.trained(list(dict.fromkeys([_REFERENCE, found[0]])))
        candidate = next((each for each in candidates if each.engine == found[0]), None)
        if candidate is None:
            return None
        error = self.loss_error(candidate)
        faithful = error <= self.settings.loss_tolerance
        refused = "" if faithful else "remembered, but its losses differ from fp32 now"
        row = replace(candidate.row, samples_per_s=found[1], loss_error=error, refused=refused)
        self.ledger.note(row)
        return self.ledger.close(candidate.engine, row, remembered=True) if faithful else None

    def eager_engines(self) -> Iterator[StepEngineSection]:
        """Every precision in every layout that may be taken, except the reference."""
        precisions = ["fp32", "bf16", *(["fp16"] if self.device.type == "cuda" else [])]
        layouts = [False, True] if self.image else [False]
        kept = {"compile": self.settings.engine.compile}
        for precision, layout in itertools.product(precisions, layouts):
            engine = _REFERENCE.model_copy(update={"precision": precision, "channels_last": layout})
            if engine != _REFERENCE and self.ledger.fits(engine.model_copy(update=kept)):
                yield engine
