"""Which of several points to try, before anything is trained: the one whose untrained network resembles the teacher
most.

Resemblance is the cosine of two matrices: for a few samples, how alike the answers are that a network gives to each
pair of them (after centred kernel alignment, arXiv 1905.00414).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stillhouse.foundation.errors import ModelError, RecipeError
from stillhouse.foundation.seeding import subseed
from stillhouse.models.network import Network, evaluating
from stillhouse.models.placement import seed_device
from stillhouse.runner.materials import Materials
from stillhouse.runner.search.candidate import Limits, candidate, costs_of
from stillhouse.study.space import Point

_SAMPLES = 256
_NONE = -2.0
_MODEL = "student.model."


class Screen:
    """Compares points.

    Args:
        materials: of the run; their recipe has the search.
        teacher: trained; not changed.
    """

    def __init__(self, materials: Materials, teacher: Network, limits: Limits) -> None:
        self._materials, self._limits = materials, limits
        train = materials.data.splits.train
        ids = train[np.linspace(0, len(train) - 1, min(_SAMPLES, len(train))).astype(np.int64)]
        batch = materials.stream(materials.recipe.student.train, 0).make(ids, np.zeros_like(ids))
        self._inputs = batch.inputs.to(materials.device)
        with evaluating(teacher), torch.no_grad():
            self._alike = alike(teacher(self._inputs))

    def best(self, points: Sequence[Point], trial: int) -> int:
        """Place of the one to try; of equals the first.

        Args:
            trial: its number, from which the member follows.
        """
        models = [{key: value for key, value in each.items() if key.startswith(_MODEL)} for each in points]
        found = list[float]()
        for at, model in enumerate(models):
            again = models.index(model)
            found.append(found[again] if again < at else self.resemblance(points[at], trial))
        return found.index(max(found))

    def resemblance(self, point: Point, trial: int) -> float:
        """-1..1; less where no network can be made of the point within the limits."""
        networks = self._materials.networks
        try:
            made = candidate(networks, point, self._limits, trial, 0)
            student = replace(networks, recipe=made).student(0)
        except (ModelError, RecipeError, torch.OutOfMemoryError):
            return _NONE
        if any(share > 0 for share in self._limits.beyond(costs_of(student, networks)).values()):
            return _NONE
        student.to(self._materials.device).train()  # norms have seen nothing yet
        with torch.random.fork_rng(), torch.no_grad():
            seed_device(subseed(self._materials.recipe.seed, "screen", trial), self._materials.device)
            return float((alike(student(self._inputs)) * self._alike).sum())


def alike(logits: Tensor) -> Tensor:
    """[N, N] how alike the answers to each pair of samples are: inner products of centred log-probabilities; norm 1.

    Args:
        logits: [N, C].
    """
    known = torch.log_softmax(logits.float(), dim=1)
    known = known - known.mean(dim=0)
    products = known @ known.T
    found: Tensor = products / products.norm().clamp_min(1e-12)
    return found
