"""What a replacement learns: the output that the teacher's block has for the same input."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.students.losses import squared_error
from stillhouse.students.objective import StepObjective

OUTPUT = "output"
"""The name under which a block's output stands among the features of the knowledge about it."""


class BlockObjective(StepObjective):
    """Normalised mean squared error, and the cosine where it has a weight.

    The error is in units of the output's variance about its channels' means: 1 is what the means alone would reach, 0
    is a perfect copy, whatever the scale of a block's output.

    Args:
        cosine: weight of 1 - cosine of the angle between the two at each place.
    """

    def __init__(self, cosine: float = 0.0) -> None:
        super().__init__()
        self._cosine = cosine

    @property
    def ask(self) -> Ask:
        """The output of the teacher's block."""
        return Ask(logits=False, features=(OUTPUT,))

    @property
    def student_taps(self) -> tuple[str, ...]:
        """None: its own output is compared."""
        return ()

    def part_names(self, *, partly: bool) -> tuple[str, ...]:
        """The parts that :meth:`forward` tells."""
        return ("error", "cosine") if self._cosine else ("error",)

    def forward(
        self,
        outputs: Tensor,
        features: Mapping[str, Tensor],
        knowledge: Knowledge,
        targets_B: Tensor,
        partners_B: Tensor | None = None,
        shares_B: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and each part detached; ``outputs`` [B, C, ...]."""
        parts = _parts(outputs, knowledge.features[OUTPUT], self._cosine)
        return _weighted(parts, self._cosine), {name: part.detach() for name, part in parts.items()}


def distance(outputs: Tensor, wanted: Tensor, cosine: float = 0.0) -> Tensor:
    """What :class:`BlockObjective` minimises; both [B, C, ...]."""
    return _weighted(_parts(outputs, wanted, cosine), cosine)


def _parts(outputs: Tensor, wanted: Tensor, cosine: float) -> dict[str, Tensor]:
    outputs, wanted = outputs.float(), wanted.float()
    parts = {"error": normalised_error(outputs, wanted)}
    if cosine:
        parts["cosine"] = (1 - F.cosine_similarity(outputs, wanted, dim=1)).mean()
    return parts


def _weighted(parts: Mapping[str, Tensor], cosine: float) -> Tensor:
    return parts["error"] + cosine * parts["cosine"] if cosine else parts["error"]


STILL = 1e-8
"""Variance below which an output counts as one that does not change: errors are then in units of this."""


def normalised_error(outputs: Tensor, wanted: Tensor) -> Tensor:
    """Squared error over the variance of ``wanted`` about its channels' means; both [B, C, ...]. No gradient flows into
    ``wanted``.
    """
    others = [axis for axis in range(wanted.ndim) if axis != 1]
    spread = torch.linalg.vector_norm(wanted - wanted.mean(dim=others, keepdim=True)).square()
    error: Tensor = squared_error(outputs, wanted) / spread.clamp_min(wanted.numel() * STILL)
    return error
