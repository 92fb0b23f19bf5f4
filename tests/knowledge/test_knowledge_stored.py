"""The stored source: whatever the store holds already, a student is told the same, in the same order."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import StorageError
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.encode import Codec, Encoding
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.knowledge.source import Answerer, AskedRows, EncodedRows, Held, UnstoredSource
from stillhouse.knowledge.stored import Reading, StoredSource
from stillhouse.knowledge.writer import Writer
from stillhouse.store.label_store import LabelStore, open_store
from stillhouse.store.manifest import Identity

SAMPLES, CLASSES, VIEWS = 40, 4, 2
ASK = Ask()
NUMBERS = itertools.count()
ENCODINGS = st.sampled_from([Encoding(), Encoding("fp16"), Encoding("top", 2)])


def answer(batch: Batch) -> Knowledge:
    """A teacher whose logits are a function of the key."""
    seeds = torch.from_numpy(batch.sample_ids * VIEWS + batch.views).double()[:, None]
    logits = (torch.sin(seeds * torch.arange(1, CLASSES + 1)) * 5).float()
    return Knowledge(batch.sample_ids, batch.views, logits)


def batch(ids: NDArray[np.int64], view: int) -> Batch:
    inputs = torch.zeros(len(ids), 1, 2, 2, dtype=torch.uint8)
    return Batch(ids, np.full(len(ids), view), inputs, torch.zeros(len(ids), dtype=torch.int64))


def batches(sizes: list[int]) -> list[Batch]:
    cuts = np.cumsum([0, *sizes])
    keys = np.random.default_rng(len(sizes)).permutation(SAMPLES)
    return [batch(keys[start:stop], number % VIEWS) for number, (start, stop) in enumerate(itertools.pairwise(cuts))]


class Desk:
    """A source over a fresh store in ``folder``, and the questions that its teacher was asked."""

    def __init__(self, folder: Path, encoding: Encoding, group: int = 1, reads: Reading | None = None) -> None:
        self.asked: list[int] = []
        self.codec = Codec(ASK, encoding, CLASSES, {})
        fields = [(name, self.codec.row[name].base.str, self.codec.row[name].shape) for name in self.codec.row.names]
        identity = Identity({"teacher": "sine"}, encoding.describe(), {}, {})
        self.store = open_store(folder, identity, fields, SAMPLES, None)
        self.refusals: list[StorageError] = []
        self.writer = Writer(self.store, self.refusals.append)
        rows = AskedRows(Answerer(self.answer, group), self.codec)
        self.source = StoredSource(ASK, self.codec, self.store, rows, self.writer, reads)

    def answer(self, batch: Batch) -> Knowledge:
        self.asked.append(len(batch))
        return answer(batch)

    def close(self) -> None:
        self.writer.close()
        self.store.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


SIZES = st.lists(st.integers(0, 8), max_size=5)


@given(SIZES, SIZES, st.integers(1, 16), ENCODINGS)
def test_what_is_read_and_what_is_asked_are_told_alike(
    root: Path, before: list[int], now: list[int], group: int, encoding: Encoding
) -> None:
    """Whatever was stored before, every batch gets the very bits of the teacher's answer about it, encoded."""
    folder = root / str(next(NUMBERS))
    filling = Desk(folder, encoding, group)
    list(filling.source.teach(batches(before)))
    filling.close()
    reading = Desk(folder, encoding, group)
    told = list(reading.source.teach(batches(now)))
    reading.close()
    assert [len(each) for each, _ in told] == now
    for batch_told, knowledge in told:
        knowledge.check_aligned(batch_told)
        assert torch.equal(knowledge.logits, reading.codec.round_trip(answer(batch_told)).logits)


@given(SIZES, st.integers(1, 16))
def test_nothing_is_asked_twice(root: Path, sizes: list[int], group: int) -> None:
    """A second pass over the same views reads everything, asks nothing, and counts it so."""
    desk = Desk(root / str(next(NUMBERS)), Encoding(), group)
    views = sum(sizes)
    list(desk.source.teach(batches(sizes)))
    desk.writer.drain()
    written = {"bytes_written": views * desk.store.row_bytes, "rows_damaged": 0}
    assert (sum(desk.asked), desk.source.counts()) == (views, {"hits": 0, "misses": views, **written})
    list(desk.source.teach(batches(sizes)))
    nothing = {"bytes_written": 0, "rows_damaged": 0}
    assert (sum(desk.asked), desk.source.counts()) == (views, {"hits": views, "misses": 0, **nothing})
    desk.close()


def test_a_whole_batch_that_is_there_passes_without_the_teacher(tmp_path: Path) -> None:
    """Batches that are stored come at once, though a far larger group could be asked."""
    desk = Desk(tmp_path, Encoding(), group=1000)
    list(desk.source.teach(batches([5, 5])))
    desk.writer.drain()
    taken = 0

    def counted() -> Iterator[Batch]:
        nonlocal taken
        for each in batches([5, 5]):
            taken += 1
            yield each

    next(desk.source.teach(counted()))
    assert taken == 1
    desk.close()


def test_a_disk_that_refuses_ends_the_writing_and_not_the_lesson(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is told once; the student goes on being taught."""
    desk = Desk(tmp_path, Encoding())

    def full(self: LabelStore, *rows: object) -> int:
        raise StorageError("the disk is full")

    monkeypatch.setattr(LabelStore, "write", full)
    told = list(desk.source.teach(batches([3, 3, 3])))
    desk.close()
    assert len(told) == 3 and [str(each) for each in desk.refusals] == ["the disk is full"]
    assert desk.writer.bytes_written == 0


def test_an_abandoned_lesson_leaves_no_thread_waiting(tmp_path: Path) -> None:
    """Closing the answers in the middle, then the writer, ends everything, and what was asked is stored."""
    desk = Desk(tmp_path, Encoding())
    answers = desk.source.teach(batches([4, 4, 4]))
    next(answers)
    answers.close()
    desk.close()
    again = Desk(tmp_path, Encoding())
    assert len(again.store.missing(np.arange(SAMPLES), 0)) <= SAMPLES - 4
    again.close()


def test_a_writer_that_fails_never_holds_anybody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the disk, or the one who is told of it, raises: draining and closing end, and the asker hears it."""
    desk = Desk(tmp_path, Encoding())

    def broken(self: LabelStore, *rows: object) -> int:
        raise StorageError("the disk is full")

    def told(error: StorageError) -> None:
        raise ValueError("nor can it be told")

    monkeypatch.setattr(LabelStore, "write", broken)
    writer = Writer(desk.store, told)
    rows = np.zeros((1, desk.codec.row.itemsize), np.uint8)
    writer.put(np.array([0]), np.array([0]), rows)
    with pytest.raises(ValueError, match="nor can it be told"):
        writer.drain()
    writer.put(np.array([1]), np.array([0]), rows)
    writer.drain()
    writer.close()
    desk.close()


def test_a_writer_holds_no_more_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk makes the asker wait once the bytes are reached; nothing is lost."""
    desk = Desk(tmp_path, Encoding())
    gate, held = threading.Semaphore(0), []
    write = LabelStore.write

    def slow(self: LabelStore, *rows: NDArray[np.int64]) -> int:
        gate.acquire()
        return write(self, *rows)

    monkeypatch.setattr(LabelStore, "write", slow)
    rows = np.zeros((2, desk.codec.row.itemsize), np.uint8)
    writer = Writer(desk.store, desk.refusals.append, bytes_max=3 * rows.nbytes)

    def ask() -> None:
        for number in range(8):
            writer.put(np.array([2 * number, 2 * number + 1]), np.array([0, 0]), rows)
            held.append(number)

    asker = threading.Thread(target=ask)
    asker.start()
    while len(held) < 3:
        time.sleep(0.001)
    time.sleep(0.05)
    assert len(held) == 3
    for _ in range(8):
        gate.release()
    asker.join()
    writer.close()
    assert len(desk.store.missing(np.arange(16), 0)) == 0
    desk.close()


class TestReading:
    """Whether reading pays is told from what happens anyway; nobody is woken for it."""

    def passes(self, read_s: float, asked_s: float | None) -> tuple[Reading, list[tuple[float, float]]]:
        """After 30 batches of four views, a view's reading and asking taking what is said."""
        told: list[tuple[float, float]] = []
        reading = Reading(lambda *seconds: told.append(seconds))
        for _ in range(30):
            reading.note(4 * read_s, 4, asked_s)
        return reading, told

    def test_the_slower_of_both_is_left(self) -> None:
        """A store slower than the teacher is given up, and it is told once."""
        reading, told = self.passes(0.5, 0.1)
        assert not reading.pays and told == [(0.5, 0.1)]

    def test_the_faster_of_both_stays(self) -> None:
        """A store faster than the teacher is kept, and it is told once."""
        reading, told = self.passes(0.1, 0.5)
        assert reading.pays and told == [(0.1, 0.5)]

    def test_a_teacher_who_was_never_asked_stays_asleep(self) -> None:
        """As long as nothing was asked, reading goes on and nothing is told."""
        reading, told = self.passes(0.5, None)
        assert reading.pays and told == []

    def test_a_store_given_up_is_neither_read_nor_written(self, tmp_path: Path) -> None:
        """From then on every view is asked."""
        desk = Desk(tmp_path, Encoding(), reads=self.passes(0.5, 0.1)[0])
        list(desk.source.teach(batches([3, 3])))
        desk.close()
        assert sum(desk.asked) == 6 and desk.writer.bytes_written == 0


class Nobody:
    """Behind the store stands nobody."""

    view_s = None

    def rows(self, asked: Iterable[Batch], held: Held | None = None) -> Iterator[tuple[Batch, None]]:
        for batch in asked:
            yield batch, None

    def waits(self) -> dict[str, float]:
        return {}

    def counts(self) -> dict[str, int]:
        return {}


class Holding(AskedRows):
    """Looks at what is kept of the batches that it was given and has not handed back."""

    def rows(self, batches: Iterable[Batch], held: Held | None = None) -> Iterator[tuple[Batch, EncodedRows]]:
        assert held is not None
        self.held = []
        for part in batches:
            self.held.append([len(each) for each in held()])
            yield from super().rows([part])


def test_whoever_answers_is_told_what_is_kept(root: Path) -> None:
    """Of batches that are mostly stored the whole is in memory until the rest is answered, and that is told."""
    desk = Desk(root / str(next(NUMBERS)), Encoding())
    list(desk.source.teach([each.part(0, 5) for each in batches([7, 6])]))
    desk.writer.drain()
    behind = Holding(Answerer(desk.answer, 1), desk.codec)
    source = StoredSource(ASK, desk.codec, desk.store, behind, desk.writer, None)
    list(source.teach(batches([7, 6])))
    assert behind.held == [[7], [6]] and desk.asked[-3:] == [1, 1, 1]


def test_what_nobody_answers_is_not_taken_for_an_answer(root: Path) -> None:
    """With nobody to ask, stored views are known and the others are not; nothing is written, and it is counted."""
    desk = Desk(root / str(next(NUMBERS)), Encoding(), 4)
    (stored,) = batches([5])
    list(desk.source.teach([stored]))
    desk.writer.drain()
    lonely = StoredSource(ASK, desk.codec, desk.store, Nobody(), desk.writer, None)  # type: ignore[arg-type]
    desk.writer.news()
    (more,) = batches([7])
    told = dict(zip(("known", "partly"), lonely.teach([stored, more]), strict=True))
    assert told["known"][1].known is None
    mask = told["partly"][1].known
    there = desk.store.read(more.sample_ids, more.views)[1]
    assert mask is not None and mask.tolist() == there.tolist() and not there.all()
    counts = lonely.counts()
    assert (counts["misses"], counts["unanswered"], counts["bytes_written"]) == (0, int((~there).sum()), 0)
    unstored = UnstoredSource(ASK, desk.codec, Nobody())  # type: ignore[arg-type]
    ((_, knowledge),) = unstored.teach([more])
    assert knowledge.known is not None and not knowledge.known.any() and unstored.counts() == {"unanswered": len(more)}
    desk.close()
