"""Order and splits: bijections that depend on seed, epoch and position alone."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.data.digits import DigitsSource
from stillhouse.data.order import Order
from stillhouse.data.splits import check_labels, cut
from stillhouse.foundation.errors import DataError
from stillhouse.foundation.files import sha256

SEEDS = st.integers(0, 2**62)


@settings(deadline=None, max_examples=80)
@given(n=st.integers(0, 300), seed=SEEDS, epoch=st.integers(0, 2**20), views=st.none() | st.integers(1, 5))
def test_an_epoch_holds_every_sample_once(n: int, seed: int, epoch: int, views: int | None) -> None:
    """Whatever size, seed and epoch, the order is a permutation of the split's ids, in one view."""
    ids = np.arange(n) * 3 + 1
    found, view = Order(ids, seed, views).at(epoch, 0, n)
    assert np.array_equal(np.sort(found), ids)
    assert set(view.tolist()) <= {epoch if views is None else epoch % views}


@settings(deadline=None, max_examples=80)
@given(n=st.integers(1, 200), seed=SEEDS, data=st.data())
def test_a_position_is_a_pure_function(n: int, seed: int, data: st.DataObject) -> None:
    """What stands at a position does not depend on batch size, or on what was read before."""
    ids = np.arange(n)
    epoch, batch = data.draw(st.integers(0, 3)), data.draw(st.integers(1, n))
    order = Order(ids, seed, None)
    for other in data.draw(st.lists(st.integers(0, 3), max_size=3)):
        order.at(other, 0, 5)
    pieces = [order.at(epoch, start, min(start + batch, n))[0] for start in range(0, n, batch)]
    assert np.array_equal(np.concatenate(pieces), Order(ids, seed, None).at(epoch, 0, n)[0])


def test_threads_may_read_different_epochs() -> None:
    """At whatever line of ``at`` another thread comes in and asks for another epoch, both get their own."""
    expected = [Order(np.arange(9), 0, None).at(epoch, 0, 9)[0].tolist() for epoch in range(3)]
    order, before, came_in = Order(np.arange(9), 0, None), sys.gettrace(), 0
    for other in range(3):

        def intrude(frame: FrameType, event: str, _: Any, other: int = other) -> Any:
            nonlocal came_in
            if frame.f_code is Order.at.__code__ and event == "line":
                came_in += 1
                assert order.at(other, 0, 9)[0].tolist() == expected[other]
            return intrude

        order.at(0, 0, 9)
        sys.settrace(intrude)
        try:
            ids = order.at(1, 0, 9)[0].tolist()
        finally:
            sys.settrace(before)
        assert ids == expected[1]
    assert came_in > 12


def test_epochs_and_seeds_are_ordered_differently() -> None:
    """Another epoch or another seed gives another order."""
    orders = [Order(np.arange(50), seed, None).at(epoch, 0, 50)[0].tobytes() for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_order_is_what_it_always_was() -> None:
    """The order has changed: no run could be resumed or repeated."""
    order = Order(np.arange(1000), 7, 4)
    ids, views = order.at(5, 0, 8)
    assert ids.tolist() == [594, 729, 110, 744, 765, 413, 239, 504]
    assert views.tolist() == [1] * 8
    assert sha256(order.at(0, 0, 1000)[0].astype("<i8").tobytes())[:16] == "df61e61d4163501b"


@settings(deadline=None, max_examples=80)
@given(
    counts=st.lists(st.integers(3, 40), min_size=1, max_size=6),
    fraction=st.floats(0.01, 0.99),
    seed=SEEDS,
    shuffle=st.randoms(use_true_random=False),
)
def test_splits_are_disjoint_complete_and_hold_every_class(
    counts: list[int], fraction: float, seed: int, shuffle: object
) -> None:
    """A cut is disjoint and complete, ascending, reproducible, of the wanted share, with every class on both sides."""
    labels = np.repeat(np.arange(len(counts)), counts)
    shuffle.shuffle(labels)  # type: ignore[attr-defined]
    ids = np.arange(len(labels))
    stays, taken = cut(ids, labels, fraction, seed, "test")
    assert np.array_equal(np.sort(np.concatenate([stays, taken])), ids)
    for part in (stays, taken):
        assert (np.diff(part) > 0).all()
        assert set(labels[part].tolist()) == set(range(len(counts)))
    for label, count in enumerate(counts):
        have = int((labels[taken] == label).sum())
        assert abs(have - fraction * count) <= 1
    again = cut(ids, labels, fraction, seed, "test")
    assert np.array_equal(again[0], stays)
    assert np.array_equal(again[1], taken)


def test_splits_of_other_seeds_and_names_differ() -> None:
    """Another seed, or another split's name, cuts other samples."""
    ids, labels = np.arange(100), np.arange(100) % 2
    cuts = {cut(ids, labels, 0.3, *which)[1].tobytes() for which in ((0, "test"), (1, "test"), (0, "validation"))}
    assert len(cuts) == 3


def test_classes_with_few_samples_keep_one_for_training() -> None:
    """A class with one sample stays whole; one with two gives one."""
    stays, taken = cut(np.arange(3), np.array([0, 1, 1]), 0.9, 0, "test")
    assert stays.tolist()[0] == 0
    assert (len(stays), len(taken)) == (2, 1)


def test_splits_of_digits_are_what_they_always_were() -> None:
    """The cut of splits has changed: accuracies could not be compared with earlier ones."""
    labels = DigitsSource().labels
    stays, taken = cut(np.arange(len(labels)), labels, 0.2, 0, "test")
    assert taken[:8].tolist() == [1, 7, 9, 11, 20, 24, 35, 36]
    assert sha256(stays.astype("<i8").tobytes())[:16] == "6f9ed7f202912ebd"


class Labelled:
    """A source of nothing but labels."""

    name, class_names, digest = "x", (), ""

    def __init__(self, labels: list[int]) -> None:
        self.labels = np.array(labels, np.int64)

    def read(self, sample_id: int) -> None: ...

    def describe(self, sample_id: int) -> str:
        return f"x row {sample_id}"


@pytest.mark.parametrize(
    ("labels", "classes", "story"),
    [
        ([], 2, "no samples"),
        ([0, 1, -1], 2, "x row 2 has label -1, below 0"),
        ([0, 5, 1], 2, "x row 1 has label 5, beyond the last of 2"),
        ([0, 0], 1, "one class only"),
        ([0, 2, 2], 3, "class 1 has no samples"),
    ],
)
def test_labels_no_classifier_can_learn(labels: list[int], classes: int, story: str) -> None:
    """Labels out of range, missing classes and single classes are refused, with the sample's place."""
    with pytest.raises(DataError, match=story):
        check_labels(Labelled(labels), classes)
