"""What the phases of a run share: data, networks, device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from stillhouse.data.batch import Batch
from stillhouse.data.open import Data
from stillhouse.data.order import Order
from stillhouse.data.statistics import channel_statistics
from stillhouse.data.stream import Stream, plain_batches
from stillhouse.foundation.seeding import subseed
from stillhouse.models.interface import Interface
from stillhouse.recipe.architectures import Normalisation
from stillhouse.recipe.recipe import Recipe, TrainSection
from stillhouse.runner.networks import Live, Networks, interface_of

_EVALUATION_BATCH = 512


@dataclass(frozen=True)
class Materials:
    """Everything that the phases of a run share."""

    recipe: Recipe
    data: Data
    networks: Networks
    device: torch.device

    @property
    def interface(self) -> Interface:
        """What the data offer a model."""
        return self.networks.interface

    def stream(self, settings: TrainSection, number: int) -> Stream:
        """Training batches; ``number`` fixes the order, while views are the same for everybody."""
        data, section = self.data, self.recipe.data
        order = Order(data.splits.train, subseed(self.recipe.seed, "student order", number), section.views)
        return Stream(
            data.table,
            data.labels,
            order,
            batch_size=settings.batch_size,
            seed=self.recipe.seed,
            augment=section.augment,
            crop_px=section.crop_px,
        )

    def validation(self) -> Iterator[Batch]:
        """The validation split as it is."""
        data = self.data
        return plain_batches(
            data.table, data.labels, data.splits.validation, _EVALUATION_BATCH, self.recipe.data.crop_px
        )

    def test(self) -> Iterator[Batch]:
        """The test split as it is: read once, at the end."""
        data = self.data
        labels = data.survey.test.labels
        return plain_batches(data.test_table, labels, data.splits.test, _EVALUATION_BATCH, self.recipe.data.crop_px)


def gather(recipe: Recipe, data: Data, live: Live | None) -> Materials:
    """Join recipe and decoded data."""
    mean, std = channel_statistics(data.table.rows, data.splits.train, data.table.form.image)
    statistics = Normalisation(mean=tuple(mean), std=tuple(std))
    networks = Networks(recipe, interface_of(data.survey, recipe), statistics, live)
    return Materials(recipe, data, networks, torch.device(recipe.compute.device))
