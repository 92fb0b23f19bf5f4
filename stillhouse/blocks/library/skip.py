"""Nothing in place of a block: its input is its output."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from stillhouse.blocks.library.alternative import Alternative
from stillhouse.blocks.partition import Block


def offers(block: Block) -> Iterator[Alternative]:
    """``skip``, where shapes allow."""
    if block.in_shape == block.out_shape:
        yield Alternative("skip", nn.Identity())
