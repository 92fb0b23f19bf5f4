"""One member of a trial's family: its recipe, as wide as the budget allows, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from stillhouse.foundation.seeding import subseed
from stillhouse.models.cost import measure_cost
from stillhouse.models.from_function import defaults_of
from stillhouse.models.graphs.member import member as graphs_of
from stillhouse.models.network import Network
from stillhouse.models.roofline import Roofline
from stillhouse.recipe.architectures import ModelSection
from stillhouse.recipe.random_graph import RandomGraphOptions
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.networks import Networks
from stillhouse.runner.search.fitting import GRAPH, fitted, has_whole
from stillhouse.study.space import Point, varied

_OPTIONS = "student.model.options"
_SEEDS = 2**31
_LATENCY_S = 0.2
_TRIED_S = 0.05
_ROOM = 0.03
"""A measured latency differs from time to time: so much of it is left free."""


@dataclass(frozen=True)
class Limits:
    """The most that a student may cost.

    Attributes:
        whole: what the teacher costs.
        most: by measure, of those that are limited.
    """

    whole: Mapping[str, float]
    most: Mapping[str, float]

    def beyond(self, costs: Mapping[str, float]) -> dict[str, float]:
        """By how much each limit is exceeded, as a share of it; at most 0 where it is kept."""
        return {name: round(costs[name] / most - 1, 6) for name, most in self.most.items()}


def limits_of(networks: Networks, teacher: Network) -> Limits:
    """Shares of the teacher's costs as numbers.

    Args:
        teacher: trained or not; moved to where the run computes.
    """
    section = networks.recipe.search
    assert section is not None
    whole = costs_of(teacher, networks)
    given = {name: value for name, value in section.budget.model_dump().items() if value is not None}
    most = {name: each if name == "latency_ms" else each * whole[name] for name, each in given.items()}
    if section.target is not None and (room := section.target.memory_bytes) is not None:
        most["peak_bytes"] = min(room, most.get("peak_bytes", room))
    return Limits(whole, most)


def costs_of(network: Network, networks: Networks, latency_s: float = _LATENCY_S) -> dict[str, float]:
    """Measured where the run computes, one sample, by the names of a budget's measures; the latency is the target's,
    where the search has one.

    Args:
        latency_s: for how long it is measured.
    """
    device, search = torch.device(networks.recipe.compute.device), networks.recipe.search
    costs = asdict(measure_cost(network.to(device), networks.interface, latency_budget_s=latency_s))
    if search is not None and (target := search.target) is not None:
        there = Roofline(target.macs_per_s, target.bytes_per_s, target.call_s)
        costs["latency_ms"] = there.latency_ms(network, networks.interface)
    return costs


def graphs_in(recipe: Recipe) -> str:
    """The digest of a candidate's graphs; empty where it has none."""
    return str(recipe.student.model.options["graphs"]) if recipe.student.model.arch == GRAPH else ""


def candidate(
    networks: Networks,
    point: Point,
    limits: Limits,
    trial: int,
    member: int,
    known: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe of a trial's member: it says all of what that is, so that it can be built anywhere.

    Args:
        member: which of the family: other members have other values of the option ``seed``, where there is one and
            the point does not say it itself.
        known: the options of its network, where they were found before.

    Raises:
        ModelError: no network of this family fits the budget.
        RecipeError: the point's values don't fit together.
    """
    recipe = varied(networks.recipe, point)
    model = recipe.student.model
    options: dict[str, Any] = dict(model.options if known is None else known)
    if known is None and has_whole(options, "seed") and f"{_OPTIONS}.seed" not in point:
        options["seed"] = seed_of(networks.recipe, trial, member)
    if known is None and not point.keys() & {f"{_OPTIONS}.widths", f"{_OPTIONS}.width", f"{_OPTIONS}.params"}:
        options = _as_wide(networks, ModelSection.model_validate({**model.model_dump(), "options": options}), limits)
    if model.arch == GRAPH:
        options["graphs"] = graphs_of(RandomGraphOptions(**{**options, "graphs": None})).digest
    model = ModelSection.model_validate({**model.model_dump(), "options": options})
    return recipe.model_copy(update={"student": recipe.student.model_copy(update={"model": model})})


def seed_of(recipe: Recipe, trial: int, member: int) -> int:
    """What tells a member of a trial's family from the others."""
    assert recipe.search is not None
    return subseed(recipe.seed, "member", recipe.search.seed, trial, member) % _SEEDS


def has_members(recipe: Recipe, point: Point) -> bool:
    """Whether a point is a family: trying it again tries another network."""
    return has_whole(varied(recipe, point).student.model.options, "seed") and f"{_OPTIONS}.seed" not in point


def with_defaults(recipe: Recipe) -> Recipe:
    """The recipe with those options of the student's function written out that it leaves to the function."""
    model = recipe.student.model
    if ".py:" not in model.arch:
        return recipe
    model = model.model_copy(update={"options": {**defaults_of(model.arch), **model.options}})
    return recipe.model_copy(update={"student": recipe.student.model_copy(update={"model": model})})


def _as_wide(networks: Networks, model: ModelSection, limits: Limits) -> dict[str, Any]:
    """Options with the width that the limits allow; as they are, where there is none to choose."""
    search = networks.recipe.search
    others = limits.most.keys() - {"params"}
    assert search is not None
    measured = "latency_ms" in others and search.target is None

    def beyond(network: Network) -> float:
        costs = limits.beyond(costs_of(network, networks, latency_s=_TRIED_S if measured else 0.0))
        room = {"latency_ms": _ROOM} if measured else {}
        return max(costs[name] + room.get(name, 0.0) for name in others)

    found = fitted(networks, model, limits.most.get("params"), int(limits.whole["params"]), beyond if others else None)
    return dict(model.options) if found is None else found
