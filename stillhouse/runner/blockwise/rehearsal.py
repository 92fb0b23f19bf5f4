"""What can go wrong with blocks, tried before anything is trained: in two parts, as ``runner.rehearse`` does."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import nn

from stillhouse.blocks.assemble import cut, unforgettable
from stillhouse.blocks.objective import distance
from stillhouse.blocks.partition import Block
from stillhouse.foundation.block_events import BlocksOffered
from stillhouse.foundation.errors import ModelError, RecipeError, nearest
from stillhouse.foundation.events import Event, Warned
from stillhouse.models.network import Network
from stillhouse.models.placement import autocast
from stillhouse.recipe.architectures import BlockwiseOptions
from stillhouse.recipe.engines import AUTO
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.blockwise.budget import check_reachable, limits, measured
from stillhouse.runner.blockwise.replacements import offered
from stillhouse.runner.materials import Materials
from stillhouse.runner.networks import Networks
from stillhouse.students import losses

_NAMED = 6


def check_unsettled(recipe: Recipe) -> None:
    """Refuse a blockwise recipe that says what its run is to find out.

    Raises:
        RecipeError: names the key.
    """
    if recipe.blockwise is None:
        return
    options = BlockwiseOptions.model_validate(recipe.student.model.options)
    said = [name for name in ("of", "blocks", "mix") if getattr(options, name) != AUTO]
    if said or options.folded:
        key = f"student.model.options.{(said or ['folded'])[0]}"
        raise RecipeError(f"{key}: of a blockwise student the run settles all options: leave them out")


def rehearse_blocks(networks: Networks, emit: Callable[[Event], None]) -> None:
    """Cut the teacher, not trained yet, look what may replace its blocks, and whether that meets the budget.

    Raises:
        ModelError: it can't be cut.
        RecipeError: no mix meets the budget; names what can be reached.
    """
    section = networks.recipe.blockwise
    assert section is not None
    blocks = blocks_of(networks, networks.teacher().to(networks.recipe.compute.device).eval())
    for name, why in {name: why for block in blocks for name, why in block.closed.items()}.items():
        emit(Warned(f"blocks: {name} can't be looked into ({why}): it is not cut"))
    others = offered(blocks, networks.recipe)
    if not any(others):
        named = ", ".join(each.name for each in blocks[:_NAMED]) + (", ..." if len(blocks) > _NAMED else "")
        raise ModelError(
            f"teacher model: nothing of blockwise.library ({', '.join(section.library)}) may replace any of its "
            f"{len(blocks)} blocks ({named}): name more kinds, or cut elsewhere by blockwise.blocks"
        )
    _check_features(networks.recipe, blocks)
    if networks.recipe.control.seeds and (kept := _remembered(networks)):
        emit(
            Warned(
                f"the control can't begin with initial weights throughout: no layer draws {kept} of the teacher anew"
            )
        )
    costs = measured(blocks, others, timed=section.budget.latency_ms is not None)
    check_reachable(section.budget, costs, others)
    count = sum(map(len, others))
    whole = {name: value for name, value in asdict(costs.whole).items() if not math.isnan(value)}
    emit(BlocksOffered(len(blocks), count, whole, limits(section.budget, costs)))


def _check_features(recipe: Recipe, blocks: Sequence[Block]) -> None:
    """Refuse terms about modules that the student may not have."""
    names = [each.name.replace(".", "_") for each in blocks]
    for number, term in enumerate(recipe.objective.features):
        if term.student not in names:
            raise RecipeError(
                f"objective.features.{number}.student: '{term.student}' is no block of the student, and what is inside "
                f"its blocks is not known yet: {nearest(term.student, names)}"
            )


def _remembered(networks: Networks) -> str:
    """The first of a live teacher's weights that a control would keep."""
    live = networks.recipe.teacher.models["teacher.model"].arch == "live"
    names = unforgettable(networks.teacher()) if live else []
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "") if names else ""


def blocks_of(networks: Networks, teacher: Network) -> tuple[Block, ...]:
    """The blocks of a run's teacher.

    Raises:
        ModelError: it can't be cut; says why, where, and what else to do.
    """
    assert networks.recipe.blockwise is not None
    try:
        return cut(teacher, networks.interface, networks.recipe.blockwise.blocks)
    except ModelError as error:
        raise ModelError(
            f"teacher model: {error}. To cut elsewhere say blockwise.blocks; a network that can't be cut can still be "
            "distilled into a student of your own: student.model, without 'blockwise'"
        ) from error


def rehearse_replacements(materials: Materials) -> None:
    """Take one training step with every replacement, on real samples.

    Raises:
        ModelError: a step fails, or a loss is not finite.
        DataError: fewer samples than a batch.
    """
    section, device = materials.recipe.blockwise, materials.device
    assert section is not None
    batch = next(materials.stream(section.train, 0).batches(0, 1))
    teacher = materials.networks.teacher().to(device).eval()
    blocks = blocks_of(materials.networks, teacher)
    others = offered(blocks, materials.recipe)
    rows = len(batch) // section.train.accumulate
    precision = "fp32" if section.train.engine.precision == AUTO else section.train.engine.precision
    with torch.no_grad():
        inputs = teacher.preprocess(batch.part(0, rows).inputs.to(device))
    for block, own in zip(blocks, others, strict=True):
        with torch.no_grad(), autocast(precision, device):
            entry = block.lead(inputs)
            inputs = block.core(entry)
        for name, module in own.items():
            with autocast(precision, device):
                _step(f"block {block.name}, replacement {name}", module, entry, inputs)


def _step(what: str, module: nn.Module, inputs: torch.Tensor, wanted: torch.Tensor) -> None:
    try:
        loss = distance(copy.deepcopy(module).train()(inputs), wanted)
        if loss.requires_grad:  # a skip has nothing to learn
            loss.backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # torch's own words about samples too few, out of memory included
        raise ModelError(
            f"{what}: a training step on {len(inputs)} samples raised {type(error).__name__}: {error}"
        ) from error
    if not losses.is_finite(loss):
        raise ModelError(f"{what}: its loss on real samples is NaN or infinite")
