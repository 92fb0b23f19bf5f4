"""What is stored once is asked once, however few views there are and however far ahead whoever answers looks."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.data.batch import Batch
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.encode import Codec, Encoding
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.knowledge.source import EncodedRows
from stillhouse.knowledge.stored import StoredSource
from stillhouse.knowledge.writer import Writer
from stillhouse.store.label_store import LabelStore, open_store
from stillhouse.store.manifest import Identity

SAMPLES, CLASSES = 6, 4
CODEC = Codec(Ask(), Encoding(), CLASSES, {})
NUMBERS = itertools.count()


def right(batch: Batch) -> Knowledge:
    """An answer that differs with the key."""
    numbers = torch.from_numpy(batch.sample_ids * 8 + batch.views).float()
    return Knowledge(batch.sample_ids, batch.views, numbers[:, None] + torch.arange(CLASSES) / 8)


class Ahead:
    """Answers so many batches late, and nothing about those whose number is in ``silent``."""

    view_s = None

    def __init__(self, ahead: int, silent: set[int]) -> None:
        self._ahead, self._silent = ahead, silent
        self.asked: list[tuple[int, int]] = []

    def rows(self, batches: Iterable[Batch], *held: Any) -> Iterator[tuple[Batch, EncodedRows | None]]:
        line: deque[tuple[int, Batch]] = deque()
        for each in enumerate(batches):
            line.append(each)
            if len(line) > self._ahead:
                yield self._answered(*line.popleft())
        while line:
            yield self._answered(*line.popleft())

    def _answered(self, number: int, batch: Batch) -> tuple[Batch, EncodedRows | None]:
        if number in self._silent:
            return batch, None
        self.asked += zip(batch.sample_ids.tolist(), batch.views.tolist(), strict=True)
        return batch, CODEC.encode(right(batch))

    def waits(self) -> dict[str, float]:
        return {}

    def counts(self) -> dict[str, int]:
        return {}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


def opened(folder: Path) -> LabelStore:
    """A fresh store of a few samples."""
    fields = [(name, CODEC.row[name].base.str, CODEC.row[name].shape) for name in CODEC.row.names or ()]
    return open_store(folder, Identity({"teacher": "line"}, Encoding().describe(), {}, {}), fields, SAMPLES, None)


KEY = st.tuples(st.integers(0, SAMPLES - 1), st.integers(0, 1))


@given(
    keys=st.lists(st.lists(KEY, max_size=6), max_size=12),
    ahead=st.integers(0, 12),
    silent=st.sets(st.integers(0, 11), max_size=3),
    slow=st.booleans(),
    cut=st.integers(0, 12),
)
def test_each_view_is_asked_once(
    root: Path, keys: list[list[tuple[int, int]]], ahead: int, silent: set[int], slow: bool, cut: int
) -> None:
    """In a source's life each view is asked once, whatever comes again while it is asked or waits to be written; every
    batch is told right, and only what nobody answered is unknown.
    """
    store = opened(root / str(next(NUMBERS)))
    may_write, write = threading.Event(), store.write
    store.write = lambda *rows: (may_write.wait(), write(*rows))[1]  # type: ignore[method-assign]
    if not slow:
        may_write.set()
    writer = Writer(store, lambda error: None)
    behind = Ahead(ahead, silent)
    source = StoredSource(Ask(), CODEC, store, behind, writer)
    try:
        for part in (keys[:cut], keys[cut:]):
            batches = []
            for each in part:
                ids, views = np.array(each, np.int64).reshape(-1, 2).T
                batches.append(Batch(ids, views, torch.zeros(len(each), 1), torch.zeros(len(each), dtype=torch.int64)))
            told = list(source.teach(batches))
            assert [batch.sample_ids.tolist() for batch, _ in told] == [each.sample_ids.tolist() for each in batches]
            for batch, knowledge in told:
                known = torch.ones(len(batch), dtype=torch.bool) if knowledge.known is None else knowledge.known
                assert torch.equal(knowledge.logits[known], right(batch).logits[known])
                assert silent or known.all()
    finally:
        may_write.set()
        writer.close()
    counts = source.counts()
    assert len(behind.asked) == len(set(behind.asked)) == counts["misses"]
    assert sum(counts.get(name, 0) for name in ("hits", "misses", "unanswered")) == sum(map(len, keys))
    store.close()
