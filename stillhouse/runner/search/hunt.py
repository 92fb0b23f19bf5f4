"""The search itself: one trial after the other, each as far as it deserves, by the answers of one label store.

What is done next follows from what the record holds (``study.rungs``, ``study.sampling``), so a search that was stopped
goes on as if it had not been; what a trial was trained stands in its checkpoints, one at least each epoch.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from stillhouse.foundation.errors import DataError, DivergedError, ModelError, RecipeError
from stillhouse.foundation.events import Event, PhaseStarted, Progress
from stillhouse.foundation.search_events import SearchMeasured, TrialBegun, TrialEnded, TrialReached
from stillhouse.foundation.seeding import subseed
from stillhouse.knowledge.source import KnowledgeSource, NoKnowledge
from stillhouse.models.network import Network
from stillhouse.models.weights import weights_digest
from stillhouse.recipe.recipe import Recipe
from stillhouse.recipe.search import Range, SearchSection
from stillhouse.runner.energy import meter_of, metered
from stillhouse.runner.materials import Materials
from stillhouse.runner.networks import objective_of
from stillhouse.runner.phases import Trainer
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.search.candidate import Limits, candidate, costs_of, limits_of
from stillhouse.runner.signals import Signals
from stillhouse.runner.teaching import Teaching
from stillhouse.students.checkpoint import Checkpoints
from stillhouse.students.fit import fit
from stillhouse.study.record import Record, Trial
from stillhouse.study.rungs import Job, Standing, next_job
from stillhouse.study.sampling import Seen, drawn, importances, proposed, subseed_of
from stillhouse.study.space import Point

SEARCH = "search"
BEYOND = "beyond the budget"
_TOO_DEAR = 10
_VALUES = re.compile(r"/\S+|\d[\d.,]*(e[+-]?\d+)?")


@dataclass
class Hunt:
    """Tries points of a space.

    Attributes:
        teacher: trained; not changed.
        teaching: None where no objective asks anything.
    """

    materials: Materials
    folder: RunDir
    teacher: Network
    teaching: Teaching | None
    emit: Callable[[Event], None]
    signals: Signals
    _samples: int = field(default=0, init=False)
    _recipes: dict[tuple[int, int], Recipe] = field(default_factory=dict, init=False)

    def trials(self) -> list[Trial]:
        """Search to the end; all trials, each told how it ended.

        Raises:
            Interrupted: a signal came; what was done so far stands in the record and in checkpoints.
            RecipeError: trial after trial failed, or no network meets the budget.
        """
        record = self.record
        with metered(meter_of(self.materials.recipe), SEARCH, self.emit) as tell:
            begun, train = self._trained_so_far(record.trials()), self.materials.recipe.student.train
            self._samples = begun * train.batch_size
            tell(PhaseStarted(SEARCH, begun, self._steps, train.batch_size))
            while (job := self._next(record.trials())) is not None:
                self.signals.check("between trials of the search")
                self._do(job, tell)
            record.close()
            found = record.trials()
            tell(SearchMeasured(importances(self.space, [_seen(each) for each in found])))
        for each in found:
            for member in range(self._section.members):
                self._checkpoints(each.number, member).clear()
        if not any(len(each.values) == len(self.rungs) for each in found):
            raise RecipeError(f"search: no trial came to its end: {_common(found)}")
        return found

    @cached_property
    def record(self) -> Record:
        """What is known of all trials."""
        section = self._section
        identity = {
            "teacher": weights_digest(self.teacher),
            "data": self.materials.data.survey.digest,
            "seed": self.materials.recipe.seed,
            "search": section.model_dump(mode="json", exclude={"trials"}),
        }
        return Record(self.folder.path / "search.db", self.rungs, self.space, identity)

    @cached_property
    def space(self) -> dict[str, Range]:
        """What varies."""
        return self._section.space_of(self.materials.recipe.student.model.arch)

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """Epochs of each."""
        return self._section.epochs(self.materials.recipe.student.train.epochs)

    @cached_property
    def limits(self) -> Limits:
        """What a student may cost."""
        return limits_of(self.materials.networks, self.teacher)

    @property
    def _section(self) -> SearchSection:
        assert self.materials.recipe.search is not None
        return self.materials.recipe.search

    @property
    def _steps(self) -> int:
        """Steps of all trials together, as far as that can be foreseen."""
        section, stream = self._section, self.materials.stream(self.materials.recipe.student.train, 0)
        left, before, epochs = section.trials, 0, 0
        for rung, until in enumerate(self.rungs):
            top = rung == len(self.rungs) - 1
            epochs += left * (until - before) + (left * (section.members - 1) * until if top else 0)
            left, before = max(left // section.reduction, 1), until
        return epochs * stream.steps_per_epoch

    def _trained_so_far(self, trials: Sequence[Trial]) -> int:
        """Steps, as those are counted, that all trials together were trained."""
        epochs = 0
        for each in trials:
            reached = self.rungs[len(each.values) - 1] if each.values else 0
            epochs += reached * (len(each.members) if reached == self.rungs[-1] else 1)
        return epochs * self.materials.stream(self.materials.recipe.student.train, 0).steps_per_epoch

    def _next(self, trials: list[Trial]) -> Job | None:
        section = self._section
        standings = [Standing(each.number, each.values, not each.open) for each in trials]
        failures_max = section.failures_max
        tried = [each for each in trials if not each.why.startswith(BEYOND)]
        row = [each for each in tried[-failures_max:] if not each.values and not each.open]
        if len(row) == failures_max:
            raise RecipeError(f"search: {len(row)} trials in a row could not be trained: {_common(row)}")
        if len(trials) - len(tried) > _TOO_DEAR * section.trials:
            raise RecipeError(f"search.budget: {len(trials) - len(tried)} of {len(trials)} trials cost too much")
        return next_job(standings, (), section.trials, len(self.rungs), section.reduction)

    def _do(self, job: Job, tell: Callable[[Event], None]) -> None:
        number = job.trial
        if number is None:
            number = self.record.begin(self._proposed())
        trial = self.record.trials()[number]
        begun_s = time.monotonic()
        try:
            beyond = trial.beyond if trial.costs else self._measured(trial, tell)
            if over := {name: share for name, share in beyond.items() if share > 0}:
                told = ", ".join(f"{name} by {100 * share:.0f} %" for name, share in over.items())
                self._end(number, f"{BEYOND}: {told}", tell, failed=False)
                return
            several = self._section.members if job.rung == len(self.rungs) - 1 else 1
            values = [self._trained(trial, member, self.rungs[job.rung], tell) for member in range(several)]
        except (DivergedError, ModelError, RecipeError, DataError, torch.OutOfMemoryError) as error:
            self._end(number, str(error), tell, failed=True)
            return
        before = self.rungs[job.rung - 1] if job.rung else 0
        epochs = several * self.rungs[job.rung] - before
        seconds = round(time.monotonic() - begun_s, 3)
        # Told first: what a kill leaves out of the record is done and told again.
        tell(TrialReached(number, job.rung, self.rungs[job.rung], tuple(values), epochs, seconds))
        self.record.reach(number, job.rung, values)

    def _proposed(self) -> dict[str, Any]:
        """The next point: at random now and then, else by the sampler."""
        trials, recipe = self.record.trials(), self.materials.recipe
        seed = subseed_of(recipe.seed, len(trials))
        if subseed(seed, "random") % 1000 < 1000 * self._section.random:
            return drawn(self.space, recipe, seed)
        return proposed(self.space, recipe, [_seen(each) for each in trials], self._section.sampler, seed)

    def _measured(self, trial: Trial, tell: Callable[[Event], None]) -> Mapping[str, float]:
        """What a trial's network costs; by how much that is beyond each limit."""
        made = self.of(trial.point, trial.number, 0)
        costs = costs_of(made.networks.student(0), made.networks)
        beyond = self.limits.beyond(costs)
        tell(TrialBegun(trial.number, trial.point, costs))
        self.record.cost(trial.number, costs, beyond)
        return beyond

    def _end(self, number: int, why: str, tell: Callable[[Event], None], *, failed: bool) -> None:
        tell(TrialEnded(number, why, failed))
        self.record.end(number, why, failed=failed)
        for member in range(self._section.members):
            self._checkpoints(number, member).clear()

    def of(self, point: Point, trial: int, member: int, *, to_the_end: bool = False) -> Materials:
        """The materials of a trial's member, that is trained up to the highest rung or as long as the student."""
        if (trial, member) not in self._recipes:
            self._recipes[trial, member] = candidate(self.materials.networks, point, self.limits, trial, member)
        recipe = self._recipes[trial, member]
        if not to_the_end:
            train, epochs = recipe.student.train, self.rungs[-1]
            train = train.model_copy(update={"epochs": epochs, "warmup_epochs": min(train.warmup_epochs, epochs)})
            recipe = recipe.model_copy(update={"student": recipe.student.model_copy(update={"train": train})})
        networks = replace(self.materials.networks, recipe=recipe)
        return replace(self.materials, recipe=recipe, networks=networks)

    def _trained(self, trial: Trial, member: int, epochs: int, tell: Callable[[Event], None]) -> float:
        """Accuracy on the validation split of a trial's member, trained for so many epochs in all."""
        made = self.of(trial.point, trial.number, member)
        network, settings = made.networks.student(member), made.recipe.student.train
        objective = objective_of(made.networks, network, self.teacher, member)
        source: KnowledgeSource = NoKnowledge() if self.teaching is None else self.teaching.source()
        stream = made.stream(settings, 0)
        trainer = Trainer(made, self.folder, self.emit, self.signals)
        checkpoints = self._checkpoints(trial.number, member)
        context = replace(
            trainer.context(_phase(trial.number, member), checkpoints, lambda event: self._retold(event, tell)),
            evaluate=None,
            until_step=epochs * stream.steps_per_epoch,
            saves_epochs=True,
        )
        result = fit(network, source, stream, objective, settings, context)
        return trainer.validate(result).accuracy

    def _retold(self, event: Event, tell: Callable[[Event], None]) -> None:
        """Of a trial's own events only its progress counts, as the search's."""
        if isinstance(event, Progress):
            self._samples += event.samples
            train = self.materials.recipe.student.train
            step = self._samples // train.batch_size
            epoch = self._samples / (self.materials.stream(train, 0).steps_per_epoch * train.batch_size)
            tell(replace(event, phase=SEARCH, step=step, epoch=epoch))

    def _checkpoints(self, trial: int, member: int) -> Checkpoints:
        keep, phase = self.materials.recipe.checkpoint, _phase(trial, member)
        return Checkpoints(self.folder.checkpoints(phase), phase, keep.every_s, keep.keep, lambda event: None)


def _seen(trial: Trial) -> Seen:
    return Seen(trial.point, trial.values, trial.beyond, not trial.open)


def _phase(trial: int, member: int) -> str:
    return f"trial-{trial}-{member}"


def _common(trials: list[Trial]) -> str:
    """What most of them ended of."""
    whys = [each.why for each in trials if each.why]
    kinds = [_VALUES.sub("#", why) for why in whys]  # steps, losses and files differ
    if not kinds:
        return "nothing was tried"
    most = max(dict.fromkeys(kinds), key=kinds.count)
    return f"{whys[kinds.index(most)]} ({kinds.count(most)} of {len(trials)})"
