"""Keys to batches: the training stream, which any step can enter, and the plain pass over a split.

A step takes ``batch_size`` positions of its epoch's order; the incomplete batch at an epoch's end is left
out (its samples come first in no epoch in particular: every epoch leaves out others).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from stillhouse.data.batch import Batch
from stillhouse.data.order import Order
from stillhouse.data.table import Table
from stillhouse.data.views import PLAIN, augmented, plain
from stillhouse.foundation.errors import DataError
from stillhouse.recipe.recipe import AugmentSection


class Stream:
    """An endless, seekable stream of training batches.

    Args:
        table: decoded samples by id.
        labels: [N] by id.
        order: of the split's samples.
        batch_size: samples a step.
        seed: fixes the views.

    Raises:
        DataError: the split is smaller than a batch.
    """

    def __init__(
        self,
        table: Table,
        labels: NDArray[np.int64],
        order: Order,
        *,
        batch_size: int,
        seed: int,
        augment: AugmentSection,
        crop_px: tuple[int, int] | None,
    ) -> None:
        if len(order) < batch_size:
            raise DataError(
                f"a batch of {batch_size} is more than the {len(order)} training samples: lower train.batch_size"
            )
        self._table, self._labels, self._order = table, labels, order
        self._seed, self._augment, self._crop_px = seed, augment, crop_px
        self.batch_size = batch_size
        self.steps_per_epoch = len(order) // batch_size

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """The batches of steps first_step..last_step-1; step s is number s mod steps_per_epoch of its epoch."""
        for step in range(first_step, last_step):
            epoch, place = divmod(step, self.steps_per_epoch)
            ids, views = self._order.at(epoch, place * self.batch_size, (place + 1) * self.batch_size)
            yield self.make(ids, views)

    def make(self, sample_ids: NDArray[np.int64], views: NDArray[np.int64]) -> Batch:
        """The batch of given keys: the same bits for the same keys, wherever and whenever."""
        rows = self._table.rows[sample_ids]
        if self._table.form.image or self._augment != AugmentSection() or self._crop_px:
            rows = augmented(rows, sample_ids, views, self._seed, self._augment, self._crop_px)
        return _batch(sample_ids, views, rows, self._labels)


def plain_batches(
    table: Table,
    labels: NDArray[np.int64],
    sample_ids: NDArray[np.int64],
    batch_size: int,
    crop_px: tuple[int, int] | None,
) -> Iterator[Batch]:
    """A split as it is, ascending, the last batch as small as it comes."""
    for start in range(0, len(sample_ids), batch_size):
        ids = sample_ids[start : start + batch_size]
        views = np.full(len(ids), PLAIN, np.int64)
        yield _batch(ids, views, plain(table.rows[ids], crop_px), labels)


def _batch(
    ids: NDArray[np.int64], views: NDArray[np.int64], rows: NDArray[np.generic], labels: NDArray[np.int64]
) -> Batch:
    inputs = torch.from_numpy(np.ascontiguousarray(rows))
    return Batch(ids, views, inputs, torch.from_numpy(labels[ids]))
