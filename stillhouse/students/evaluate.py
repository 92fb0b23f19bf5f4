"""Accuracy of a network on a split, sample by sample, always in fp32."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from stillhouse.data.batch import Batch
from stillhouse.models.network import evaluating


@dataclass(frozen=True)
class Evaluation:
    """What a network got right.

    Attributes:
        correct: [N] bool, in the split's order.
        loss: mean cross-entropy, nats.
    """

    correct: NDArray[np.bool_]
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of samples classified rightly, 0..1."""
        return float(self.correct.mean())


def evaluate(network: nn.Module, batches: Iterable[Batch], device: torch.device) -> Evaluation:
    """Classify every batch; the network's mode is restored."""
    correct: list[NDArray[np.bool_]] = []
    loss, count = 0.0, 0
    with evaluating(network):
        for batch in batches:
            moved = batch.to(device)
            logits = network(moved.inputs).float()
            loss += F.cross_entropy(logits, moved.targets, reduction="sum").item()
            count += len(batch)
            correct.append((logits.argmax(1) == moved.targets).cpu().numpy())
    return Evaluation(np.concatenate(correct), loss / count)
