"""The members of a search's families: what they are, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stillhouse.foundation.errors import RunDirError
from stillhouse.models.graphs.widths import TooFewError
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.materials import Materials
from stillhouse.runner.search.candidate import Limits, candidate, costs_of, graphs_in
from stillhouse.runner.search.teachings import seen_by
from stillhouse.study.record import Trial
from stillhouse.study.space import Point


@dataclass(frozen=True)
class Members:
    """Those of all trials of one search; each is found once.

    Attributes:
        materials: the run's.
        epochs: of the highest rung.
    """

    materials: Materials
    limits: Limits
    epochs: int
    _recipes: dict[tuple[int, int], Recipe] = field(default_factory=dict)

    def of(self, point: Point, trial: int, member: int, *, to_the_end: bool = False) -> Materials:
        """The materials of a trial's member, that is trained up to the highest rung or as long as the student.

        Raises:
            ModelError, RecipeError: as :func:`candidate`.
        """
        if (trial, member) not in self._recipes:
            self._recipes[trial, member] = candidate(self.materials.networks, point, self.limits, trial, member)
        recipe = self._recipes[trial, member]
        if not to_the_end:
            train = recipe.student.train
            most = {"epochs": self.epochs, "warmup_epochs": min(train.warmup_epochs, self.epochs)}
            student = recipe.student.model_copy(update={"train": train.model_copy(update=most)})
            recipe = recipe.model_copy(update={"student": student})
        return seen_by(self.materials, recipe)

    def costs(self, trial: Trial) -> tuple[dict[str, float], dict[str, float], str]:
        """What a trial's first member costs, by how much that is beyond each limit, and the digest of its graphs.

        Raises:
            ModelError, RecipeError: it can't be built.
        """
        try:
            made = self.of(trial.point, trial.number, 0)
            costs = costs_of(made.networks.student(0), self.materials.networks)
            return costs, self.limits.beyond(costs), graphs_in(made.recipe)
        except TooFewError as error:
            beyond = {**dict.fromkeys(self.limits.most, 0.0), "params": error.least / self.limits.most["params"] - 1}
            return {"params": float(error.least)}, beyond, ""

    def beyond(self, trial: Trial) -> Mapping[str, float]:
        """By how much a trial that goes on is beyond each limit, as it was when it was begun.

        Raises:
            RunDirError: its graphs are drawn otherwise now.
        """
        if trial.graphs and (now := graphs_in(self.of(trial.point, trial.number, 0).recipe)) != trial.graphs:
            raise RunDirError(
                f"the graphs of trial {trial.number} were {trial.graphs} when it was begun, now they are drawn as "
                f"{now}: take the version of networkx that run.json names"
            )
        return trial.beyond

    def within(self, made: Materials) -> bool:
        """Whether a further member's network keeps all limits."""
        if not self.limits.most.keys() - {"params"}:  # by its width it keeps that one
            return True
        costs = costs_of(made.networks.student(0), self.materials.networks)
        return all(share <= 0 for share in self.limits.beyond(costs).values())
