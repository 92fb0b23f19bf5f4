"""Batches whose pixels are made only when somebody looks: the same ones, and not before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from stillhouse.data.batch import Batch, UnseenBatch
from stillhouse.data.decode import Form
from stillhouse.data.order import Order
from stillhouse.data.stream import Stream
from stillhouse.data.table import Table
from stillhouse.recipe.recipe import AugmentSection


def stream(**augment: Any) -> Stream:
    """Thirty small images in batches of ten."""
    rows = np.arange(30 * 64, dtype=np.uint32).astype(np.uint8).reshape(30, 1, 8, 8)
    table = Table(rows, Form((1, 8, 8), image=True), np.empty(0, np.int64), ())
    section = AugmentSection.model_validate({"pad_px": 2, **augment})
    order = Order(np.arange(30), 5, None)
    return Stream(table, np.arange(30) % 4, order, batch_size=10, seed=1, augment=section, crop_px=None)


def same(one: Batch, other: Batch) -> bool:
    keys = np.array_equal(one.sample_ids, other.sample_ids) and np.array_equal(one.views, other.views)
    return keys and torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)


def test_whoever_looks_sees_the_same() -> None:
    """Whole, in part, chosen, joined and moved, an unseen batch is the seen one."""
    seen, unseen = list(stream().batches(0, 7)), list(stream().batches(0, 7, unseen=True))
    assert len(seen) == len(unseen) == 7 and all(isinstance(each, UnseenBatch) for each in unseen)
    rows = np.array([7, 2, 2])
    mask = np.arange(10) % 3 == 0
    for one, other in zip(seen, unseen, strict=True):
        assert same(one.part(2, 5), other.part(2, 5))
        assert same(one.select(rows), other.select(rows)) and same(one.select(mask), other.select(mask))
        assert same(one, other)
        assert same(one.part(2, 5), other.part(2, 5)) and same(one.select(rows), other.select(rows))
        assert same(one.to(torch.device("cpu")), other.to(torch.device("cpu")))
    assert same(Batch.join(seen), Batch.join(list(stream().batches(0, 7, unseen=True))))


def test_nobody_looks_on_the_way() -> None:
    """Keys, size and parts are had without pixels; looking makes them once."""
    made: list[int] = []

    def make(ids: Any, views: Any) -> torch.Tensor:
        made.append(len(ids))
        return torch.zeros(len(ids), 100)

    batch = UnseenBatch(np.arange(6), np.zeros(6, np.int64), torch.zeros(6, dtype=torch.int64), make)
    assert len(batch) == 6 and batch.nbytes == 96 and batch.partners is None
    part = batch.part(0, 4).select(np.array([True, False, True, False]))
    assert part.sample_ids.tolist() == [0, 2] and made == []
    assert part.inputs is part.inputs and made == [2]
    assert part.nbytes == part.inputs.nbytes
    with pytest.raises(AttributeError, match="pixels"):
        _ = batch.pixels  # type: ignore[attr-defined]


def test_mixed_views_are_made() -> None:
    """What is mixed in is known only when pixels are: such batches are made as ever."""
    section = {"mix": {"kind": "mixup"}}
    (one,), (other,) = (list(stream(**section).batches(2, 3, unseen=unseen)) for unseen in (False, True))
    assert not isinstance(other, UnseenBatch) and same(one, other)
    assert one.shares is not None and other.shares is not None and torch.equal(one.shares, other.shares)
