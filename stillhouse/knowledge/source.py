"""Who answers: the one protocol between students and whatever knows more than they do.

A source is asked for a run of batches and yields each with its knowledge **in the order asked**. It may look
ahead, ask elsewhere, read from disk; the student can't tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from stillhouse.data.batch import Batch
from stillhouse.knowledge.ask import NOTHING, Ask
from stillhouse.knowledge.knowledge import Knowledge


class KnowledgeSource(Protocol):
    """Answers one question about batches.

    Attributes:
        ask: the question that it answers.
    """

    ask: Ask

    def teach(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Knowledge]]:
        """Yield every batch with its knowledge, in order. Closing the iterator ends the asking."""

    def waits(self) -> dict[str, float]:
        """Seconds that the asker waited for knowledge since the last call, by cause (``teacher``, ...).

        What it waited for batches is not in it: the training loop knows the whole wait, and calls the rest ``data``.
        """


class InlineSource:
    """Asks a teacher in this process, batch by batch: the simplest source, and the slowest on shared cores.

    Args:
        answer: the teacher; its answer must be aligned with the batch.
        ask: the question that it answers.
    """

    def __init__(self, answer: Callable[[Batch], Knowledge], ask: Ask) -> None:
        self.ask = ask
        self._answer = answer
        self._teacher_s = 0.0

    def teach(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Knowledge]]:
        """Answer one batch at a time, when the student asks for it."""
        for batch in batches:
            begun = time.perf_counter()
            knowledge = self._answer(batch)
            self._teacher_s += time.perf_counter() - begun
            yield batch, knowledge

    def waits(self) -> dict[str, float]:
        """The teacher's time: the student waits for all of it."""
        waited, self._teacher_s = self._teacher_s, 0.0
        return {"teacher": waited}


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
