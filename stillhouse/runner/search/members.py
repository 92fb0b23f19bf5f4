"""The members of a search's families: what they are, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from stillhouse.foundation.errors import RunDirError
from stillhouse.models.graphs.widths import TooFewError
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.materials import Materials
from stillhouse.runner.search.candidate import Limits, candidate, costs_of, graphs_in
from stillhouse.runner.search.teachings import seen_by
from stillhouse.study.record import Record, Trial
from stillhouse.study.space import Point


@dataclass(frozen=True)
class Members:
    """Those of all trials of one search; each is found once.

    Attributes:
        materials: the run's.
        epochs: of the highest rung.
        record: keeps what each network is: a width that was found by measuring is not found again.
    """

    materials: Materials
    limits: Limits
    epochs: int
    record: Record
    _recipes: dict[tuple[int, int], Recipe] = field(default_factory=dict)

    def of(self, point: Point, trial: int, member: int, *, to_the_end: bool = False) -> Materials:
        """The materials of a trial's member, that is trained up to the highest rung or as long as the student.

        Raises:
            ModelError, RecipeError: as :func:`candidate`.
            RunDirError: its graphs are drawn otherwise now than when it was begun.
        """
        if (trial, member) not in self._recipes:
            networks, known = self.materials.networks, self.record.model(trial, member)
            recipe = candidate(networks, point, self.limits, trial, member, known)
            if known is None:
                self.record.keep_model(trial, member, recipe.student.model.options)
            elif (now := graphs_in(recipe)) != (then := known.get("graphs", "")):
                raise RunDirError(
                    f"the graphs of trial {trial} were {then} when it was begun, now they are drawn as {now}: take the "
                    "version of networkx that run.json names"
                )
            self._recipes[trial, member] = recipe
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

    def within(self, made: Materials) -> bool:
        """Whether a further member's network keeps all limits."""
        network = made.networks.student(0)
        if self.limits.most.keys() == {"params"}:  # without measuring anything
            costs = {"params": float(sum(each.numel() for each in network.parameters()))}
        else:
            costs = costs_of(network, self.materials.networks)
        return all(share <= 0 for share in self.limits.beyond(costs).values())
