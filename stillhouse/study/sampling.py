"""What is tried next: a sampler of Optuna's, shown what is known at one rung.

Values of different rungs can't be compared: the sampler is shown what each trial's last value foretells of the highest
rung (``study.foretold``). It is made anew for each proposal, seeded by the trial's number, and given back what it
wanted to remember (Optuna's system attributes), so a proposal is a function of what is known: a study that was stopped
goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from stillhouse.foundation.errors import RecipeError, nearest
from stillhouse.foundation.seeding import subseed
from stillhouse.recipe.recipe import Recipe
from stillhouse.recipe.search import ChoiceSection, NumberSection, Range, RestSection, SamplerSection, in_order
from stillhouse.study.foretold import foretold
from stillhouse.study.space import Point, holds, rest

_SEEDS = 2**32
_ENOUGH = 8
_GP = "GPSampler"


@dataclass(frozen=True)
class Seen:
    """A trial, as the sampler is shown it.

    Attributes:
        values: at each rung that it has reached; more is better.
        beyond: by how much it is beyond each limit, as a share of it; at most 0 where it is within.
        failed: it could not be trained further, or is not allowed.
        own: what the sampler remembered of it.
    """

    point: Point
    values: tuple[float, ...] = ()
    beyond: Mapping[str, float] = field(default_factory=dict)
    failed: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)


class Proposal(NamedTuple):
    """A point, and what the sampler wants to remember of it and of the study, plain values."""

    point: dict[str, Any]
    own: dict[str, Any]
    shared: dict[str, Any]


def proposed(
    space: Mapping[str, Range],
    recipe: Recipe,
    seen: Sequence[Seen],
    section: SamplerSection,
    seed: int,
    shared: Mapping[str, Any] | None = None,
) -> Proposal:
    """The point of a new trial.

    Args:
        recipe: says what conditions of the space refer to, where that does not vary.
        seen: all trials before.
        seed: of this proposal.
        shared: what the sampler remembered of the study, at the proposal before.

    Raises:
        RecipeError: the sampler refused.
    """
    try:
        with _silence():
            study = _study(section, _seed_of(section, recipe, seed))
            for key, value in (shared or {}).items():
                study._storage.set_study_system_attr(study._study_id, key, value)
            values = [
                None if each.failed else value
                for each, value in zip(seen, foretold([each.values for each in seen]), strict=True)
            ]
            if section.name == _GP:
                seen, values = _as_ended(seen, values)
            for each, value in zip(seen, values, strict=True):
                study.add_trial(_shown(each, space, value))
            trial = study.ask()
            point = asked(trial, space, recipe)
            of_all = study._storage.get_study_system_attrs(study._study_id)
            return Proposal(point, study.get_trials(deepcopy=False)[-1].system_attrs, dict(of_all))
    except ImportError as error:
        raise RecipeError(f"search.sampler: {section.name} needs more to be installed: {error}") from error
    except (TypeError, ValueError) as error:
        raise RecipeError(f"search.sampler: {section.name} refuses this space: {error}") from error


def drawn(space: Mapping[str, Range], recipe: Recipe, seed: int) -> dict[str, Any]:
    """A point at random."""
    with _silence():
        return asked(_study(SamplerSection(name="RandomSampler"), seed).ask(), space, recipe)


def importances(space: Mapping[str, Range], seen: Sequence[Seen]) -> dict[str, float]:
    """How much of what the trials' values foretell each key explains (PED-ANOVA, arXiv 2304.10255), the most important
    first; empty where there are too few.
    """
    known = [each for each in seen if each.values and not each.failed]
    if len(known) < _ENOUGH:
        return {}
    with _silence():
        study = _study(SamplerSection(name="RandomSampler"), 0)
        for each, value in zip(known, foretold([each.values for each in known]), strict=True):
            study.add_trial(_shown(each, space, value))
        found = optuna.importance.get_param_importances(study, normalize=True)
    return {key: round(float(share), 4) for key, share in found.items()}


def asked(trial: Trial, space: Mapping[str, Range], recipe: Recipe) -> dict[str, Any]:
    """Every key's value, those first on which others depend."""
    point: dict[str, Any] = {}
    for key, each in in_order(space):
        if isinstance(each, RestSection):
            point[key] = rest(point, each, recipe)
        elif holds(each.when, point, recipe):
            point[key] = _value(trial, key, each)
    return point


def _as_ended(seen: Sequence[Seen], values: Sequence[float | None]) -> tuple[list[Seen], list[float | None]]:
    """Trials for a sampler that learns only from those that ended well: what failed has the worst value of all, and
    limits that nobody exceeded are none.
    """
    limits = sorted({name for each in seen for name, share in each.beyond.items() if share > 0})
    worst = min((each for each in values if each is not None), default=None)
    shown = [replace(each, beyond={name: each.beyond.get(name, 0.0) for name in limits}) for each in seen]
    return shown, [worst if each.failed else value for each, value in zip(seen, values, strict=True)]


def sampler_of(section: SamplerSection, seed: int) -> BaseSampler:
    """The sampler that a recipe names.

    Raises:
        RecipeError: there is none of that name, or it does not take these options.
    """
    known = {name: kind for name, kind in vars(optuna.samplers).items() if name.endswith("Sampler")}
    known = {name: kind for name, kind in known.items() if name not in _NO_SAMPLERS}
    if section.name not in known:
        raise RecipeError(f"search.sampler.name: '{section.name}': {nearest(section.name, known)}")
    if "seed" in section.options:
        raise RecipeError("search.sampler.options: leave 'seed' out: search.seed says it")
    options = {**_DEFAULTS.get(section.name, {}), "seed": seed % _SEEDS, **section.options}
    try:
        with _silence():
            made: BaseSampler = known[section.name](**options)
    except (TypeError, ValueError, ImportError) as error:
        raise RecipeError(f"search.sampler: {section.name}: {error}") from error
    return made


_SEQUENCES = ("QMCSampler", "GridSampler")
_NO_SAMPLERS = ("BaseSampler", "BaseGASampler", "PartialFixedSampler")
_DEFAULTS: dict[str, dict[str, Any]] = {
    "TPESampler": {"multivariate": True, "group": True, "n_startup_trials": _ENOUGH},
    "GPSampler": {"n_startup_trials": _ENOUGH},
}
"""Conditional keys are drawn together with those that they depend on."""


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Optuna says nothing meanwhile."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is experimental there
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _study(section: SamplerSection, seed: int) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=sampler_of(section, seed))


def _seed_of(section: SamplerSection, recipe: Recipe, seed: int) -> int:
    """Of a sampler: another one for each proposal, unless all proposals together are one sequence."""
    if section.name not in _SEQUENCES or recipe.search is None:
        return seed
    return subseed(recipe.seed, "sequence", recipe.search.seed)


def _shown(each: Seen, space: Mapping[str, Range], value: float | None) -> FrozenTrial:
    params = plain(each.point, space)
    kinds = {key: distribution(space[key]) for key in params}
    told: dict[str, Any] = {"params": params, "distributions": kinds, "constraints": dict(each.beyond)}
    told["system_attrs"] = dict(each.own)
    if value is not None:
        return create_trial(state=TrialState.COMPLETE, value=value, **told)
    if each.failed:  # what failed as Optuna knows it, samplers would forget, and propose again
        return create_trial(state=TrialState.PRUNED, **told)
    return create_trial(state=TrialState.RUNNING, **told)


def _value(trial: Trial, key: str, each: NumberSection | ChoiceSection) -> Any:
    if isinstance(each, ChoiceSection):
        labels = [label(choice) for choice in each.choices]
        return each.choices[labels.index(trial.suggest_categorical(key, labels))]
    if each.whole:
        return trial.suggest_int(key, int(each.low), int(each.high), log=each.log)
    return trial.suggest_float(key, each.low, each.high, log=each.log)


def label(choice: Any) -> str | int | float | bool | None:
    """A choice as Optuna knows it: plain values are themselves, others JSON."""
    return choice if choice is None or isinstance(choice, str | int | float) else json.dumps(choice)


def plain(point: Point, space: Mapping[str, Range]) -> dict[str, Any]:
    """A point as Optuna knows it: what follows from other keys is left out."""
    given = {key: value for key, value in point.items() if not isinstance(space[key], RestSection)}
    return {key: label(value) if isinstance(space[key], ChoiceSection) else value for key, value in given.items()}


def distribution(each: Range) -> BaseDistribution:
    """What may be drawn, as Optuna says it."""
    if isinstance(each, ChoiceSection):
        return CategoricalDistribution([label(choice) for choice in each.choices])
    assert isinstance(each, NumberSection)
    if each.whole:
        return IntDistribution(int(each.low), int(each.high), log=each.log)
    return FloatDistribution(each.low, each.high, log=each.log)


def subseed_of(recipe: Recipe, number: int) -> int:
    """The seed of a trial's proposal."""
    assert recipe.search is not None
    return subseed(recipe.seed, "search", recipe.search.seed, number)
