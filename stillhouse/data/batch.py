"""The noun that everything passes around: a batch of views with their keys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """B views.

    Attributes:
        sample_ids: [B]; with ``views`` the keys: they fix every bit of ``inputs``.
        views: [B], -1 for the sample as it is.
        inputs: [B, C, H, W] uint8 images, or [B, *shape] float32. Not normalised: each network does its own.
        targets: [B] int64 class numbers.
    """

    sample_ids: NDArray[np.int64]
    views: NDArray[np.int64]
    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.sample_ids)

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on a device."""
        if self.inputs.device == device:
            return self
        inputs, targets = (tensor.to(device, non_blocking=True) for tensor in (self.inputs, self.targets))
        return Batch(self.sample_ids, self.views, inputs, targets)

    def part(self, start: int, stop: int) -> Batch:
        """Rows start..stop-1."""
        rows = slice(start, stop)
        return Batch(self.sample_ids[rows], self.views[rows], self.inputs[rows], self.targets[rows])
