"""What ``stillhouse blocks`` shows: a network's blocks, their costs, and what may replace them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError

from stillhouse.blocks.cost import Cost, cost_of
from stillhouse.blocks.library.offers import offers
from stillhouse.blocks.partition import partition
from stillhouse.foundation.errors import RecipeError
from stillhouse.models.build import Interface, build
from stillhouse.recipe.architectures import Granularity, ModelSection, Normalisation

_AS_IT_IS = Normalisation(mean=(0.0,), std=(1.0,))


@dataclass(frozen=True)
class ShownBlock:
    """A block of a network.

    Attributes:
        in_shape, out_shape: of one sample.
        cost: of all of it.
        replacements: what may stand in its place, by name.
        closed: modules in it that could not be looked into, and why.
        end: the module behind which it ends, as a recipe names cuts.
    """

    name: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    cost: Cost
    replacements: Mapping[str, Cost]
    closed: Mapping[str, str]
    end: str


def show(
    section: ModelSection, shape: tuple[int, int, int], classes: int, granularity: Granularity, *, replaced: bool
) -> list[ShownBlock]:
    """Build a network, with initial weights, and cut it.

    Args:
        shape: channels, height and width of what goes in.
        replaced: whether replacements are looked for.

    Raises:
        ModelError: it can't be built, or not be cut; says why and where.
    """
    network = build(section, Interface(shape, False, classes), _AS_IT_IS, 0, "this").body
    found = []
    with torch.random.fork_rng(devices=[]):
        blocks = partition(network, torch.randn(2, *shape), granularity)
    for block in blocks:
        others = {each.name: cost_of(each.module, block.in_shape) for each in offers(block, 0)} if replaced else {}
        cost = cost_of(block.core, block.in_shape)
        found.append(ShownBlock(block.name, block.in_shape, block.out_shape, cost, others, block.closed, block.end))
    return found


def section_of(arch: str, options: Mapping[str, Any]) -> ModelSection:
    """The recipe's section for a model that was named on the command line.

    Raises:
        RecipeError: there is no such architecture.
    """
    try:
        return ModelSection(arch=arch, options=dict(options))
    except ValidationError as error:
        raise RecipeError("; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())) from None
