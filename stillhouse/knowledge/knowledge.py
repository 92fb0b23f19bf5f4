"""The answer: rows of knowledge, each with the key of the view that it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from stillhouse.data.batch import Batch
from stillhouse.foundation.errors import StillhouseError


@dataclass(frozen=True)
class Knowledge:
    """B rows aligned with a batch.

    Attributes:
        sample_ids, views: [B] keys.
        logits: [B, K], or None where not asked.
        features: activations by module name, [B, ...] each.
        known: [B] bool, false in rows about which nobody could be asked: whatever they hold means nothing. None: all.
    """

    sample_ids: NDArray[np.int64]
    views: NDArray[np.int64]
    logits: torch.Tensor | None = None
    features: Mapping[str, torch.Tensor] = field(default_factory=dict)
    known: torch.Tensor | None = None

    def check_aligned(self, batch: Batch) -> None:
        """Refuse knowledge about other views than the batch's: training on it would be training on noise.

        Raises:
            StillhouseError: keys differ; names the first.
        """
        if np.array_equal(self.sample_ids, batch.sample_ids) and np.array_equal(self.views, batch.views):
            return
        if len(self.sample_ids) != len(batch):
            raise StillhouseError(f"knowledge of {len(self.sample_ids)} views came for a batch of {len(batch)}")
        row = int(np.argmax((self.sample_ids != batch.sample_ids) | (self.views != batch.views)))
        raise StillhouseError(
            f"knowledge is out of step with its batch: row {row} is about sample {self.sample_ids[row]}, view "
            f"{self.views[row]}, the batch holds sample {batch.sample_ids[row]}, view {batch.views[row]}"
        )

    def __len__(self) -> int:
        return len(self.sample_ids)

    def to(self, device: torch.device) -> Knowledge:
        """The knowledge with its tensors on a device."""
        logits = None if self.logits is None else self.logits.to(device, non_blocking=True)
        features = {name: tensor.to(device, non_blocking=True) for name, tensor in self.features.items()}
        known = None if self.known is None else self.known.to(device, non_blocking=True)
        return Knowledge(self.sample_ids, self.views, logits, features, known)

    def select(self, rows: torch.Tensor) -> Knowledge:
        """The rows of these numbers, all of them known."""
        chosen = rows.cpu().numpy()
        logits = None if self.logits is None else self.logits[rows]
        features = {name: tensor[rows] for name, tensor in self.features.items()}
        return Knowledge(self.sample_ids[chosen], self.views[chosen], logits, features)

    def part(self, start: int, stop: int) -> Knowledge:
        """Rows start..stop-1."""
        rows = slice(start, stop)
        return Knowledge(
            self.sample_ids[rows],
            self.views[rows],
            None if self.logits is None else self.logits[rows],
            {name: tensor[rows] for name, tensor in self.features.items()},
            None if self.known is None else self.known[rows],
        )
