"""By which samples replacements are judged, and norms are measured anew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from stillhouse.blocks.partition import Block
from stillhouse.blocks.score import Samples
from stillhouse.runner.materials import Materials
from stillhouse.runner.signals import Signals

_NORMS_MAX = 1024
_NORMS_MIN = 64
_NORMS_BYTES = 2**29
_BATCH = 128


def samples_of(materials: Materials, preprocess: nn.Module, blocks: Sequence[Block], signals: Signals) -> Samples:
    """Views of training samples for the norms; of the validation split as many as the recipe says."""
    section = materials.recipe.blockwise
    assert section is not None
    judged = list(materials.part_of_validation(section.score_samples))

    def inputs() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in judged:
            for start in range(0, len(batch), _BATCH):
                part = batch.part(start, min(start + _BATCH, len(batch))).to(materials.device)
                yield preprocess(part.inputs), part.targets

    norms = [preprocess(each) for each in _views(materials, _norm_samples(blocks))]
    return Samples(norms, inputs, lambda: signals.check("while replacements were judged"))


def _norm_samples(blocks: Sequence[Block]) -> int:
    """As many as their largest activation leaves room for."""
    largest = 4 * max(math.prod(shape) for block in blocks for shape in (block.in_shape, block.out_shape))
    return max(_NORMS_MIN, min(_NORMS_MAX, _NORMS_BYTES // largest))


def _views(materials: Materials, count: int) -> Iterator[Tensor]:
    """The first views that a replacement is trained on, on the device."""
    section = materials.recipe.blockwise
    assert section is not None
    stream = materials.stream(section.train, 0)
    steps = min(-(-count // section.train.batch_size), stream.steps_per_epoch)
    inputs = torch.cat([batch.inputs for batch in stream.batches(0, steps)])[:count]
    # Even parts: the norms' statistics are averages over batches, each alike.
    for part in torch.tensor_split(inputs, -(-len(inputs) // _BATCH)):
        yield part.to(materials.device)
