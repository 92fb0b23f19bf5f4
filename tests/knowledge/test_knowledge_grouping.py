"""Asking in groups: whatever the sizes, every batch gets its own answers, in order, and few groups are half empty."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stillhouse.data.batch import Batch
from stillhouse.knowledge.grouping import answered_in_groups

SIZES = st.lists(st.integers(0, 9), max_size=12)


def batches(sizes: list[int]) -> list[Batch]:
    made, start = [], 0
    for size in sizes:
        ids = np.arange(start, start + size)
        made.append(Batch(ids, ids % 5, torch.from_numpy(ids)[:, None], torch.zeros(size, dtype=torch.int64)))
        start += size
    return made


def grouped(asked: list[Batch], size: int, ahead: int) -> tuple[list[tuple[Batch, list[int]]], list[int]]:
    """What came back, and the sizes of the groups asked."""
    groups = []

    def answer(batch: Batch) -> NDArray[np.int64]:
        groups.append(len(batch))
        return plain(batch)

    found = answered_in_groups(asked, answer, size=size, ahead=ahead)
    return [(batch, rows.tolist()) for batch, rows in found], groups


@given(SIZES, st.integers(1, 20), st.integers(1, 6))
def test_every_batch_comes_back_in_order_with_its_own_answers(sizes: list[int], size: int, ahead: int) -> None:
    """Batches come back as they were asked, each with the answers to its own views."""
    asked = batches(sizes)
    found, _ = grouped(asked, size, ahead)
    assert [id(batch) for batch, _ in found] == [id(each) for each in asked]
    assert all(answers == [1000 + each for each in batch.sample_ids] for batch, answers in found)


@given(SIZES, st.integers(1, 20))
def test_groups_are_full_but_for_the_last(sizes: list[int], size: int) -> None:
    """Where enough batches may wait, all groups but the last have the teacher's size."""
    _, groups = grouped(batches([each for each in sizes if each]), size, ahead=99)
    assert all(each == size for each in groups[:-1])
    assert sum(groups) == sum(sizes)


@given(SIZES, st.integers(1, 20), st.integers(1, 6))
def test_it_looks_no_further_ahead_than_it_may(sizes: list[int], size: int, ahead: int) -> None:
    """At most ``ahead`` batches, and what fills a group, are taken before the first comes back."""
    taken = 0

    def counted() -> Iterator[Batch]:
        nonlocal taken
        for each in batches(sizes):
            taken += 1
            yield each

    given_back = 0
    for _ in answered_in_groups(counted(), plain, size=size, ahead=ahead):
        assert taken - given_back <= ahead + 1
        given_back += 1
    assert given_back == len(sizes)


def test_a_batch_with_nothing_to_ask_passes_at_once() -> None:
    """An empty batch at the head does not wait for others to fill a group."""
    asked = iter(batches([0, 0, 3]))
    answers = answered_in_groups(asked, plain, size=100, ahead=50)
    assert [len(next(answers)[0]), len(next(answers)[0])] == [0, 0]
    assert len(next(asked)) == 3


def plain(batch: Batch) -> NDArray[np.int64]:
    return 1000 + batch.inputs[:, 0].numpy()
