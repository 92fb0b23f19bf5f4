"""Who may answer for a run's teacher: a worker shows its answers about a few views, and they are looked at.

Weights, engine, data and code that can be named were compared by the worker itself (``runner.worker``); this sees the
rest, such as a module's code that changed while its weights did not. Where each worker has an engine of its own, its
answers must be as near to those of fp32 as the recipe wants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from stillhouse.data.batch import Batch
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.encode import Codec
from stillhouse.knowledge.source import EncodedRows
from stillhouse.models.network import Network
from stillhouse.recipe.engines import TeacherEngineSection
from stillhouse.runner.answers import distance
from stillhouse.teachers.engine import Teacher

OTHERWISE = 0.05
"""Relative squared error: no engine strays as far."""


class Gate:
    """Looks at workers that want in.

    Args:
        probe: views that every worker answers first.
        known: earlier answers about them, where there are any: encoded rows.
        own_within: each worker has an engine of its own, so far from fp32 at most: mean KL in nats, and relative
            squared error of activations; None: all have the run's.
        warn: told when a worker's answers differ in their last bits from earlier ones.
    """

    def __init__(
        self,
        teacher: Network,
        ask: Ask,
        codec: Codec,
        device: torch.device,
        probe: Batch,
        known: EncodedRows | None,
        warn: Callable[[str], None],
        own_within: float | None = None,
    ) -> None:
        self._codec, self._probe, self._known, self._warn = codec, probe, known, warn
        self._own_within = own_within
        engine = Teacher(teacher, ask, device, TeacherEngineSection(batch_size=len(probe)))
        try:
            self._truth = codec.round_trip(engine.answer(probe).to(torch.device("cpu")))
        finally:
            engine.close()

    @property
    def proof_bytes(self) -> int:
        """How long the answers are that a worker shows."""
        return len(self._probe) * self._codec.row.itemsize

    def __call__(self, facts: Mapping[str, Any], proof: bytes | bytearray) -> str | None:
        """Why a worker is turned away, or None."""
        if len(proof) != self.proof_bytes:
            return (
                f"it shows answers of {len(proof)} bytes, where {self.proof_bytes} are wanted: install the same "
                "stillhouse on both sides"
            )
        rows = np.frombuffer(proof, np.uint8).reshape(len(self._probe), -1)
        answers = self._codec.decode(rows, self._probe.sample_ids, self._probe.views)
        away = distance(self._truth, answers)
        if not away.relative <= OTHERWISE:
            return (
                f"it has the teacher's weights and answers otherwise (relative squared error {away.relative:.2g}): its "
                "code or its libraries differ from the run's"
            )
        if self._own_within is not None:
            return _too_far(away.divergence, self._own_within, facts)
        if self._known is None:
            self._known = rows
        elif not np.array_equal(rows, self._known):
            self._warn(
                f"a worker on {facts.get('host')} ({facts.get('device')}) answers with other last bits than were seen "
                "before: results will depend on who answered what, by as little"
            )
        return None


def _too_far(divergence: float, bound: float, facts: Mapping[str, Any]) -> str | None:
    if divergence <= bound:
        return None
    return (
        f"its engine ({facts.get('engine')}) answers {divergence:.2g} nats from fp32, and teacher.divergence_max "
        f"allows {bound:g}: join with --set teacher.engine.precision=fp32"
    )
