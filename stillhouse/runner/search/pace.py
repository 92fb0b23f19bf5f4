"""How far a search is: epochs of its trials as steps of one training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stillhouse.recipe.search import SearchSection
from stillhouse.runner.materials import Materials
from stillhouse.study.record import Trial


@dataclass(frozen=True)
class Pace:
    """Of one search.

    Attributes:
        rungs: epochs of each.
    """

    materials: Materials
    section: SearchSection
    rungs: tuple[int, ...]

    @property
    def steps(self) -> int:
        """Of all trials together, as far as that can be foreseen."""
        left, before, epochs = self.section.trials, 0, 0
        for rung, until in enumerate(self.rungs):
            top = rung == len(self.rungs) - 1
            epochs += left * (until - before) + (left * (self.section.members - 1) * until if top else 0)
            left, before = max(left // self.section.reduction, 1), until
        return epochs * self._steps_per_epoch

    def trained(self, trials: Sequence[Trial]) -> int:
        """Steps that all trials together were trained."""
        epochs = 0
        for each in trials:
            reached = self.rungs[len(each.values) - 1] if each.values else 0
            epochs += reached * (len(each.members) if reached == self.rungs[-1] else 1)
        return epochs * self._steps_per_epoch

    def epochs(self, samples: int) -> float:
        """So many samples as epochs of one student."""
        return samples / (self._steps_per_epoch * self.materials.recipe.student.train.batch_size)

    @property
    def _steps_per_epoch(self) -> int:
        return self.materials.stream(self.materials.recipe.student.train, 0).steps_per_epoch
