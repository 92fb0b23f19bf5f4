"""From a recipe and one point of its space to the recipe of a trial."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final

from stillhouse.foundation.errors import RecipeError
from stillhouse.recipe.load import validate
from stillhouse.recipe.recipe import AugmentSection, Recipe, as_dict
from stillhouse.recipe.search import ChoiceSection, NumberSection, Range, RestSection, SearchSection, in_order

Point = Mapping[str, Any]
"""The value of each key of the recipe that varies; keys whose condition does not hold are absent."""

_ARCH = "student.model.arch"
_OPTIONS = "student.model.options"
_AUGMENT = "data.augment."
_KD = "objective.kd."
_MIX, _KIND = "data.augment.mix", f"{_KD}kind"
_VARIED = ("student.model.", "student.train.", "objective.cross_entropy", _KD, _AUGMENT)
_FIXED = ("student.train.epochs", "student.train.engine", "student.train.warmup_epochs", "student.model.weights")


_GRAPHS: Final[Mapping[str, Any]] = {
    "student.model.options.top.neighbours": [2, 4],
    "student.model.options.top.probability": {"low": 0.1, "high": 1.0},
    "student.model.options.middle.nodes": {"low": 1, "high": 3},
    "student.model.options.middle.probability": {"low": 0.2, "high": 1.0},
    "student.model.options.bottom.nodes": {"low": 2, "high": 5},
    "student.model.options.bottom.neighbours": [2, 4],
    "student.model.options.bottom.probability": {"low": 0.1, "high": 1.0},
    "student.model.options.operation": ["conv", "separable", "inverted"],
    "student.model.options.growth": {"low": 1.0, "high": 3.0},
}


def space_of(recipe: Recipe) -> dict[str, Range]:
    """What a recipe's search looks through: what it says, else the graphs of a random graph and how students are
    taught.
    """
    section, train = recipe.search, recipe.student.train
    assert section is not None
    if section.space:
        return dict(section.space)
    rate = train.optimizer.learning_rate
    given = _graphs(recipe) if recipe.student.model.arch == "random_graph" else {}
    if _asks(recipe):
        given |= {
            "objective.kd.temperature": {"low": 1.0, "high": 20.0, "log": True},
            "objective.kd.weight": {"low": 0.0, "high": 1.0},
            "objective.cross_entropy": {"rest_of": "objective.kd.weight"},
        }
    given["student.train.optimizer.learning_rate"] = {"low": rate / 10, "high": 5 * rate, "log": True}
    return dict(SearchSection.model_validate({"budget": section.budget, "space": given}).space)


def _graphs(recipe: Recipe) -> dict[str, Any]:
    """Of random graphs, with a cell at least for each stage that the recipe has."""
    stages = len(recipe.student.model.options.get("depth", ()))
    fewest = max(3, stages)
    return {"student.model.options.top.nodes": {"low": fewest, "high": fewest + 3}, **_GRAPHS}


def _asks(recipe: Recipe) -> bool:
    """Whether soft targets are asked for."""
    return recipe.objective.kd is not None and recipe.objective.kd.weight > 0


def holds(when: Mapping[str, Any], point: Point, recipe: Recipe) -> bool:
    """Whether a condition is met, by the point's values and else the recipe's."""
    values = as_dict(recipe)
    for key, wanted in when.items():
        found = point[key] if key in point else _at(values, key)
        if found not in (wanted if isinstance(wanted, list | tuple) else [wanted]):
            return False
    return True


def varied(recipe: Recipe, point: Point) -> Recipe:
    """The recipe of a trial: the point's values in place of the recipe's, and no search.

    Another architecture than the recipe's brings its own options: of the recipe's none are kept.

    Raises:
        RecipeError: the values don't fit together.
    """
    values: dict[str, Any] = {**as_dict(recipe), "search": None}
    _put(values, "fleet.trial_workers", 1)
    if point.get(_ARCH, recipe.student.model.arch) != recipe.student.model.arch:
        _put(values, _OPTIONS, {})
    for key, value in point.items():
        _put(values, key, value)
    return validate(values, "a trial's recipe")


def corners(space: Mapping[str, Range], recipe: Recipe) -> list[dict[str, Any]]:
    """Points at which each value that a key may have, or the ends of its range, is there once at least; a key with a
    condition where that is met.

    Raises:
        RecipeError: a key's condition is never met.
    """
    found: list[dict[str, Any]] = []
    conditional = [key for key, each in space.items() if not isinstance(each, RestSection) and each.when]
    for met in ({}, *(_met(space, recipe, key) for key in conditional)):
        most = max((len(_ends(each)) for key, each in space.items() if key not in met), default=1)
        for number in range(most):
            point: dict[str, Any] = {}
            for key, each in in_order(space):
                if isinstance(each, RestSection):
                    point[key] = rest(point, each, recipe)
                elif holds(each.when, point, recipe):
                    ends = _ends(each)
                    point[key] = met[key] if key in met else ends[min(number, len(ends) - 1)]
            if point not in found:
                found.append(point)
    return found


def _met(space: Mapping[str, Range], recipe: Recipe, key: str) -> dict[str, Any]:
    """Values of other keys at which a key's condition is met.

    Raises:
        RecipeError: there are none.
    """
    found, section = dict[str, Any](), space[key]
    for other, wanted in {} if isinstance(section, RestSection) else section.when.items():
        several = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        if other in space:
            fitting = [each for each in several if _may_be(space[other], each)]
            found |= _met(space, recipe, other) | ({other: fitting[0]} if fitting else {})
        else:
            fitting = [each for each in several if each == _at(as_dict(recipe), other)]
        if not fitting:
            told = " or ".join(map(repr, several))
            raise RecipeError(
                f"search.space: '{key}' never varies: its 'when' asks for {other}: {told}, which never is"
            )
    return found


def _may_be(section: Range, value: Any) -> bool:
    if isinstance(section, NumberSection):
        return isinstance(value, int | float) and section.low <= value <= section.high
    return isinstance(section, ChoiceSection) and value in section.choices


def brought(space: Mapping[str, Range], recipe: Recipe, given: Point, otherwise: Point) -> dict[str, Any]:
    """A point from elsewhere, brought into the ranges of this space.

    Args:
        given: its values; where it has none the recipe's own are meant.
        otherwise: gives the values that neither has, or that are none of a key's choices.
    """
    values, point = as_dict(recipe), dict[str, Any]()
    for key, each in in_order(space):
        if isinstance(each, RestSection):
            point[key] = rest(point, each, recipe)
        elif holds(each.when, point, recipe):
            value = given[key] if key in given else _at(values, key)
            spare = otherwise.get(key, _ends(each)[0])
            if isinstance(each, ChoiceSection):
                point[key] = next((choice for choice in each.choices if _is_meant(choice, value)), spare)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                near = min(max(value, each.low), each.high)
                point[key] = round(near) if each.whole else near
            else:
                point[key] = spare
    return point


def _is_meant(choice: Any, value: Any) -> bool:
    """Whether a choice, whose defaults need not be written out, is a recipe's value."""
    if isinstance(choice, Mapping) and isinstance(value, Mapping):
        return all(key in value and _is_meant(each, value[key]) for key, each in choice.items())
    return bool(choice == value)


def rest(point: Point, section: RestSection, recipe: Recipe) -> float:
    """One minus another value.

    Raises:
        RecipeError: that is no number.
    """
    value = point[section.rest_of] if section.rest_of in point else _at(as_dict(recipe), section.rest_of)
    if not isinstance(value, int | float):
        raise RecipeError(f"search.space: rest_of: '{section.rest_of}' is {value!r}, no number")
    return 1 - value


def check(recipe: Recipe) -> None:
    """Look whether the space makes sense, before anything is trained.

    Raises:
        RecipeError: nothing varies; a key or a value that a recipe can't have.
    """
    section = recipe.search
    assert section is not None
    space = space_of(recipe)
    rungs, longest = section.epochs(recipe.student.train.epochs), recipe.student.train.epochs
    if rungs[-1] > longest:
        raise RecipeError(
            f"search.rungs: {rungs[-1]} epochs are more than the student's (student.train.epochs: {longest})"
        )
    free = [each for each in space.values() if not isinstance(each, RestSection)]
    if not any(len(_ends(each)) > 1 for each in free):
        raise RecipeError("search.space: nothing varies: give a key more than one value")
    for key, each in space.items():
        if key.startswith(_AUGMENT) and not isinstance(each, ChoiceSection):
            raise RecipeError(
                f"search.space: '{key}' can vary by choices only ([a, b]): trials that see the same views share the "
                "teacher's answers"
            )
        if not key.startswith(_VARIED) or key.startswith(_FIXED):
            known = ", ".join(each.rstrip(".") for each in _VARIED)
            raise RecipeError(
                f"search.space: '{key}' can't vary: trials share the teacher's answers, their length and their engine; "
                f"what may vary is under {known}"
            )
    if (taught := [key for key in space if key.startswith(_KD)]) and not _asks(recipe):
        raise RecipeError(
            f"search.space: '{taught[0]}' varies, but objective.kd asks the teacher nothing: give a weight"
        )
    if f"{_OPTIONS}.params" in space and section.budget.params is not None:
        raise RecipeError(f"search.space: '{_OPTIONS}.params' can't vary: search.budget.params says it")
    for point in [*corners(space, recipe), *_pairs(space, recipe)]:
        try:
            varied(recipe, point)
        except RecipeError as error:
            told = ", ".join(f"{key}: {value}" for key, value in point.items())
            raise RecipeError(f"search.space: {error}\n  (at {told})") from error


def points_in(space: Mapping[str, Range], recipe: Recipe, most: int) -> list[dict[str, Any]] | None:
    """All points there are; None where they are more than that, or a number varies without steps."""
    several = [each for each in space.values() if isinstance(each, NumberSection)]
    if any(not each.whole and each.low < each.high for each in several):
        return None
    found: list[dict[str, Any]] = [{}]
    for key, each in in_order(space):
        if isinstance(each, RestSection):
            found = [{**point, key: rest(point, each, recipe)} for point in found]
            continue
        if isinstance(each, NumberSection):
            values = list(range(int(each.low), int(each.high) + 1)) if each.whole else [each.low]
        else:
            values = list(each.choices)
        held = [(point, not each.when or holds(each.when, point, recipe)) for point in found]
        if sum(len(values) if varies else 1 for _, varies in held) > most:
            return None
        found = [
            new
            for point, varies in held
            for new in ([{**point, key: value} for value in values] if varies else [point])
        ]
    return found


def _pairs(space: Mapping[str, Range], recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Points at which each kind of KD meets each way to mix views: not all go together."""
    kinds, mixes = space.get(_KIND), space.get(_MIX)
    if isinstance(kinds, ChoiceSection) and isinstance(mixes, ChoiceSection):
        for kind, mix in itertools.product(kinds.choices, mixes.choices):
            point = {_KIND: kind, _MIX: mix}
            if holds(kinds.when, point, recipe) and holds(mixes.when, point, recipe):
                yield point


def augmentations(recipe: Recipe) -> list[AugmentSection]:
    """Those that trials may have, each once: the teacher answers for each of them."""
    assert recipe.search is not None
    space = space_of(recipe)
    keys = [key for key, each in space.items() if key.startswith(_AUGMENT) and isinstance(each, ChoiceSection)]
    found: list[AugmentSection] = []
    for values in itertools.product(*(_ends(space[key]) for key in keys)):
        point = dict(zip(keys, values, strict=True))
        meant = {key: value for key, value in point.items() if holds(_when(space[key]), point, recipe)}
        with contextlib.suppress(RecipeError):  # not all of them go together
            augment = varied(recipe, meant).data.augment
            found += [augment] if augment not in found else []
    return found


def _when(each: Range) -> Mapping[str, Any]:
    return {} if isinstance(each, RestSection) else each.when


def _ends(each: Range) -> list[Any]:
    if isinstance(each, NumberSection):
        return [each.low] if each.low == each.high else [each.low, each.high]
    return list(each.choices) if isinstance(each, ChoiceSection) else [None]


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(values, list):
            values = values[int(part)] if part.isdigit() and int(part) < len(values) else None
        else:
            values = values.get(part) if isinstance(values, dict) else None
    return values


def _put(values: dict[str, Any] | list[Any], key: str, value: Any) -> None:
    part, _, below = key.partition(".")
    if isinstance(values, list):
        if not part.isdigit() or int(part) >= len(values):
            raise RecipeError(f"'{part}': there are {len(values)} values, counted from 0")
        if below and not isinstance(values[int(part)], dict | list):
            raise RecipeError(f"'{below}': '{part}' is a value, and has none")
        if below:
            _put(values[int(part)], below, value)
        else:
            values[int(part)] = value
    elif below:
        if not isinstance(values.get(part), dict | list):
            values[part] = {}
        _put(values[part], below, value)
    else:
        values[part] = value
