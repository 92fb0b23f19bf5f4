"""Stops a training whose loss is NaN, infinite or exploding, and says on which samples.

Reading a loss waits for the device. On a CPU it is read at once; on an accelerator a few steps late, so
that the device never waits; always before a checkpoint.
"""

from __future__ import annotations

import math
from collections import deque

import torch

from stillhouse.foundation.errors import DivergedError
from stillhouse.students.checkpoint import Keeper
from stillhouse.students.state import TrainingState, named_samples

_LAG_STEPS = 8


class LossGuard:
    """Watches the total loss of every step.

    Args:
        ratio_max: largest loss allowed, in units of the first step's.
    """

    def __init__(self, phase: str, state: TrainingState, ratio_max: float, checkpoints: Keeper | None) -> None:
        self._phase = phase
        self._state = state
        self._ratio_max = ratio_max
        self._checkpoints = checkpoints
        self._open: deque[tuple[int, torch.Tensor, torch.Tensor]] = deque()

    def watch(self, step: int, sample_ids: torch.Tensor, loss: torch.Tensor) -> None:
        """Take note of a step's loss; looks at it when that costs nothing.

        Raises:
            DivergedError: an earlier or this step's loss is out of bounds.
        """
        self._open.append((step, sample_ids, loss))
        lag = 0 if loss.device.type == "cpu" else _LAG_STEPS
        while len(self._open) > lag:
            self._look(*self._open.popleft())

    def settle(self) -> None:
        """Look at all that is still open."""
        while self._open:
            self._look(*self._open.popleft())

    def _look(self, step: int, sample_ids: torch.Tensor, loss: torch.Tensor) -> None:
        value = loss.item()
        if self._state.first_loss is None:
            self._state.first_loss = value
        bound = self._ratio_max * max(abs(self._state.first_loss), 1.0)
        if math.isfinite(value) and value <= bound:
            return
        what = (
            f"exploded to {value:.4g} (first: {self._state.first_loss:.4g})" if math.isfinite(value) else f"is {value}"
        )
        newest = self._checkpoints.newest() if self._checkpoints else None
        kept = f"The last good checkpoint is {newest}." if newest else "No checkpoint was written before."
        raise DivergedError(
            f"{self._phase}: the loss {what} at step {step}, {named_samples(sample_ids)}. {kept} "
            "Look at these samples, or begin a new run with a lower learning rate or clip_norm"
        )
