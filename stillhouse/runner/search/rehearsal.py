"""What can go wrong with a search, tried before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

from stillhouse.data.decode import Form
from stillhouse.data.open import check_views
from stillhouse.foundation.errors import DataError, ModelError, RecipeError
from stillhouse.foundation.events import Event, Warned
from stillhouse.models.graphs.widths import TooFewError
from stillhouse.recipe.search import ChoiceSection, SearchSection
from stillhouse.runner.networks import Networks
from stillhouse.runner.search.candidate import Limits, candidate, costs_of, limits_of
from stillhouse.study.record import check_earlier
from stillhouse.study.sampling import Seen, drawn, proposed
from stillhouse.study.space import check, corners, space_of, varied

_FEW, _MIX = 12, "student.model.options.mix."
_AUGMENTATIONS = 16
_MORE = 12
"""Points drawn beside the corners of the space, before a budget is held for out of reach."""


def rehearse_search(networks: Networks, emit: Callable[[Event], None]) -> None:
    """Look whether the space makes sense, the sampler takes it, and any network meets the budget.

    Raises:
        RecipeError: names the key; of a budget that none of the space's corners meets, what they need.
    """
    recipe = networks.recipe
    section = recipe.search
    assert section is not None
    check(recipe)
    _check_views(networks, emit)
    _check_blocks(networks)
    space = space_of(recipe)
    known = [Seen(point, (0.1 * number,)) for number, point in enumerate(corners(space, recipe)[:_FEW])]
    for seen in ([], known):  # with some trials, too: a sampler may draw at random before
        proposed(space, recipe, seen, section.sampler, 0)
    check_earlier(section.after)
    if recipe.knowledge.source == "inline" and recipe.objective.asks:
        emit(Warned("knowledge.source: inline: the teacher answers each trial anew; auto asks it once for all"))
    if section.budget.latency_ms is not None and recipe.fleet.trial_workers > 1 and recipe.fleet.backend == "local":
        emit(Warned("search.budget.latency_ms: measured while trials are trained on this machine: give it some room"))
    limits = limits_of(networks, networks.teacher())
    needed: list[dict[str, float]] = []
    refused: list[ModelError] = []
    for point in [*corners(space, recipe), *(drawn(space, recipe, seed) for seed in range(_MORE))]:
        try:
            made = candidate(networks, point, limits, 0, 0)
            costs = costs_of(replace(networks, recipe=made).student(0), networks)
        except ModelError as error:
            refused.append(error)
            if isinstance(error, TooFewError):
                needed.append({"params": float(error.least)})
            continue
        if not any(share > 0 for share in limits.beyond(costs).values()):
            break
        needed.append(costs)
    else:
        raise RecipeError(_out_of_reach(section, limits, needed, refused))
    if refused:
        emit(Warned(f"search: some of the space can't be tried: {refused[0]}"))


def _check_views(networks: Networks, emit: Callable[[Event], None]) -> None:
    """Of augmentations that vary: whether samples can be seen so, and who answers."""
    recipe, interface = networks.recipe, networks.interface
    assert recipe.search is not None
    space = space_of(recipe)
    key = next((each for each in space if each.startswith("data.augment.")), None)
    if key is None:
        return
    for point in corners(space, recipe):
        try:
            check_views(varied(recipe, point).data, Form(interface.shape, interface.image))
        except DataError as error:
            raise RecipeError(f"search.space: {error}") from error
    sections = [each for name, each in space.items() if name.startswith("data.augment.")]
    several = prod(len(each.choices) for each in sections if isinstance(each, ChoiceSection))
    if several > _AUGMENTATIONS:
        raise RecipeError(
            f"search.space: data.augment varies in {several} ways, and the teacher answers for each of them: leave at "
            f"most {_AUGMENTATIONS}"
        )
    if recipe.knowledge.source == "offline":
        raise RecipeError(
            f"search.space: '{key}' varies: knowledge.source: offline answers for one augmentation only; use auto"
        )
    if recipe.fleet.workers_range[1]:
        emit(Warned(f"search.space: '{key}' varies: fleet.workers answer for the recipe's own augmentation only"))


def _check_blocks(networks: Networks) -> None:
    """Of what may stand for a network's blocks: whether the library has each of them; one that may is built once."""
    recipe = networks.recipe
    space = space_of(recipe)
    for key, section in space.items():
        if not key.startswith(_MIX) or not isinstance(section, ChoiceSection):
            continue
        met = {other: wanted[0] if isinstance(wanted, list) else wanted for other, wanted in section.when.items()}
        for choice in section.choices:
            try:
                replace(networks, recipe=varied(recipe, {**met, key: choice})).student(0)
            except ModelError as error:
                raise RecipeError(f"search.space: '{key}': {choice}: {error}") from error


def _out_of_reach(
    section: SearchSection, limits: Limits, needed: list[dict[str, float]], refused: list[ModelError]
) -> str:
    """What to say where no corner of the space meets the budget: of each limit, the least that any needs."""
    told = []
    for name, limit in limits.most.items():
        least = min((costs[name] for costs in needed if name in costs), default=limit)
        if least > limit:
            key, wanted = f"budget.{name}", f"{least / limits.whole[name]:.3g} of the teacher's"
            if name == "latency_ms":
                wanted = f"{least:.3g} ms"
            elif name == "peak_bytes" and section.target is not None and limit == section.target.memory_bytes:
                key, wanted = "target.memory_bytes", f"{least:,.0f}"
            told.append(f"search.{key}: no network that was tried meets it: the smallest needs {wanted}")
    if not needed:
        return f"search: no network of the space that was tried can be built: {refused[0]}"
    unbuilt = [each for each in refused if not isinstance(each, TooFewError)]
    others = [f"others can't be built: {unbuilt[0]}"] if unbuilt else []
    return "; ".join([*(told or ["search.budget: no network of the space that was tried meets all of it"]), *others])
