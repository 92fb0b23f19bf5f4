"""The trainings of a run, one after the other: teacher, students, controls.

A phase is done when its weights are there (their checksum was written before); a run taken up again skips it, and
continues the one that has checkpoints. Its network is always the one read back from that file: a network fresh from
training may lie in memory otherwise (channels last), answer differently in the last bit, and so tell a run that was
stopped from one that was not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from stillhouse.foundation.errors import DivergedError
from stillhouse.foundation.events import Evaluated, Event, PhaseStarted, Warned
from stillhouse.foundation.files import sha256, sha256_file, write_atomic
from stillhouse.foundation.seeding import subseed
from stillhouse.knowledge.source import KnowledgeSource, NoKnowledge
from stillhouse.models.network import Network
from stillhouse.models.weights import load_into, read_weights, weights_bytes
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.control import control_settings
from stillhouse.runner.course import course_of
from stillhouse.runner.energy import meter_of, metered
from stillhouse.runner.gathering import gathering
from stillhouse.runner.group import train_together
from stillhouse.runner.materials import Materials
from stillhouse.runner.networks import objective_of
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.signals import Signals
from stillhouse.runner.teaching import Teaching
from stillhouse.students.checkpoint import Checkpoints
from stillhouse.students.evaluate import Evaluation, evaluate
from stillhouse.students.fit import FitContext, fit
from stillhouse.students.objective import LABELS_ONLY, Objective, StepObjective


@dataclass(frozen=True)
class Trainer:
    """Trains a phase to its weights file."""

    materials: Materials
    folder: RunDir
    emit: Callable[[Event], None]
    signals: Signals

    def teacher(self) -> Network:
        """The trained teacher: as given, or trained now. Several are trained one after the other, then joined."""
        section, networks = self.materials.recipe.teacher, self.materials.networks
        made = {phase: make() for phase, make in networks.teachers().items()}
        if section.train is not None:
            objective = Objective(LABELS_ONLY, section.train.label_smoothing)
            for number, (phase, network) in enumerate(made.items()):
                made[phase] = self.train(phase, network, NoKnowledge(), objective, section.train, number)
        teacher = networks.joined(list(made.values())).to(self.materials.device)
        if section.members:
            self._keep("teacher", teacher)
        return teacher if section.train is not None and not section.members else self.given(teacher)

    def given(self, teacher: Network) -> Network:
        """A teacher as it stands, given or joined: say how good it is, and warn where it knows next to nothing."""
        with metered(meter_of(self.materials.recipe), "teacher", self.emit) as tell:
            tell(PhaseStarted("teacher"))
            found, classes = self.validate(teacher), self.materials.interface.classes
            tell(Evaluated("teacher", 0, 0.0, "validation", found.accuracy, found.loss))
        if found.accuracy < 2 / classes:
            right = f"{100 * found.accuracy:.1f} % of the validation samples right, of {classes} classes"
            doubt = "was it trained to see what its model.normalise says (auto: the data's own mean and deviation)?"
            self.emit(Warned(f"the teacher gets {right}: {doubt}"))
        return teacher

    def student(self, number: int, teacher: Network, teaching: Teaching | None) -> Network:
        """A distilled student; number 0 is the one delivered.

        One that is made of the teacher's blocks is fine-tuned, and stays as it was where that does no good.
        """
        settings, network = self.materials.recipe.student.train, self.materials.networks.student(number)
        objective = objective_of(self.materials.networks, network, teacher, number)
        source: KnowledgeSource = NoKnowledge() if teaching is None else teaching.source()
        phase = student_phase(number)
        if self.materials.recipe.blockwise is None:
            return self.train(phase, network, source, objective, settings, number, several=True)
        start = copy.deepcopy(network).to(self.materials.device)
        before = self.validate(start)
        try:
            tuned = self.train(phase, network, source, objective, settings, number, several=True)
        except DivergedError as error:
            why = str(error).partition(". ")[0]
        else:
            after = self.validate(tuned)
            if after.accuracy >= before.accuracy:
                return tuned
            shares = f"{100 * after.accuracy:.1f} % of the validation samples right, of {100 * before.accuracy:.1f} %"
            why = f"{phase}: fine-tuning left {shares}"
        self.warn(f"{why}; the student stays as it was before: try a lower student.train.optimizer.learning_rate")
        self.emit(Evaluated(phase, 0, 0.0, "validation", before.accuracy, before.loss))
        self._keep(phase, start, anew=True)
        return self.train(phase, start, source, objective, settings, number)  # which is done: that only reads it

    def control(self, number: int) -> Network | None:
        """The same student, from the same weights, in the same order, without the teacher; None where it diverges.

        Where the student is made of the teacher's blocks it begins with initial ones, and trains for as many epochs as
        blocks, calibration and student together (:func:`control_settings`).
        """
        settings = control_settings(self.materials.recipe)
        objective = Objective(LABELS_ONLY, settings.label_smoothing)
        network = self.materials.networks.untaught(number)
        try:
            return self.train(f"control-{number}", network, NoKnowledge(), objective, settings, number)
        except DivergedError as error:  # what is delivered is there; only nobody knows whether it helped
            self.warn(f"{str(error).partition('. ')[0]}; for a control of its own rate say control.optimizer")
            return None

    def train(
        self,
        phase: str,
        network: Network,
        source: KnowledgeSource,
        objective: StepObjective,
        settings: TrainSection,
        seed_number: int,
        *,
        several: bool = False,
    ) -> Network:
        """Train unless the phase is done; gives ``network`` the phase's weights.

        Args:
            several: whether by as many students as the recipe says.
        """
        self.signals.check(f"before {phase}")
        weights, keep = PhaseWeights(self.folder.weights(phase)), self.materials.recipe.checkpoint
        checkpoints = Checkpoints(self.folder.checkpoints(phase), phase, keep.every_s, keep.keep, self.emit)
        if weights.damaged():
            self.emit(Warned(f"{weights.path} was damaged on disk: {phase} is trained again"))
            weights.remove()
        if not weights.done():
            with metered(meter_of(self.materials.recipe), phase, self.emit) as tell:
                context = self.context(phase, checkpoints, tell)
                stream = self.materials.stream(settings, seed_number)
                if several and self.materials.recipe.fleet.students_range[1] > 1:
                    assert isinstance(objective, Objective)
                    course = course_of(self.materials, network, objective, source, stream, context, checkpoints)
                    with gathering(course.recipe, self.warn, lambda: self.signals.check(f"in {phase}")) as gather:
                        weights.write(train_together(course, gather))
                else:
                    result = fit(copy.deepcopy(network), source, stream, objective, settings, context)
                    weights.write(weights_bytes(result))
        checkpoints.clear()
        load_into(network, read_weights(weights.path), str(weights.path))
        return network.to(self.materials.device)

    def _keep(self, phase: str, network: Network, *, anew: bool = False) -> None:
        """Write weights that no training did: what a worker on another machine may be given."""
        weights = PhaseWeights(self.folder.weights(phase))
        if anew or not weights.done() or weights.damaged():
            weights.write(weights_bytes(network))

    def warn(self, message: str) -> None:
        """Tell a person something."""
        self.emit(Warned(message))

    def context(self, phase: str, checkpoints: Checkpoints, emit: Callable[[Event], None]) -> FitContext:
        """What surrounds the training of a phase, whose events go to ``emit``."""
        return FitContext(
            phase=phase,
            seed=subseed(self.materials.recipe.seed, phase, "steps"),
            device=self.materials.device,
            emit=emit,
            checkpoints=checkpoints,
            evaluate=self.validate,
            interrupted=self.signals.asked,
            ahead_max_bytes=self.materials.recipe.data.ahead_max_mb * 2**20,
        )

    def validate(self, network: nn.Module) -> Evaluation:
        """Accuracy on the validation split."""
        return evaluate(network, self.materials.validation(), self.materials.device)


@dataclass(frozen=True)
class PhaseWeights:
    """A phase's weights file, there once the phase is done, with its checksum beside it, written before."""

    path: Path

    @property
    def checksum(self) -> Path:
        """The file of the checksum."""
        return self.path.with_suffix(".sha256")

    def done(self) -> bool:
        """Whether the weights are there."""
        return self.path.exists()

    def damaged(self) -> bool:
        """Whether the weights are there and don't fit their checksum."""
        if not self.done():
            return False
        return not self.checksum.exists() or sha256_file(self.path) != self.checksum.read_text().strip()

    def write(self, data: bytes) -> None:
        """Write both, the weights last."""
        write_atomic(self.checksum, sha256(data) + "\n")
        write_atomic(self.path, data)

    def remove(self) -> None:
        """Remove both, the weights first."""
        self.path.unlink(missing_ok=True)
        self.checksum.unlink(missing_ok=True)


def student_phase(number: int) -> str:
    """``student`` for the one delivered, ``student-1`` and on for its twins."""
    return "student" if number == 0 else f"student-{number}"
