"""Replacements that find room in memory together; those that don't are trained one group after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from stillhouse.blocks.cost import zeros
from stillhouse.blocks.partition import Block
from stillhouse.models.cost import weight_bytes
from stillhouse.models.network import evaluating
from stillhouse.recipe.train import SGD, TrainSection
from stillhouse.runner.blockwise.bench import Key

_ROWS = 2


class Need(NamedTuple):
    """Bytes that a training takes.

    Attributes:
        kept: from step to step.
        step: while it takes one; of several, one at a time does.
    """

    kept: int
    step: int


def groups(needs: Mapping[Key, Need], bytes_max: int) -> list[list[Key]]:
    """Neighbours together, so that a group's pass of the teacher ends early; one that is too large is alone.

    Args:
        needs: of each, front to back.
    """
    found: list[list[Key]] = []
    held = Need(0, 0)
    for key, need in needs.items():
        more = Need(held.kept + need.kept, max(held.step, need.step))
        if not found or sum(more) > bytes_max:
            found.append([])
            more = need
        found[-1].append(key)
        held = more
    return found


def need_of(module: nn.Module, block: Block, settings: TrainSection) -> Need:
    """Of the training of what may replace a block, in fp32, estimated.

    Kept are weights, gradients, the optimiser's state and a moving average. A step has what goes into the block, twice
    what comes out of it, and, of a micro-batch, what the backward pass wants, its gradients, and what the loss makes of
    two outputs. What a kernel takes for itself is not in it.
    """
    copies = 2 + (1 if isinstance(settings.optimizer, SGD) else 2) + (settings.ema_decay is not None)
    rows = settings.batch_size // settings.accumulate
    ends = 4 * settings.batch_size * (math.prod(block.in_shape) + 2 * math.prod(block.out_shape))
    learning = 2 * _saved_bytes(module, block.in_shape) + 4 * 2 * math.prod(block.out_shape)
    return Need(copies * weight_bytes(module), ends + rows * learning)


def _saved_bytes(module: nn.Module, in_shape: tuple[int, ...]) -> int:
    """What a forward pass saves for the backward pass, of each sample."""
    found: dict[int, int] = {}
    own = {each.untyped_storage().data_ptr() for each in (*module.parameters(), *module.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs = zeros(module, in_shape, _ROWS)
    with evaluating(module), torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = module(inputs)
    found.pop(inputs.untyped_storage().data_ptr(), None)
    del outputs
    return sum(found.values()) // _ROWS
