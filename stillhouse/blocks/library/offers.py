"""All that may stand in a block's place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, get_args

import torch

from stillhouse.blocks.cost import macs_of, params_of, zeros
from stillhouse.blocks.library import grouped, inverted, low_rank, separable, shallower, skip, slimmer
from stillhouse.blocks.library.alternative import Alternative
from stillhouse.blocks.partition import Block
from stillhouse.foundation.seeding import subseed
from stillhouse.models.network import evaluating
from stillhouse.recipe.blockwise import Replacement

LIBRARY: Final[dict[Replacement, Callable[[Block], Iterator[Alternative]]]] = {
    "separable": separable.offers,
    "inverted": inverted.offers,
    "grouped": grouped.offers,
    "low_rank": low_rank.offers,
    "slimmer": slimmer.offers,
    "shallower": shallower.offers,
    "skip": skip.offers,
}
"""Kinds of replacements; what is kept of the teacher is no replacement."""

KINDS: Final[tuple[Replacement, ...]] = get_args(Replacement)


def offers(block: Block, seed: int, kinds: Sequence[Replacement] = KINDS) -> list[Alternative]:
    """Alternatives that keep a block's shapes and have fewer parameters or multiply-adds, and more of neither.

    Args:
        seed: of initial weights, which don't depend on what else is offered; the process's random state stays.
    """
    params, macs = params_of(block.core), macs_of(block.core, block.in_shape)
    where, found = zeros(block.core, block.in_shape, 0).device, []
    for kind in kinds:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(subseed(seed, block.name, kind))
            made = list(LIBRARY[kind](block))
        for each in made:
            each.module.to(where)
            own = params_of(each.module), macs_of(each.module, block.in_shape)
            if own[0] <= params and own[1] <= macs and own != (params, macs) and _fits(each, block):
                found.append(each)
    return found


def _fits(alternative: Alternative, block: Block) -> bool:
    """Whether it gives the block's shape; what is rounded otherwise does not."""
    with evaluating(alternative.module):
        outputs = alternative.module(zeros(alternative.module, block.in_shape, 2))
    return tuple(outputs.shape[1:]) == block.out_shape
