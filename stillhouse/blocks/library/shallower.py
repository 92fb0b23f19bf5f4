"""Fewer of the units that a block is made of: those are left out that change no shape, every second one or all."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from stillhouse.blocks.library.alternative import Alternative
from stillhouse.blocks.partition import Block, partition
from stillhouse.foundation.errors import ModelError


def offers(block: Block) -> Iterator[Alternative]:
    """``shallower-2``: every second unit; ``shallower``: only those that change the shape, or the first."""
    device = next(block.core.parameters()).device
    try:
        units = partition(block.core, torch.randn(2, *block.in_shape, device=device), "block")
    except ModelError:
        return
    loose = [at for at, unit in enumerate(units) if at and unit.in_shape == unit.out_shape and _has_no_lead(unit)]
    for name, left_out in (("shallower-2", loose[::2]), ("shallower", loose)):
        if left_out and (name == "shallower" or len(loose) > 1):
            kept = [nn.Sequential(unit.lead, unit.core) for at, unit in enumerate(units) if at not in left_out]
            yield Alternative(name, copy.deepcopy(nn.Sequential(*kept)))


def _has_no_lead(unit: Block) -> bool:
    return isinstance(unit.lead, nn.Identity)
