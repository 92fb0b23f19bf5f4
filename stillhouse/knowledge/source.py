"""Who answers: the one protocol between students and whatever knows more than they do.

A source is asked for a run of batches and yields each with its knowledge **in the order asked**. It may look
ahead, ask elsewhere, read from disk; the student can't tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from stillhouse.data.batch import Batch
from stillhouse.foundation.clock import Stopwatch
from stillhouse.knowledge.knowledge import Knowledge


class KnowledgeSource(Protocol):
    """Answers batches.

    Attributes:
        watch: where the seconds between two answers went, by name (``data``, ``teacher``, ``step``, ...), as the
            student's process sees it; the training loop takes them with every progress event.
    """

    watch: Stopwatch

    def teach(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Knowledge]]:
        """Yield every batch with its knowledge, in order. Closing the iterator ends the asking."""


class InlineSource:
    """Asks a teacher in this process, batch by batch: the simplest source, and the slowest on shared cores.

    Args:
        answer: the teacher; its answer must be aligned with the batch.
    """

    def __init__(self, answer: Callable[[Batch], Knowledge]) -> None:
        self._answer = answer
        self.watch = Stopwatch()

    def teach(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Knowledge]]:
        """Answer one batch at a time, when the student asks for it."""
        self.watch.lap("step")
        for batch in batches:
            self.watch.lap("data")
            knowledge = self._answer(batch)
            self.watch.lap("teacher")
            yield batch, knowledge
            self.watch.lap("step")


class NoKnowledge:
    """Answers nothing: for teachers in training and for controls, which learn from labels alone."""

    def __init__(self) -> None:
        self.watch = Stopwatch()

    def teach(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Knowledge]]:
        """Yield every batch with empty knowledge."""
        self.watch.lap("step")
        for batch in batches:
            self.watch.lap("data")
            yield batch, Knowledge(batch.sample_ids, batch.views)
            self.watch.lap("step")
