"""The trials of a study, kept by Optuna: its dashboards and its other tools read the same file.

A trial is ``RUNNING`` there as long as it may go on, with its value after as many epochs as each rung has; what Optuna
has no word for (the point itself, the members, the costs) stands in its attributes. Nothing is held in memory between
calls: a process that is killed leaves what it told.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, OperationalError

from stillhouse.foundation.errors import RecipeError, RunDirError, StillhouseError
from stillhouse.foundation.search_events import OUTDONE
from stillhouse.recipe.load import differences
from stillhouse.recipe.search import Range, SearchSection
from stillhouse.study.sampling import distribution, plain
from stillhouse.study.space import Point

FILE = "search.db"
"""Its name in the folder of a run."""

_NAME = "search"
_POINT, _MEMBERS, _COSTS, _WHY, _IDENTITY = "point", "members", "costs", "why", "identity"
_MODEL = "model"
_FIRST, _OWN, _SHARED = "first", "own", "shared"
_LOCKED_S = 30


@dataclass(frozen=True)
class Trial:
    """What is known of a trial.

    Attributes:
        values: at each rung that it has reached: validation accuracy, of several members the mean.
        members: at the highest rung, each member's value.
        costs: measured, by measure.
        beyond: by how much it is beyond each limit, as a share of it.
        why: why it ended early; empty where it did not.
        open: whether it may go on.
        own: what the sampler remembered of it.
    """

    number: int
    point: Point
    values: tuple[float, ...] = ()
    members: tuple[float, ...] = ()
    costs: Mapping[str, float] = field(default_factory=dict)
    beyond: Mapping[str, float] = field(default_factory=dict)
    why: str = ""
    open: bool = True
    own: Mapping[str, Any] = field(default_factory=dict)


class Record:
    """A study in a file.

    Args:
        path: made if it is not there.
        rungs: epochs of each.
        space: what varies.
        identity: what trials have in common and must have, to be compared: plain values.

    Raises:
        RunDirError: the file is damaged or locked, of another Optuna, or its trials are of something else.
    """

    def __init__(
        self, path: Path, rungs: Sequence[int], space: Mapping[str, Range], identity: Mapping[str, Any]
    ) -> None:
        self._path, self._rungs, self._space = path, tuple(rungs), dict(space)
        with self._readable():
            try:
                self._study = optuna.create_study(
                    storage=_url(path), study_name=_NAME, direction="maximize", load_if_exists=True
                )
            except RuntimeError as error:  # tables of another version
                raise RunDirError(f"{path} can't be used by this Optuna: {error}") from error
            known = self._study.user_attrs.get(_IDENTITY)
            if known is None:
                self._study.set_user_attr(_IDENTITY, dict(identity))
            elif changed := differences(_with_new_keys(known), dict(identity)):
                told = "\n  ".join(changed)
                raise RunDirError(f"{path} holds trials of another search:\n  {told}")

    def first(self, make: Callable[[], Sequence[Point]]) -> list[Point]:
        """Points that are tried first; made once, and remembered with the trials."""
        with self._readable():
            if _FIRST not in self._study.user_attrs:
                self._study.set_user_attr(_FIRST, [dict(each) for each in make()])
            found: list[Point] = self._study.user_attrs[_FIRST]
            return found

    def trials(self) -> list[Trial]:
        """All, in the order in which they were begun."""
        with self._readable():
            found = self._study.get_trials(deepcopy=False)
            return [self._read(each) for each in sorted(found, key=lambda trial: trial.number)]

    @property
    def shared(self) -> Mapping[str, Any]:
        """What the sampler remembered of the study."""
        with self._readable():
            trials = sorted(self._study.get_trials(deepcopy=False), key=lambda trial: -trial.number)
            told = (each.user_attrs[_SHARED] for each in trials if _SHARED in each.user_attrs)
            return next(told, {})

    def begin(self, point: Point, own: Mapping[str, Any] | None = None, shared: Mapping[str, Any] | None = None) -> int:
        """Note a new trial; its number.

        Args:
            own, shared: what the sampler wants to remember of it, and of the study.
        """
        with self._readable():
            params = plain(point, self._space)
            kinds = {key: distribution(self._space[key]) for key in params}
            number = len(self._study.get_trials(deepcopy=False))
            remembered = {_OWN: own, _SHARED: shared}
            attributes = {_POINT: dict(point), **{key: dict(each) for key, each in remembered.items() if each}}
            self._study.add_trial(
                create_trial(state=TrialState.RUNNING, params=params, distributions=kinds, user_attrs=attributes)
            )
            return number

    def cost(self, number: int, costs: Mapping[str, float], beyond: Mapping[str, float]) -> None:
        """Note what a trial's network costs, and by how much that is beyond each limit."""
        with self._readable():
            # In one write: half of it would make a trial legal that is not.
            self._set(number, {_COSTS: {"costs": dict(costs), "beyond": dict(beyond)}})

    def model(self, number: int, member: int) -> dict[str, Any] | None:
        """Options of the network that a trial's member is, if that was noted."""
        with self._readable():
            found: dict[str, Any] | None = self._study.user_attrs.get(f"{_MODEL}-{number}-{member}")
            return found

    def keep_model(self, number: int, member: int, options: Mapping[str, Any]) -> None:
        """Note what the network of a trial's member is."""
        with self._readable():
            # Of the study: members are drawn of trials that are over, too, and those take none any more.
            self._study.set_user_attr(f"{_MODEL}-{number}-{member}", dict(options))

    def reach(self, number: int, rung: int, members: Sequence[float]) -> None:
        """Note a trial's value at a rung: the mean of its members'."""
        value = sum(members) / len(members)
        with self._readable():
            self._set(number, {_MEMBERS: list(members)})
            self._trial(number).report(value, self._rungs[rung])
            if rung == len(self._rungs) - 1:
                self._study.tell(number, value)

    def end(self, number: int, why: str, *, failed: bool) -> None:
        """Note that a trial does not go on: it failed, or was not among the best, or is not allowed."""
        with self._readable():
            self._set(number, {_WHY: why})
            self._study.tell(number, state=TrialState.FAIL if failed else TrialState.PRUNED)

    def close(self) -> None:
        """The search is over: what was not among the best is told so; no trial is left running."""
        for each in self.trials():
            if each.open and len(each.values) == len(self._rungs):  # a kill came between its value and its end
                with self._readable():
                    self._study.tell(each.number, each.values[-1])
            elif each.open:
                self.end(each.number, OUTDONE, failed=False)

    def _trial(self, number: int) -> optuna.Trial:
        """A trial that runs, in this process or in one before."""
        # Not by its place among all trials: those are cached, in an order of their own.
        storage = self._study._storage
        return optuna.Trial(self._study, storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number))

    def _set(self, number: int, values: Mapping[str, Any]) -> None:
        trial = self._trial(number)
        for key, value in values.items():
            trial.set_user_attr(key, value)

    def _read(self, trial: FrozenTrial) -> Trial:
        attributes = trial.user_attrs
        values = [trial.intermediate_values[epochs] for epochs in self._rungs if epochs in trial.intermediate_values]
        return Trial(
            trial.number,
            _point(self._path, trial),
            tuple(values),
            tuple(attributes.get(_MEMBERS, ())),
            attributes.get(_COSTS, {}).get("costs", {}),
            attributes.get(_COSTS, {}).get("beyond", {}),
            attributes.get(_WHY, ""),
            trial.state == TrialState.RUNNING,
            attributes.get(_OWN, {}),
        )

    def _readable(self) -> contextlib.AbstractContextManager[None]:
        return _readable(self._path)


def _point(path: Path, trial: FrozenTrial) -> Point:
    """What a trial tries.

    Raises:
        RunDirError: it is no trial of a search of ours.
    """
    if _POINT not in trial.user_attrs:
        raise RunDirError(f"{path} holds no search of Stillhouse: its trial {trial.number} does not say what it tries")
    found: Point = trial.user_attrs[_POINT]
    return found


def _with_new_keys(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What a search was, with the defaults of settings that its Stillhouse did not know yet."""
    try:
        section = SearchSection.model_validate(identity["search"])
    except (KeyError, ValueError):  # what it says is none any more: the differences tell
        return dict(identity)
    return {**identity, "search": section.model_dump(mode="json", exclude={"trials"})}


def best_points(path: Path, count: int) -> list[Point]:
    """The points of a study's best trials: those that were trained longest first, and of these the best.

    Args:
        path: of a file that a :class:`Record` made.

    Raises:
        RunDirError: the file is not there, damaged or locked, or another's study.
    """
    if not path.exists():
        raise RunDirError(f"{path.parent} holds no search: there is no {path.name}")
    with _readable(path):
        try:
            study = optuna.load_study(storage=_url(path), study_name=_NAME)
        except (KeyError, RuntimeError) as error:
            raise RunDirError(f"{path} holds no search that can be read: {error}") from error
        trained = [each for each in study.get_trials(deepcopy=False) if each.intermediate_values]
        trained.sort(key=lambda each: (max(each.intermediate_values.items()), -each.number), reverse=True)
        return [_point(path, each) for each in trained[:count]]


def check_earlier(folders: Sequence[str]) -> None:
    """Look whether the searches whose points are to be tried first can be read.

    Raises:
        RecipeError: one can't.
    """
    for number, each in enumerate(folders):
        try:
            best_points(Path(each) / FILE, 1)
        except RunDirError as error:
            raise RecipeError(f"search.after.{number}: {error}") from error


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Optuna is silent; a file that can't be used is told in our words."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except StillhouseError:
        raise
    except OperationalError as error:
        if "locked" in str(error):
            raise RunDirError(f"{path} is locked by another program for {_LOCKED_S} s: end that one") from error
        raise RunDirError(f"{path} can't be used: {error.orig}") from error
    except (DatabaseError, StorageInternalError, json.JSONDecodeError) as error:
        why = getattr(error, "orig", error)
        raise RunDirError(
            f"{path} is damaged ({why}): move it away, with checkpoints/ and finalists/ beside it, and "
            "the search begins again, with the labels stored"
        ) from error
    finally:
        optuna.logging.set_verbosity(before)


def _url(path: Path) -> str:
    """Where Optuna finds the file, whatever characters are in its name."""
    query = {"timeout": str(_LOCKED_S)}
    return URL.create("sqlite", database=str(path.absolute()), query=query).render_as_string(hide_password=False)
