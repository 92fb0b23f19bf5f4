"""Rows from a fleet: in order, about the right views, whatever the sizes, the window and the speed of answers."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import FleetError
from stillhouse.runtime.asker import Loan, Outcome, Question
from stillhouse.runtime.work import Attempt, Lease
from stillhouse.teachers.fleet import Fleet, FleetRows, NoTeacher
from stillhouse.teachers.messages import unpack

ROW = 16


def batch(ids: list[int]) -> Batch:
    """Views 0 of samples; pixels are the id."""
    keys = np.array(ids, np.int64)
    return Batch(keys, np.zeros(len(ids), np.int64), torch.tensor(ids).reshape(-1, 1), torch.tensor(ids))


def row_of(ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """The right answer about samples: their ids, twice."""
    return np.repeat(ids.reshape(-1, 1), 2, axis=1).astype("<i8").view(np.uint8)


class Scripted:
    """Stands for an asker whose fleet answers when it likes."""

    def __init__(self, window_bytes: int, seed: int) -> None:
        self.window_bytes, self.chance = window_bytes, random.Random(seed)
        self.open: deque[tuple[int, Question]] = deque()
        self.asked = self.most_bytes = self.helped = self.declined = 0
        self.done: set[int] = set()
        self.refused: set[int] = set()
        self.closed = False
        self.silent = 0
        self.sizes: list[int] = []

    def fits(self, nbytes: int) -> bool:
        return not self.open or self.bytes_open() + nbytes <= self.window_bytes

    def bytes_open(self) -> int:
        return sum(question.nbytes for _, question in self.open)

    def ask(self, question: Question) -> int:
        assert self.fits(question.nbytes) and not self.closed
        self.asked += 1
        self.open.append((self.asked - 1, question))
        self.sizes.append(question.size)
        self.most_bytes = max(self.most_bytes, self.bytes_open())
        return self.asked - 1

    def take(self, timeout_s: float, helps: bool = False) -> Outcome | Loan | None:
        self.silent -= 1
        if not self.open or self.silent >= 0 or self.chance.random() < 0.4:
            return None
        number, question = self.open[0]
        if helps and number not in self.done and self.chance.random() < 0.3:
            return Loan("s#1", Lease("s", number, 1), question)
        self.open.popleft()
        if number in self.refused:
            return Outcome(number, None, (Attempt("w-1", 1, 0.0, "boom"), Attempt("w-2", 2, 0.0, "bang")))
        return Outcome(number, row_of(unpack(question.pack({}))[0]).tobytes())

    def settle(self, loan: Loan, payload: memoryview | None) -> None:
        if payload is None:
            self.declined += 1
            return
        self.done.add(loan.lease.number)
        self.helped += 1
        assert bytes(payload) == row_of(unpack(loan.question.pack({}))[0]).tobytes()

    def at_hand(self) -> dict[int, bytes]:
        found = {number: row_of(unpack(question.pack({}))[0]).tobytes() for number, question in self.open}
        return {number: payload for number, payload in found.items() if number in self.done}

    def close(self) -> None:
        self.closed = True


def fleet_of(asker: Scripted, group: int, helps: bool = False, line_bytes: int = 10**6) -> FleetRows:
    """A source that talks with a scripted fleet."""
    return FleetRows(
        Fleet(
            asker=lambda: asker,  # type: ignore[arg-type, return-value]
            answer=lambda asked: row_of(asked.sample_ids),
            helps=lambda: helps,
            teachers=lambda: True,
            tell=lambda: None,
            group=group,
            row_bytes=ROW,
            line_bytes=line_bytes,
        )
    )


@given(
    sizes=st.lists(st.integers(0, 9), max_size=12),
    group=st.integers(1, 10),
    window=st.integers(1, 30 * ROW),
    line_bytes=st.integers(1, 200),
    helps=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_batch_gets_its_own_rows_in_order(
    sizes: list[int], group: int, window: int, line_bytes: int, helps: bool, seed: int
) -> None:
    """No batch is lost, none overtakes another, no row is about another view, and the window is kept."""
    asker, batches, start = Scripted(window, seed), [], 0
    for size in sizes:
        batches.append(batch(list(range(start, start + size))))
        start += size
    got = list(fleet_of(asker, group, helps, line_bytes).rows(batches))
    assert [each.sample_ids.tolist() for each, _ in got] == [each.sample_ids.tolist() for each in batches]
    for each, rows in got:
        assert rows is not None and rows.shape == (len(each), ROW) and np.array_equal(rows, row_of(each.sample_ids))
    assert asker.most_bytes <= max(window, group * ROW)
    assert asker.closed == bool(start)


def test_a_student_that_can_t_answer_gives_the_question_back() -> None:
    """What a student was lent and can't answer is answered by others."""
    asker = Scripted(10**6, 1)
    fleet = replace(fleet_of(asker, 2, helps=True)._fleet, answer=lambda asked: None)
    got = list(FleetRows(fleet).rows([batch([2 * each, 2 * each + 1]) for each in range(20)]))
    assert asker.declined > 0 and asker.helped == 0
    for each, rows in got:
        assert rows is not None and np.array_equal(rows, row_of(each.sample_ids))


def test_groups_are_full_while_there_is_enough_to_ask() -> None:
    """Views of consecutive batches are asked together: only the last group is not full."""
    asker = Scripted(10**6, 0)
    list(fleet_of(asker, 8).rows([batch([3 * each, 3 * each + 1, 3 * each + 2]) for each in range(9)]))
    assert asker.sizes == [8, 8, 8, 3]


def test_nobody_is_asked_for_nothing() -> None:
    """A student whose views are all stored never wakes the fleet."""
    asker = Scripted(10**6, 0)
    assert len(list(fleet_of(asker, 8).rows([batch([])] * 5))) == 5
    assert asker.asked == 0 and not asker.closed


def test_a_failure_tells_its_story() -> None:
    """A question that nobody could answer ends the student with samples, workers and reasons."""
    asker = Scripted(10**6, 0)
    asker.refused = {1}
    with pytest.raises(FleetError, match=r"sample 4, view 0(.|\n)*w-1: boom\n  w-2: bang"):
        list(fleet_of(asker, 4).rows([batch([0, 1, 2, 3]), batch([4, 5, 6, 7])]))
    assert asker.closed


def test_a_student_without_teachers_goes_on() -> None:
    """Batches about which nobody is left to be asked come without rows, in their order, until somebody is back."""
    fleets = [Scripted(10**6, 0), Scripted(10**6, 1)]
    fleets[0].refused, fleets[0].silent = set(), 3
    asked, back = iter(fleets), iter([False, False, True])

    def helps() -> bool:
        if fleets[0].open:
            raise NoTeacher
        return False

    source = FleetRows(
        Fleet(
            asker=lambda: next(asked),  # type: ignore[arg-type, return-value]
            answer=lambda batch: row_of(batch.sample_ids),
            helps=helps,
            teachers=lambda: next(back),
            tell=lambda: None,
            group=2,
            row_bytes=ROW,
            line_bytes=1,
        )
    )
    for each in fleets[:1]:
        each.take = lambda *_: None  # type: ignore[method-assign]
        each.close = each.open.clear  # type: ignore[method-assign]
    got = list(source.rows([batch([2 * each, 2 * each + 1]) for each in range(7)]))
    assert [each.sample_ids[0] for each, _ in got] == [0, 2, 4, 6, 8, 10, 12]
    assert [rows is None for _, rows in got] == [True] * 4 + [False] * 3
    for each, rows in got[4:]:
        assert rows is not None and np.array_equal(rows, row_of(each.sample_ids))


def test_answers_at_hand_are_handed_out_though_no_teacher_is_left() -> None:
    """Of the batches in line when the last teacher goes, those that are all answered have rows, the others none."""
    asker, back = Scripted(10**6, 0), iter([True])
    asker.silent, asker.done = 10**6, {1, 2, 4}

    def helps() -> bool:
        raise NoTeacher

    fleet = Fleet(
        asker=lambda: asker,  # type: ignore[arg-type, return-value]
        answer=lambda asked: row_of(asked.sample_ids),
        helps=helps,
        teachers=lambda: next(back),
        tell=lambda: None,
        group=2,
        row_bytes=ROW,
        line_bytes=10**6,
    )
    batches = [batch([0, 1]), batch([2, 3]), batch([4, 5, 6]), batch([]), batch([7, 8, 9])]
    got = list(FleetRows(fleet).rows(batches))
    assert [each.sample_ids.tolist() for each, _ in got] == [each.sample_ids.tolist() for each in batches]
    assert [rows is not None for _, rows in got] == [False, True, False, True, False] and asker.closed
    assert got[1][1] is not None and np.array_equal(got[1][1], row_of(np.array([2, 3])))


def test_pixels_go_only_to_who_asks_for_them() -> None:
    """A worker that sees the data gets keys; one that does not gets the pixels too."""
    asker = Scripted(10**6, 0)
    source = fleet_of(asker, 2).rows([batch([5, 6])])
    seen: list[Question] = []
    asker.ask = lambda question: (seen.append(question), Scripted.ask(asker, question))[1]  # type: ignore[method-assign]
    list(source)
    assert unpack(seen[0].pack({"reads": "mapped"}))[2] is None
    found = unpack(seen[0].pack({"reads": "sent"}))[2]
    assert found is not None and found.flatten().tolist() == [5, 6]
    assert seen[0].wrong(bytes(2 * ROW)) == "" and "31 bytes, not 32" in seen[0].wrong(bytes(31))


def test_waiting_is_counted_and_a_student_that_leaves_closes() -> None:
    """Seconds without the needed answer are the teacher's; a student that stops asking leaves nothing open."""
    asker = Scripted(10**6, 3)
    asker.silent = 9
    source = fleet_of(asker, 2)
    answers = source.rows([batch([1, 2]), batch([3, 4])])
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert asker.closed
    assert source.waits()["teacher"] > 0
    assert source.waits()["teacher"] == 0
    assert source.view_s is not None and source.view_s > 0


@pytest.mark.parametrize("line_bytes", [10**6, 10 * 4 * 8, 1])
def test_a_question_says_how_far_ahead_a_student_asks(line_bytes: int) -> None:
    """While nobody answers, as many views are asked about as each question says may be open, to a batch."""
    asker = Scripted(10**6, 0)
    asker.silent = 200
    served = fleet_of(asker, 2, line_bytes=line_bytes).rows(batch(list(range(4))) for _ in range(100))
    next(served)
    told = {question.most for _, question in asker.open}
    (most,) = told
    assert most is not None and most - 4 <= len(asker.sizes) * 2 <= most + 4
    for _ in range(5):
        next(served)
    assert asker.open and most - 12 <= len(asker.open) * 2, "answers are taken when they are needed, not as they come"
    served.close()


@pytest.mark.parametrize("asked", [[1] * 60, [1] + [16] * 60, [16, 0] * 30])
def test_batches_are_held_whole(asked: list[int]) -> None:
    """However little of a batch is asked about, memory is bounded by whole batches, and so is what may be open."""
    asker, pulled, taken = Scripted(10**6, 0), list[Batch](), 0
    asker.silent = 300
    wholes = [batch(list(range(16 * each, 16 * each + 16))) for each in range(60)]

    def parts() -> Iterator[Batch]:
        for whole, count in zip(wholes, asked, strict=False):
            pulled.append(whole)
            yield whole.part(0, count)

    served = fleet_of(asker, 1, line_bytes=5 * wholes[0].nbytes).rows(parts(), lambda: pulled[taken:])
    for _ in range(40):
        next(served)
        assert len(pulled) - taken <= 6
        assert {question.most for _, question in asker.open} <= {5 * 16}
        taken += 1
    served.close()  # type: ignore[attr-defined]
