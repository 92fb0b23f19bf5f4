"""Batch norms measured anew: their statistics belong to the activations they see, which a replaced block changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set running means and variances to the averages over some batches (DNA, CVPR 2020); frozen norms stay.

    Everything else is in evaluation mode meanwhile, and left in it; weights don't change.

    Args:
        batches: inputs of the network.
    """
    norms: list[Any] = [
        each
        for each in network.modules()
        if isinstance(getattr(each, "running_mean", None), Tensor) and hasattr(each, "reset_running_stats")
    ]
    network.eval()
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an average over all, each batch alike
        norm.train()
    try:
        with torch.no_grad():
            for inputs in batches:
                network(inputs)
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.eval()
