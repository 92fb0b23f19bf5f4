"""Who answers: the one protocol between students and whatever knows more than they do.

A source is asked for a run of batches and yields each with its knowledge **in the order asked**. It may look
ahead, ask elsewhere, read from disk; the student can't tell. What it hands out has always gone through the codec, as if
read from a store: so a result does not depend on which rows were read and which were asked.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.batch import Batch
from stillhouse.knowledge.ask import NOTHING, Ask
from stillhouse.knowledge.encode import Codec
from stillhouse.knowledge.grouping import answered_in_groups
from stillhouse.knowledge.knowledge import Knowledge

EncodedRows = NDArray[np.uint8]
Held = Callable[[], Sequence[Batch]]
_AHEAD = 8


class KnowledgeSource(Protocol):
    """Answers one question about batches.

    Attributes:
        ask: the question that it answers.
    """

    ask: Ask

    def teach(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Knowledge]]:
        """Yield every batch with its knowledge, in order. Closing the iterator ends the asking."""

    def waits(self) -> dict[str, float]:
        """Seconds that the asker waited for knowledge since the last call, by cause (``teacher``, ``store``).

        What it waited for batches is not in it: the training loop knows the whole wait, and calls the rest ``data``.
        """

    def counts(self) -> dict[str, int]:
        """What happened since the last call, in numbers (``hits``, ``misses``: views read from a store, and asked)."""


class RowSource(Protocol):
    """Whoever answers what a store does not hold, in encoded rows: the teacher in this process, or a fleet.

    Attributes:
        view_s: seconds that a view takes, once asked; None before.
    """

    @property
    def view_s(self) -> float | None:
        """Seconds that asking about a view took; None before."""

    def rows(self, batches: Iterable[Batch], held: Held | None = None) -> Iterator[tuple[Batch, EncodedRows | None]]:
        """Yield every batch with its rows [B, row bytes], in order; None: nobody is there to be asked about it.

        Some batches are empty; they pass at once.

        Args:
            held: what whoever asks keeps in memory of the batches that were asked about and not yielded yet, the latest
                last, where it is more than those batches.
        """

    def waits(self) -> dict[str, float]:
        """As in :class:`KnowledgeSource`."""

    def counts(self) -> dict[str, int]:
        """As in :class:`KnowledgeSource`, of whoever answers."""


@dataclass(frozen=True)
class Answerer:
    """A teacher in this process.

    Attributes:
        answer: a batch of any size -> knowledge aligned with it.
        group: views that it answers at once.
    """

    answer: Callable[[Batch], Knowledge]
    group: int


class AskedRows:
    """The teacher in this process, asked each time: the simplest source of rows, and the slowest on shared cores."""

    def __init__(self, teacher: Answerer, codec: Codec) -> None:
        self._teacher, self._codec = teacher, codec
        self._teacher_s = 0.0
        self._groups_s: deque[float] = deque(maxlen=9)

    @property
    def view_s(self) -> float | None:
        """Median of the last few full groups, encoding included."""
        return statistics.median(self._groups_s) if self._groups_s else None

    def rows(self, batches: Iterable[Batch], held: Held | None = None) -> Iterator[tuple[Batch, EncodedRows]]:
        """Answer and encode, as many views at once as the teacher likes."""
        return answered_in_groups(batches, self._answer, size=self._teacher.group, ahead=_AHEAD)

    def _answer(self, batch: Batch) -> EncodedRows:
        if len(batch) == 0:
            return np.empty((0, self._codec.row.itemsize), np.uint8)
        begun = time.perf_counter()
        knowledge = self._teacher.answer(batch)
        knowledge.check_aligned(batch)
        rows = self._codec.encode(knowledge)
        spent = time.perf_counter() - begun
        self._teacher_s += spent
        if len(batch) >= self._teacher.group:
            self._groups_s.append(spent / len(batch))
        return rows

    def waits(self) -> dict[str, float]:
        """The teacher's time."""
        waited, self._teacher_s = self._teacher_s, 0.0
        return {"teacher": waited}

    def counts(self) -> dict[str, int]:
        """Nothing but answers happens here."""
        return {}


class UnstoredSource:
    """Hands on what whoever answers says, and keeps nothing.

    Args:
        ask: the question that is answered.
        codec: form in which knowledge is handed out.
        behind: who answers.
    """

    def __init__(self, ask: Ask, codec: Codec, behind: RowSource) -> None:
        self.ask = ask
        self._codec, self._behind = codec, behind
        self._unanswered = 0

    def teach(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Knowledge]]:
        """Decode rows as they come."""
        for batch, rows in self._behind.rows(batches):
            known = None
            if rows is None:
                self._unanswered += len(batch)
                rows, known = np.zeros((len(batch), self._codec.row.itemsize), np.uint8), np.zeros(len(batch), np.bool_)
            yield batch, self._codec.decode(rows, batch.sample_ids, batch.views, known)

    def waits(self) -> dict[str, float]:
        """Of whoever answers."""
        return self._behind.waits()

    def counts(self) -> dict[str, int]:
        """Views about which nobody was there to be asked (``unanswered``), and what whoever answers counts."""
        unanswered, self._unanswered = self._unanswered, 0
        return self._behind.counts() | ({"unanswered": unanswered} if unanswered else {})


class NoKnowledge:
    """Answers nothing: for teachers in training and for controls, which learn from labels alone."""

    ask = NOTHING

    def teach(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Knowledge]]:
        """Yield every batch with empty knowledge."""
        for batch in batches:
            yield batch, Knowledge(batch.sample_ids, batch.views)

    def waits(self) -> dict[str, float]:
        """Nobody waits for nothing."""
        return {}

    def counts(self) -> dict[str, int]:
        """Nothing happened."""
        return {}
