"""What ``stillhouse blocks`` shows: a network's blocks, their costs, and what may replace them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from stillhouse.blocks.assemble import cut
from stillhouse.blocks.cost import Cost, cost_of
from stillhouse.blocks.library.offers import offers
from stillhouse.data.open import survey
from stillhouse.foundation.errors import RecipeError
from stillhouse.models.build import build
from stillhouse.models.interface import Interface
from stillhouse.recipe.architectures import BLOCKWISE, BlockwiseOptions, Cut, Granularity, ModelSection, Normalisation
from stillhouse.recipe.engines import AUTO
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.networks import interface_of

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


@dataclass(frozen=True)
class Cutting:
    """A network, and how it is cut.

    Attributes:
        interface: what goes in, and the number of classes.
        by: a granularity, or the modules that end a block each.
    """

    model: ModelSection
    interface: Interface
    by: Cut


def show(cutting: Cutting, *, replaced: bool) -> list[ShownBlock]:
    """Build a network, with initial weights, and cut it.

    Args:
        replaced: whether replacements are looked for.

    Raises:
        ModelError: it can't be built, or not be cut; says why and where.
    """
    network = build(cutting.model, cutting.interface, _AS_IT_IS, 0, "this")
    found = []
    for block in cut(network, cutting.interface, cutting.by):
        others = {each.name: cost_of(each.module, block.in_shape) for each in offers(block, 0)} if replaced else {}
        cost = cost_of(block.core, block.in_shape)
        found.append(ShownBlock(block.name, block.in_shape, block.out_shape, cost, others, block.closed, block.end))
    return found


def of_recipe(recipe: Recipe, by: Granularity | None) -> Cutting:
    """What a recipe cuts: the network that its blockwise student is made of, or its teacher.

    Args:
        by: in place of what it says.

    Raises:
        RecipeError: it has several teachers, or one that was handed over from Python.
        DataError: its data can't be read.
    """
    student, teacher = recipe.student.model, recipe.teacher.model
    options = BlockwiseOptions.model_validate(student.options) if student.arch == BLOCKWISE else BlockwiseOptions()
    model = options.of if isinstance(options.of, ModelSection) else teacher
    if model is None or model.arch == "live":
        raise RecipeError("teacher: blocks are of one network that can be built from the recipe")
    section = recipe.blockwise.blocks if recipe.blockwise is not None else "block"
    found = by or (section if options.blocks == AUTO else options.blocks)
    return Cutting(model, interface_of(survey(recipe.data, recipe.seed), recipe), found)


def section_of(arch: str, options: Mapping[str, Any]) -> ModelSection:
    """The recipe's section for a model that was named on the command line.

    Raises:
        RecipeError: there is no such architecture.
    """
    try:
        return ModelSection(arch=arch, options=dict(options))
    except ValidationError as error:
        raise RecipeError("; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())) from None
