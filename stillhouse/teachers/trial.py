"""The fastest faithful engine for a teacher, found by trying on the first views.

Not every combination: eager engines first, which cost little; then the best layout of each precision compiled, ONNX
Runtime, and other batch sizes for the best so far; each only where what it may win on the views still to be asked is
worth its time (``models.trials.pays``). An engine that fails, strays from fp32 or is not steady is refused, and the
table says why. While eager engines are timed against each other, copies of the weights for each lie in memory.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.network import Network
from stillhouse.models.trials import (
    Chosen,
    Ledger,
    Tried,
    compile_guess_s,
    gain_wanted,
    interleaved_s,
    pays,
    reason,
    row_of,
    seconds_of,
    trial_key,
    without_trace,
)
from stillhouse.recipe.engines import TeacherEngineSection
from stillhouse.teachers.engine import Teacher
from stillhouse.teachers.fidelity import Fidelity, as_batch, cycled, measure_fidelity

_SIZES = (64, 128, 256, 512)
_EAGER_ROUNDS, _ROUNDS = 5, 9
_HOPED_EAGER, _HOPED_COMPILED, _HOPED_ONNX, _HOPED_SIZE = 1.5, 1.5, 2.0, 1.15
_ONNX_GUESS_S = 10.0
_GAIN_MIN = 1.03


def choose_teacher_engine(
    network: Network,
    ask: Ask,
    device: torch.device,
    wanted: TeacherEngineSection,
    samples: torch.Tensor,
    divergence_max: float,
    work_views: int,
    multiple_of: int,
    tell: Callable[[Tried], None] = lambda row: None,
    check: Callable[[], None] = lambda: None,
) -> Chosen[TeacherEngineSection]:
    """Settle what is ``auto``; what is fixed stays. Where nothing better is found: fp32, contiguous, eager, torch.

    Threads are torch's own number at the time. Leaves the network and the process's generators as they were.

    Args:
        samples: raw views [N, *shape] as the teacher will be asked.
        divergence_max: of an automatic engine: mean KL from fp32 in nats, and relative squared error of activations.
        work_views: views that will be asked in all.
        multiple_of: the student's batch; batch sizes that divide it or are multiples of it come first.
        tell: takes each engine when it was tried, and at last the chosen one again, with ``chosen``.
        check: called between two engines; ends the trial by what it raises.

    Raises:
        ModelError: the question names a module that the network does not have, or the network can't be copied.
    """
    if wanted.settled:
        return Chosen(wanted)
    with without_trace(device):
        trial = _Trial(network, ask, device, wanted, samples, divergence_max, work_views, multiple_of, tell, check)
        return trial.run()


@dataclass
class _Candidate:
    """An engine that answers.

    Attributes:
        row: of the table; an engine with a reason for refusal in it is not taken.
        faithful: whether its answers are near those of fp32.
        view_s: seconds for a view, once timed.
    """

    engine: TeacherEngineSection
    teacher: Teacher
    row: Tried
    faithful: bool
    view_s: float = 0.0

    @property
    def allowed(self) -> bool:
        return not self.row.refused


class _Trial:
    def __init__(
        self,
        network: Network,
        ask: Ask,
        device: torch.device,
        wanted: TeacherEngineSection,
        samples: torch.Tensor,
        divergence_max: float,
        work_views: int,
        multiple_of: int,
        tell: Callable[[Tried], None],
        check: Callable[[], None],
    ) -> None:
        self.network, self.ask, self.device, self.wanted = network, ask, device, wanted
        self.samples, self.divergence_max, self.work = samples.to(device), divergence_max, work_views
        self.sizes = _sizes(wanted, multiple_of)
        base = min(self.sizes, key=lambda size: abs(size - 128))
        self.reference = TeacherEngineSection(batch_size=base)
        self.expected: Knowledge | None = None
        self.compile_s = compile_guess_s(network)
        self.compile_gain = _HOPED_COMPILED
        self.best: _Candidate | None = None
        work = work_views.bit_length() // 2  # within a factor of four, the same choice
        form = [list(samples.shape[1:]), str(samples.dtype)]
        key = trial_key("teacher", network, device, wanted, form, ask.digest, self.sizes, divergence_max, work)
        self.ledger = Ledger(wanted, self.reference, key, tell, check)

    def run(self) -> Chosen[TeacherEngineSection]:
        """The whole trial."""
        Teacher(self.network, self.ask, self.device, self.reference).close()  # what is wrong with it is told, not tried
        reference = self.open(self.reference)
        if reference is None or self.expected is None:
            return self.ledger.nothing_better()
        if (found := self.remembered()) is not None:
            return found
        scouts = self.eager(reference)
        self.compiled(scouts)
        self.onnx(reference)
        self.other_sizes()
        if self.best is None:
            return self.ledger.nothing_better()
        return self.ledger.close(self.best.engine, self.best.row)

    def eager(self, reference: _Candidate) -> list[_Candidate]:
        """Time the eager engines against each other; those that answer well, the fastest first."""
        micro_s = seconds_of(lambda: reference.teacher.answer(as_batch(self.micro(self.reference))), self.device)
        reference.view_s = micro_s / self.size(self.reference)
        engines = [] if self.wanted.runtime == "onnx" else list(self.eager_engines())
        micro_batches = len(self.samples) // self.size(self.reference) + _EAGER_ROUNDS + 4
        cost_s = micro_batches * micro_s * len(engines)
        if not pays(cost_s, self.rest_s(reference), _HOPED_EAGER):
            for engine in engines:
                self.ledger.skip(engine, f"{self.rest_s(reference):.2g} s of work are too few for a trial")
            engines = []
        scouts = [reference, *(each for each in map(self.open, engines) if each is not None)]
        named = {str(number): self.asker(each) for number, each in enumerate(scouts)}
        timed = interleaved_s(named, self.device, _EAGER_ROUNDS if len(scouts) > 1 else 1, self.ledger.check)
        for number, scout in enumerate(scouts):
            scout.view_s = timed[str(number)] / self.size(scout.engine)
            self.enter(scout)
        return sorted(scouts, key=lambda each: each.view_s)

    def compiled(self, scouts: list[_Candidate]) -> None:
        """Compile the best layout of each precision, where it can pay."""
        if self.wanted.compile is False or self.wanted.runtime == "onnx":
            return
        seen: set[str] = set()
        for scout in scouts:
            engine = scout.engine.model_copy(update={"compile": True})
            if engine.precision in seen or not scout.faithful or not self.ledger.fits(engine):
                continue
            seen.add(engine.precision)
            if self.best is not None:
                gain = self.best.view_s * self.compile_gain / scout.view_s
                if not self.worth(engine, self.best, 2 * self.compile_s, gain):
                    continue
            found = self.race(engine, scout)
            if found is not None:
                self.compile_s = found.row.first_call_s or self.compile_s
                self.compile_gain = scout.view_s / found.view_s

    def onnx(self, reference: _Candidate) -> None:
        """Try ONNX Runtime, where it is installed, may be taken and can pay."""
        engine = self.reference.model_copy(update={"runtime": "onnx"})
        installed = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
        if self.device.type != "cpu" or self.ask.features or not installed or not self.ledger.fits(engine):
            return
        if self.best is not None:
            gain = self.best.view_s * _HOPED_ONNX / reference.view_s
            if not self.worth(engine, self.best, 2 * _ONNX_GUESS_S, gain):
                return
        self.race(engine, reference)

    def other_sizes(self) -> None:
        """Climb to larger batches while that pays, else to smaller ones."""
        if self.best is None:
            return
        start = self.sizes.index(self.size(self.best.engine))
        for sizes in (self.sizes[start + 1 :], self.sizes[:start][::-1]):
            before = self.best
            for size in sizes:
                engine = self.best.engine.model_copy(update={"batch_size": size})
                again_s = self.best.row.first_call_s or 0.0
                cost_s = 2 * again_s + (_ROUNDS + 4) * 2 * max(size, self.size(self.best.engine)) * self.best.view_s
                if not self.worth(engine, self.best, cost_s, _HOPED_SIZE):
                    return
                standing = self.best
                if self.race(engine, standing) is None or self.best is standing:
                    break
            if self.best is not before:
                return

    def race(self, engine: TeacherEngineSection, rival: _Candidate) -> _Candidate | None:
        """Open an engine and time it against one that is timed already; None where it fails."""
        found = self.open(engine)
        if found is None:
            return None
        if not found.allowed:
            self.enter(found)
            return None
        rival = self.best or rival
        askers = {"this": self.asker(found), "rival": self.asker(rival)}
        timed = interleaved_s(askers, self.device, _ROUNDS, self.ledger.check)
        ratio = (timed["this"] / self.size(engine)) / (timed["rival"] / self.size(rival.engine))
        found.view_s = rival.view_s * ratio
        self.enter(found, _GAIN_MIN)
        return found

    def open(self, engine: TeacherEngineSection) -> _Candidate | None:
        """Build an engine, let it answer, compare; a row of the table says why where it can't."""
        self.ledger.check()
        try:
            teacher = Teacher(self.network, self.ask, self.device, engine)
            first_s = seconds_of(lambda: teacher.answer(as_batch(self.micro(engine))), self.device)
            found = measure_fidelity(teacher, self.samples, self.size(engine), self.expected)
            if self.expected is None and found.finite:
                self.expected = teacher.answer(as_batch(self.samples))
        except Exception as error:  # no compiler, no memory, an operator without bf16: anything, and none ends the run
            self.ledger.note(row_of(engine, refused=reason(error)))
            return None
        faithful = not found.strays(self.divergence_max)
        return _Candidate(engine, teacher, self.row(engine, first_s, found), faithful)

    def row(self, engine: TeacherEngineSection, first_s: float, found: Fidelity) -> Tried:
        """The table's row, not timed yet."""
        refused = found.strays(self.divergence_max)
        if not refused and not self.ledger.fits(engine):
            refused = "only to compare with: the recipe fixes other settings"
        if not refused and not found.steady:
            refused = "not steady: a view's answer depends on its place among others"
        return replace(
            row_of(engine, refused),
            first_call_s=first_s,
            kl=found.kl,
            agreement=found.agreement,
            feature_error=found.feature_error,
            steady=found.steady,
        )

    def enter(self, candidate: _Candidate, gain_min: float = 1.0) -> None:
        """Put a measured engine into the table, and in front where it will be done first."""
        if candidate.view_s:
            candidate.row = replace(candidate.row, samples_per_s=1 / candidate.view_s)
        self.ledger.note(candidate.row)
        if candidate.allowed and (self.best is None or self.wins(candidate, self.best, gain_min)):
            self.best = candidate

    def wins(self, candidate: _Candidate, best: _Candidate, gain_min: float) -> bool:
        """Whether all views are answered sooner, by more than timing can't tell."""
        gain = max(gain_min, gain_wanted(candidate.engine, best.engine))
        return self.rest_s(candidate) * gain < self.rest_s(best)

    def rest_s(self, candidate: _Candidate) -> float:
        """Seconds for all views, getting ready included."""
        return self.work * candidate.view_s + (candidate.row.first_call_s or 0.0)

    def worth(self, engine: TeacherEngineSection, best: _Candidate, cost_s: float, gain: float) -> bool:
        """Whether to try an engine that may be ``gain`` times as fast as the best."""
        return self.ledger.worth(engine, best.row, self.work * best.view_s, cost_s, gain)

    def remembered(self) -> Chosen[TeacherEngineSection] | None:
        """What an earlier trial found, if it is still faithful with these weights."""
        found = self.ledger.recalled()
        candidate = None if found is None else self.open(found[0])
        if found is None or candidate is None:
            return None
        if candidate.allowed:
            candidate.row = replace(candidate.row, samples_per_s=found[1])
        self.ledger.note(candidate.row)
        return self.ledger.close(candidate.engine, candidate.row, remembered=True) if candidate.allowed else None

    def eager_engines(self) -> Iterator[TeacherEngineSection]:
        """Every precision in every layout that may be taken, except the reference."""
        precisions = ["fp32", "bf16", *(["fp16"] if self.device.type == "cuda" else [])]
        layouts = [False, True] if self.samples.ndim == 4 else [False]
        for precision, layout in itertools.product(precisions, layouts):
            values: dict[str, Any] = {"precision": precision, "channels_last": layout}
            engine = self.reference.model_copy(update=values)
            kept = {"compile": self.wanted.compile, "runtime": self.wanted.runtime}
            if engine != self.reference and self.ledger.fits(engine.model_copy(update=kept)):
                yield engine

    def micro(self, engine: TeacherEngineSection) -> torch.Tensor:
        """One micro-batch of views."""
        return cycled(self.samples, self.size(engine))

    def asker(self, candidate: _Candidate) -> Callable[[], object]:
        """A call that answers one micro-batch."""
        batch = as_batch(self.micro(candidate.engine))
        return lambda: candidate.teacher.answer(batch)

    @staticmethod
    def size(engine: TeacherEngineSection) -> int:
        """Rows of a micro-batch."""
        assert isinstance(engine.batch_size, int)
        return engine.batch_size


def _sizes(wanted: TeacherEngineSection, multiple_of: int) -> tuple[int, ...]:
    """Batch sizes to try, ascending: those that go well with the student's, or all where none does."""
    if isinstance(wanted.batch_size, int):
        return (wanted.batch_size,)
    good = tuple(each for each in _SIZES if each % multiple_of == 0 or multiple_of % each == 0)
    return good or _SIZES
