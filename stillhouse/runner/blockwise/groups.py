"""Replacements that find room in memory together; those that don't are trained one group after the other."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from stillhouse.models.cost import weight_bytes
from stillhouse.recipe.train import SGD, TrainSection
from stillhouse.runner.blockwise.bench import Key


def groups(sizes: Mapping[Key, int], bytes_max: int) -> list[list[Key]]:
    """Neighbours together, so that a group's pass of the teacher ends early; one that is too large is alone.

    Args:
        sizes: bytes that the training of each keeps, front to back.
    """
    found: list[list[Key]] = []
    held = 0
    for key, size in sizes.items():
        if not found or held + size > bytes_max:
            found.append([])
            held = 0
        found[-1].append(key)
        held += size
    return found


def training_bytes(module: nn.Module, settings: TrainSection) -> int:
    """What a training keeps from step to step: weights, gradients, the optimiser's state, a moving average."""
    copies = 2 + (1 if isinstance(settings.optimizer, SGD) else 2) + (settings.ema_decay is not None)
    return copies * weight_bytes(module)
