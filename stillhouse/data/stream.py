"""Keys to batches: the training stream, which any step can enter, and the plain pass over a split.

A step takes ``batch_size`` positions of its epoch's order; the incomplete batch at an epoch's end is left
out (its samples come first in no epoch in particular: every epoch leaves out others).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stillhouse.data.batch import Batch, UnseenBatch
from stillhouse.data.mix import Mixer, Mixing
from stillhouse.data.order import Order
from stillhouse.data.table import Samples
from stillhouse.data.views import Pixels, augmented, draw, plain
from stillhouse.foundation.errors import DataError
from stillhouse.foundation.keys import PLAIN
from stillhouse.recipe.recipe import AugmentSection

_DRAWN_AT_ONCE = 4096


@dataclass(frozen=True)
class _Plan:
    """All that is random about some views, drawn for many at once because that costs hardly more than for one."""

    sample_ids: NDArray[np.int64]
    views: NDArray[np.int64]
    drawn: NDArray[np.uint32]
    mixing: Mixing | None
    partner_drawn: NDArray[np.uint32]

    def part(self, start: int, stop: int) -> _Plan:
        rows = slice(start, stop)
        mixing = self.mixing.part(rows) if self.mixing else None
        return _Plan(self.sample_ids[rows], self.views[rows], self.drawn[rows], mixing, self.partner_drawn[rows])


class Stream:
    """An endless, seekable stream of training batches.

    Args:
        table: samples by id.
        labels: [N] by id.
        order: of the training split's samples; where views are mixed, partners are drawn from them.
        batch_size: samples a step.
        seed: fixes the views.

    Raises:
        DataError: the split is smaller than a batch.
    """

    def __init__(
        self,
        table: Samples,
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
        self._mixer = Mixer(augment.mix, seed, order.sample_ids) if augment.mix else None
        self.batch_size = batch_size
        self.steps_per_epoch = len(order) // batch_size

    def batches(self, first_step: int, last_step: int, *, unseen: bool = False) -> Iterator[Batch]:
        """The batches of steps first_step..last_step-1; step s is number s mod steps_per_epoch of its epoch.

        Args:
            unseen: whether pixels are made only when somebody looks at them; where views are mixed, they are made.
        """
        size = self.batch_size
        if unseen and self._mixer is None:
            for ids, views in map(self._keys, range(first_step, last_step)):
                yield UnseenBatch(ids, views, torch.from_numpy(self._labels[ids]), self._pixels)
            return
        block = max(_DRAWN_AT_ONCE // size, 1)
        for first in range(first_step, last_step, block):
            keys = [self._keys(step) for step in range(first, min(first + block, last_step))]
            ids, views = (np.concatenate(each) for each in zip(*keys, strict=True))
            plan = self._plan(ids, views)
            for start in range(0, len(ids), size):
                yield self._make(plan.part(start, start + size))

    def make(self, sample_ids: NDArray[np.int64], views: NDArray[np.int64]) -> Batch:
        """The batch of given keys: the same bits for the same keys, wherever and whenever."""
        return self._make(self._plan(sample_ids, views))

    def _pixels(self, sample_ids: NDArray[np.int64], views: NDArray[np.int64]) -> torch.Tensor:
        return self.make(sample_ids, views).inputs

    def _keys(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._order.at(epoch, place * self.batch_size, (place + 1) * self.batch_size)

    def _plan(self, ids: NDArray[np.int64], views: NDArray[np.int64]) -> _Plan:
        drawn = draw(ids, views, self._seed, self._augment)
        if self._mixer is None:
            return _Plan(ids, views, drawn, None, drawn)
        mixing = self._mixer.draw(ids, views)
        return _Plan(ids, views, drawn, mixing, draw(mixing.partner_ids, views, self._seed, self._augment))

    def _make(self, plan: _Plan) -> Batch:
        own = self._view(plan.sample_ids, plan.drawn)
        if self._mixer is None or plan.mixing is None:
            return _batch(plan.sample_ids, plan.views, own, self._labels)
        mixed, partner_ids = plan.mixing.mixed, plan.mixing.partner_ids
        other = self._view(partner_ids[mixed], plan.partner_drawn[mixed])
        shares = torch.from_numpy(self._mixer.blend(own, other, plan.mixing))
        partners = torch.from_numpy(self._labels[partner_ids])
        batch = _batch(plan.sample_ids, plan.views, own, self._labels)
        return Batch(batch.sample_ids, batch.views, batch.inputs, batch.targets, partners, shares)

    def _view(self, ids: NDArray[np.int64], drawn: NDArray[np.uint32]) -> Pixels:
        rows, places = self._table.at(ids)
        return augmented(rows, places, drawn, self._augment, self._crop_px)


def plain_batches(
    table: Samples,
    labels: NDArray[np.int64],
    sample_ids: NDArray[np.int64],
    batch_size: int,
    crop_px: tuple[int, int] | None,
) -> Iterator[Batch]:
    """A split as it is, ascending, never mixed, the last batch as small as it comes."""
    for start in range(0, len(sample_ids), batch_size):
        ids = sample_ids[start : start + batch_size]
        views = np.full(len(ids), PLAIN, np.int64)
        yield _batch(ids, views, plain(table.take(ids), crop_px), labels)


def _batch(
    ids: NDArray[np.int64], views: NDArray[np.int64], rows: NDArray[np.generic], labels: NDArray[np.int64]
) -> Batch:
    inputs = torch.from_numpy(np.ascontiguousarray(rows))
    return Batch(ids, views, inputs, torch.from_numpy(labels[ids]))
