"""What the phases of a run share: data, networks, device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stillhouse.data.ahead import ahead
from stillhouse.data.batch import Batch
from stillhouse.data.open import Data
from stillhouse.data.order import Order
from stillhouse.data.statistics import channel_statistics
from stillhouse.data.stream import Stream, plain_batches
from stillhouse.data.table import Samples
from stillhouse.foundation.seeding import subseed
from stillhouse.models.interface import Interface
from stillhouse.recipe.architectures import Normalisation
from stillhouse.recipe.recipe import Recipe
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.networks import Live, Networks, interface_of

EVALUATION_BATCH = 512


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
        order = Order(data.splits.train, subseed(self.recipe.seed, "student order", number), section.different_views)
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
        return self._plain(self.data.table, self.data.labels, self.data.splits.validation)

    def part_of_validation(self, count: int) -> Iterator[Batch]:
        """At most so many samples of the validation split, of every class its share."""
        sample_ids = self.data.splits.validation
        by_class = sample_ids[np.argsort(self.data.labels[sample_ids], kind="stable")]
        places = np.linspace(0, len(by_class) - 1, min(count, len(by_class))).round().astype(np.int64)
        return self._plain(self.data.table, self.data.labels, np.sort(by_class[places]))

    def test(self) -> Iterator[Batch]:
        """The test split as it is: read once, at the end."""
        return self._plain(self.data.test_table, self.data.survey.test.labels, self.data.splits.test)

    def _plain(self, table: Samples, labels: NDArray[np.int64], sample_ids: NDArray[np.int64]) -> Iterator[Batch]:
        section = self.recipe.data
        batches = plain_batches(table, labels, sample_ids, EVALUATION_BATCH, section.crop_px)
        return ahead(batches, section.ahead_max_mb * 2**20)


def gather(recipe: Recipe, data: Data, live: Live | None) -> Materials:
    """Join recipe and decoded data."""
    mean, std = channel_statistics(data.table, data.splits.train)
    statistics = Normalisation(mean=tuple(mean), std=tuple(std))
    networks = Networks(recipe, interface_of(data.survey, recipe), statistics, live)
    return Materials(recipe, data, networks, torch.device(recipe.compute.device))
