"""The search itself: one trial after the other, each as far as it deserves, by the answers of one label store.

What is done next follows from what the record holds (``study.rungs``, ``study.sampling``), so a search that was stopped
goes on as if it had not been; what a trial was trained stands in its checkpoints, one at least each epoch.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from stillhouse.foundation.errors import ModelError, RecipeError
from stillhouse.foundation.events import Event, PhaseStarted, Progress, Warned
from stillhouse.foundation.garbage import unswept
from stillhouse.foundation.search_events import OUTDONE, SearchMeasured, TrialBegun, TrialEnded, TrialReached
from stillhouse.foundation.seeding import subseed
from stillhouse.models.graphs.widths import BetweenError
from stillhouse.models.network import Network
from stillhouse.models.weights import weights_digest
from stillhouse.recipe.search import Range, SearchSection
from stillhouse.runner.energy import meter_of, metered
from stillhouse.runner.gathering import Kind, standing
from stillhouse.runner.materials import Materials
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.search.candidate import Limits, has_members, limits_of, with_defaults
from stillhouse.runner.search.enough import BEYOND, SHORT, common, may_begin, worth_little
from stillhouse.runner.search.members import Members
from stillhouse.runner.search.pace import Pace
from stillhouse.runner.search.task import (
    UNTRAINABLE,
    Emit,
    Here,
    Outcome,
    Place,
    Setting,
    Task,
    checkpoints_of,
    phase_of,
    refuse_others,
)
from stillhouse.runner.search.teachings import Teachings
from stillhouse.runner.search.worker import attend
from stillhouse.runner.search.workers import TrialWorkers
from stillhouse.runner.signals import Signals
from stillhouse.runner.teaching import Teaching
from stillhouse.study.record import FILE, Record, Trial, best_points
from stillhouse.study.rungs import Job, Standing, next_job
from stillhouse.study.sampling import Proposal, Seen, drawn, importances, proposed, subseed_of
from stillhouse.study.space import Point, brought, corners, points_in, space_of

SEARCH = "search"
WORKERS = Kind("stillhouse.runner.search.worker", "trial-worker", "fleet.trial_workers", attend)
_EARLIER = 3
_DRAWS = 50
_POINTS = 1000


@dataclass
class _UnderWay:
    """A trial on its way to a rung: how many of its members are, and those that came there."""

    members: int
    ended: list[Outcome] = field(default_factory=list)


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
    emit: Emit
    signals: Signals
    _samples: int = field(default=0, init=False)
    _queue: deque[Task] = field(default_factory=deque, init=False)
    _under_way: dict[int, _UnderWay] = field(default_factory=dict, init=False)
    _since: dict[str, int] = field(default_factory=dict, init=False)  # samples of each member since its last rung

    def trials(self) -> list[Trial]:
        """Search to the end: all trials. Those that were not among the best may still go on, until :meth:`close`.

        Raises:
            Interrupted: a signal came; what was done so far stands in the record and in checkpoints.
            RecipeError: trial after trial failed, or no network meets the budget.
        """
        if not (known := self.record.trials()) or self.following(known) is not None:  # else a process before did all
            with metered(meter_of(self.materials.recipe), SEARCH, self.emit) as tell:
                begun, train = self._pace.trained(known), self.materials.recipe.student.train
                self._samples = begun * train.batch_size
                tell(PhaseStarted(SEARCH, begun, max(begun + 1, self._pace.steps), train.batch_size))
                with self.place(tell) as place:
                    self._search(place, tell)
        found = self.record.trials()
        self.emit(SearchMeasured(importances(self.space, [_seen(each) for each in found])))
        if not any(len(each.values) == len(self.rungs) for each in found):
            raise RecipeError(f"search: no trial came to its end: {common(found)}")
        labels = self.materials.data.labels[self.materials.data.splits.validation]
        for each in worth_little(found, self._section, labels):
            self._warn(each)
        return found

    def close(self) -> None:
        """The search is over: no trial goes on any more."""
        for each in self.record.trials():
            self._clear(each.number)
        self.record.close()

    @contextlib.contextmanager
    def place(self, tell: Emit) -> Iterator[Place]:
        """Where trials are trained."""

        def retold(event: Event) -> None:
            self._retold(event, tell)

        if self.materials.recipe.fleet.trial_workers == 1:
            with unswept():
                yield Here(self._setting, tell, retold)
            return
        with self.workers(tell, retold) as place:
            yield place

    @contextlib.contextmanager
    def workers(self, tell: Emit, retold: Emit) -> Iterator[TrialWorkers]:
        """Processes that train; to be closed.

        Args:
            tell: takes the run's events.
            retold: takes those of a task's training.
        """
        with standing(self.materials.recipe, self._warn, lambda: self.signals.check(f"in {SEARCH}"), WORKERS) as crew:
            yield TrialWorkers(self.materials, self._setting, crew, tell, retold)

    @property
    def _setting(self) -> Setting:
        return Setting(self.folder, self.teacher, self.teachings, self.signals)

    def _search(self, place: Place, tell: Emit) -> None:
        """Give whoever is free something to do, until there is nothing more to do."""
        with contextlib.closing(place):
            done = False  # nothing to do before something ends
            while True:
                while not done and place.has_room():
                    if (task := self._task(tell)) is None:
                        done = True
                    else:
                        place.give(task)
                if not self._under_way and (done or self.following(self.record.trials()) is None):
                    return
                for outcome in place.ended():
                    self._settle(outcome, tell)
                    done = False

    def _warn(self, message: str) -> None:
        self.emit(Warned(message))

    @cached_property
    def record(self) -> Record:
        """What is known of all trials.

        Raises:
            RunDirError: it can't be read, or trials of which it knows nothing have left checkpoints.
        """
        section = self._section
        identity = {
            "teacher": weights_digest(self.teacher),
            "data": self.materials.data.survey.digest,
            "seed": self.materials.recipe.seed,
            "search": section.model_dump(mode="json", exclude={"trials"}),
        }
        known = Record(self.folder.path / FILE, self.rungs, self.space, identity)
        if not known.trials():
            refuse_others(self.folder)
        return known

    @cached_property
    def space(self) -> dict[str, Range]:
        """What varies."""
        return space_of(self.materials.recipe)

    @cached_property
    def _points(self) -> list[Point] | None:
        """All trials there can be; None where they are many, or points have members."""
        recipe = self.materials.recipe
        families = any(has_members(recipe, each) for each in corners(self.space, recipe))
        found = None if families else points_in(self.space, recipe, max(_POINTS, 2 * self._section.trials))
        return None if found is None else list(found)

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """Epochs of each."""
        return self._section.epochs(self.materials.recipe.student.train.epochs)

    @cached_property
    def teachings(self) -> Teachings:
        """Who answers trials; to be closed."""
        return Teachings(self.materials, self.folder, self.teacher, self.teaching, self.emit, self.signals)

    @cached_property
    def limits(self) -> Limits:
        """What a student may cost."""
        return limits_of(self.materials.networks, self.teacher)

    @cached_property
    def members(self) -> Members:
        """What its families consist of."""
        return Members(self.materials, self.limits, self.rungs[-1], self.record)

    @property
    def _section(self) -> SearchSection:
        assert self.materials.recipe.search is not None
        return self.materials.recipe.search

    @property
    def _pace(self) -> Pace:
        return Pace(self.materials, self._section, self.rungs)

    def following(self, trials: list[Trial]) -> Job | None:
        """What to do next, of what is known; None: nothing before something ends.

        Raises:
            RecipeError: as :func:`may_begin`.
        """
        section = self._section
        standings = [Standing(each.number, each.values, not each.open) for each in trials]
        most = may_begin(trials, section)
        if self._points is not None and not self._untried(trials):
            most = 0
        return next_job(standings, self._under_way.keys(), most, len(self.rungs), section.reduction)

    def _task(self, tell: Emit) -> Task | None:
        """What to do next; None where nothing is to be done before something ends or, if nothing is under way, at all.

        Raises:
            RecipeError: trial after trial failed, or no network meets the budget.
        """
        while not self._queue:
            job = self.following(self.record.trials())
            if job is None:
                return None
            if self._under_way and self.signals.asked() is not None:
                return None  # whoever trains hears of it, and leaves a checkpoint
            self.signals.check("between trials of the search")
            self._begin(job, tell)
        return self._queue.popleft()

    def _begin(self, job: Job, tell: Emit) -> None:
        """Queue what a job asks for; a trial that is not allowed, or can't be built, ends here."""
        number = job.trial
        if number is None:
            found = self._unlike(self.proposal())
            number = self.record.begin(found.point, found.own, found.shared)
        trial = self.record.trials()[number]
        told = bool(trial.costs)
        try:
            beyond = dict(trial.beyond)
            if not told:
                costs, beyond, graphs = self.members.costs(trial)
                tell(TrialBegun(number, trial.point, costs, graphs))
                told = True
                self.record.cost(number, costs, beyond)
            if over := {name: share for name, share in beyond.items() if share > 0}:
                beyond_by = ", ".join(f"{name} by {100 * share:.0f} %" for name, share in over.items())
                self._end(number, f"{BEYOND}: {beyond_by}", tell, failed=False)
                return
            tasks = self._tasks(trial, job.rung)
        except UNTRAINABLE as error:
            if not told:
                tell(TrialBegun(number, trial.point, {}))
            short = isinstance(error, BetweenError)
            self._end(number, f"{SHORT}: {error}" if short else str(error), tell, failed=not short)
            return
        self._queue += tasks
        self._under_way[number] = _UnderWay(len(tasks))

    def _tasks(self, trial: Trial, rung: int) -> list[Task]:
        """One for each member of a trial that is compared at a rung; those that can't be built, or cost too much, are
        left out.
        """
        found, refused = list[Task](), list[ModelError]()
        for member in range(self._section.members if rung == len(self.rungs) - 1 else 1):
            try:
                made = self.members.of(trial.point, trial.number, member)
                task = Task(trial.number, member, rung, self.rungs[rung], made)
                if member == 0 or task.begun(self.folder) or self.members.within(made):
                    found.append(task)
            except ModelError as error:
                refused.append(error)
        if not found:
            raise refused[0]
        return found

    def _settle(self, outcome: Outcome, tell: Emit) -> None:
        """A member was trained; when all of the trial's were, the trial has reached the rung, or failed."""
        number, rung = outcome.task.trial, outcome.task.rung
        under_way = self._under_way[number]
        under_way.ended.append(outcome)
        if outcome.accuracy is None:  # the others of it need not be begun
            waiting = [each for each in self._queue if each.trial == number]
            self._queue = deque(each for each in self._queue if each.trial != number)
            under_way.members -= len(waiting)
        if len(under_way.ended) < under_way.members:
            return
        del self._under_way[number]
        ended = sorted(under_way.ended, key=lambda each: each.task.member)
        failed = [each for each in ended if each.accuracy is None]
        if failed:
            self._end(number, failed[0].why.partition(". ")[0], tell, failed=True)
            return
        values = [each.accuracy for each in ended if each.accuracy is not None]
        before = self.rungs[rung - 1] if rung else 0
        epochs = len(values) * self.rungs[rung] - before
        seconds = round(sum(each.seconds for each in ended), 3)
        # Told first: what a kill leaves out of the record is done and told again.
        tell(TrialReached(number, rung, self.rungs[rung], tuple(values), epochs, seconds))
        self.record.reach(number, rung, values)
        for each in ended:
            self._since.pop(each.task.phase, None)

    def proposal(self) -> Proposal:
        """The next point: first the recipe's own and those of searches before, then by the sampler, some at random."""
        trials, recipe, section = self.record.trials(), self.materials.recipe, self._section
        seed = subseed_of(recipe, len(trials))
        if len(trials) < len(first := self._first):
            usual = with_defaults(recipe)
            return Proposal(brought(self.space, usual, first[len(trials)], drawn(self.space, recipe, seed)), {}, {})
        if subseed(seed, "random") % 1000 < 1000 * section.random:
            return Proposal(drawn(self.space, recipe, seed), {}, {})
        seen = [_seen(each) for each in trials]
        return proposed(self.space, recipe, seen, section.sampler, seed, self.record.shared)

    def _untried(self, trials: Sequence[Trial]) -> list[Point]:
        """Of a space of which all points are known, those that are no trial's."""
        tried = [dict(each.point) for each in trials]
        return [each for each in self._points or () if each not in tried]

    def _unlike(self, found: Proposal) -> Proposal:
        """A proposal that is no trial's network once more, as far as there is one."""
        trials, recipe = self.record.trials(), self.materials.recipe
        seed = subseed_of(recipe, len(trials))
        for draw in range(_DRAWS):
            if has_members(recipe, found.point) or all(each.point != found.point for each in trials):
                return found
            found = Proposal(drawn(self.space, recipe, subseed(seed, "again", draw)), {}, {})
        if others := self._untried(trials):
            return Proposal(dict(others[subseed(seed, "others") % len(others)]), {}, {})
        return found

    @cached_property
    def _first(self) -> list[Point]:
        """The recipe's own point, then the best of searches before."""

        def made() -> list[Point]:
            if self._section.random == 1 and not self._section.after:
                return []
            earlier = [best_points(Path(each) / FILE, _EARLIER) for each in self._section.after]
            return [{}, *(each for points in earlier for each in points)]

        return self.record.first(made)

    def _end(self, number: int, why: str, tell: Emit, *, failed: bool) -> None:
        lost = sum(self._since.pop(phase_of(number, member), 0) for member in range(self._section.members))
        tell(TrialEnded(number, why, failed, round(self._pace.epochs(lost), 3)))
        self.record.end(number, why, failed=failed)
        self._clear(number)

    def _retold(self, event: Event, tell: Emit) -> None:
        """Of a trial's own events only its progress counts, as the search's."""
        if isinstance(event, Progress):
            self._samples += event.samples
            self._since[event.phase] = self._since.get(event.phase, 0) + event.samples
            step = self._samples // self.materials.recipe.student.train.batch_size
            tell(replace(event, phase=SEARCH, step=step, epoch=self._pace.epochs(self._samples)))

    def _clear(self, trial: int) -> None:
        """Delete a trial's checkpoints."""
        for member in range(self._section.members):
            checkpoints_of(self.materials, self.folder, phase_of(trial, member)).clear()


def _seen(trial: Trial) -> Seen:
    return Seen(trial.point, trial.values, trial.beyond, trial.why not in ("", OUTDONE), trial.own)
