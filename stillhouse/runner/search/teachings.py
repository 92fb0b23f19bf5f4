"""Who answers the trials: the run's own teaching, and one more for each other augmentation that a trial has.

An answer is about a view, so trials share the answers of those that see the same views. What a trial with another
augmentation asks, the teacher answers in this process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from stillhouse.foundation.events import Event
from stillhouse.models.network import Network
from stillhouse.recipe.fleet import FleetSection
from stillhouse.recipe.recipe import AugmentSection, Recipe
from stillhouse.runner.materials import Materials
from stillhouse.runner.rundir import RunDir
from stillhouse.runner.signals import Signals
from stillhouse.runner.teaching import Teaching


@dataclass
class Teachings:
    """One for each augmentation, opened when it is asked for; close them at the end.

    Attributes:
        materials: of the run.
        teacher: trained; not changed.
        own: of the recipe's augmentation; None where no objective asks anything. Whoever opened it closes it.
    """

    materials: Materials
    folder: RunDir
    teacher: Network
    own: Teaching | None
    emit: Callable[[Event], None]
    signals: Signals
    _others: list[tuple[AugmentSection, Teaching]] = field(default_factory=list, init=False)

    def of(self, augment: AugmentSection) -> Teaching | None:
        """Who answers about views of an augmentation."""
        run = self.materials.recipe
        if self.own is None or augment == run.data.augment:
            return self.own
        for known, teaching in self._others:
            if known == augment:
                return teaching
        data = run.data.model_copy(update={"augment": augment})
        recipe = run.model_copy(update={"data": data, "fleet": FleetSection()})
        materials = seen_by(self.materials, recipe)
        made = Teaching(materials, self.teacher, self.own.ask, self.emit, self.folder.path, self.signals)
        self._others.append((augment, made))
        return made

    def summary(self) -> dict[str, Any] | None:
        """What ``result.json`` says of the stores: the folder of the recipe's own, and what is in all together."""
        found = self.own.summary() if self.own is not None else None
        if found is None:
            return None
        for _, teaching in self._others:
            for key, value in (teaching.summary() or {}).items():
                if isinstance(value, int) and key != "row_bytes":
                    found[key] += value
        return found

    def close(self) -> None:
        """Write what is left, let the teachers go."""
        with contextlib.ExitStack() as ends:
            for _, teaching in self._others:
                ends.callback(teaching.close)
        self._others.clear()


def seen_by(materials: Materials, recipe: Recipe) -> Materials:
    """The same materials for another recipe, which may see the samples otherwise."""
    data = materials.data if recipe.data == materials.recipe.data else materials.data.seen(recipe.data)
    return replace(materials, recipe=recipe, data=data, networks=replace(materials.networks, recipe=recipe))
