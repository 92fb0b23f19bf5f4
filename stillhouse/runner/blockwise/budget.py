"""What a mix of replacements costs, and what it may cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import nn

from stillhouse.blocks.assemble import KEEP, joined
from stillhouse.blocks.choose import Option, Problem, best
from stillhouse.blocks.cost import Cost, cost_of
from stillhouse.blocks.partition import Block
from stillhouse.foundation.errors import RecipeError
from stillhouse.recipe.blockwise import MEASURES, BudgetSection


@dataclass(frozen=True)
class Costs:
    """Measured where the run computes, one sample.

    Attributes:
        options: of each block, by name; ``keep`` is the teacher's own. Latencies are scaled so that the teacher's own
            blocks sum up to the whole: measured apart they take longer.
        whole: of the teacher's body.
    """

    options: Sequence[Mapping[str, Cost]]
    whole: Cost


def measured(blocks: Sequence[Block], offered: Sequence[Mapping[str, nn.Module]], *, timed: bool = True) -> Costs:
    """Measure every block and what may replace it.

    Args:
        timed: whether latencies are wanted, which takes most of the time; else they are NaN.
    """
    # The first block's lead, which has no weights, is in no whole; its time is next to nothing.
    whole = cost_of(
        nn.Sequential(blocks[0].core, joined(blocks[1:], [each.core for each in blocks[1:]])),
        blocks[0].in_shape,
        timed=timed,
    )
    apart = [
        {KEEP: cost_of(block.core, block.in_shape, timed=timed)}
        | {name: cost_of(module, block.in_shape, timed=timed) for name, module in others.items()}
        for block, others in zip(blocks, offered, strict=True)
    ]
    scale = whole.latency_ms / sum(each[KEEP].latency_ms for each in apart)
    return Costs([{name: _scaled(cost, scale) for name, cost in each.items()} for each in apart], whole)


def _scaled(cost: Cost, scale: float) -> Cost:
    return Cost(cost.params, cost.macs, cost.bytes, cost.latency_ms * scale)


def limits(budget: BudgetSection, costs: Costs) -> dict[str, float]:
    """The most that a mix may cost, by measure."""
    whole = asdict(costs.whole)
    given = {name: value for name in MEASURES if (value := getattr(budget, name)) is not None}
    return {name: value if name == "latency_ms" else value * whole[name] for name, value in given.items()}


def problem_of(costs: Costs, harms: Sequence[Mapping[str, float]], limited: Mapping[str, float]) -> Problem:
    """What is to be chosen from: for each block what has a harm; what is kept has none."""
    blocks = [
        [Option(name, own.get(name, 0.0), asdict(options[name])) for name in (KEEP, *own)]
        for options, own in zip(costs.options, harms, strict=True)
    ]
    return Problem(blocks, dict(limited))


def check_reachable(budget: BudgetSection, costs: Costs, left: Sequence[Mapping[str, object]]) -> None:
    """Refuse a budget that no mix meets.

    Args:
        left: the replacements of each block, by name.

    Raises:
        RecipeError: names what can be reached.
    """
    limited = limits(budget, costs)
    problem = problem_of(costs, [dict.fromkeys(each, 0.0) for each in left], limited)
    if best(problem):
        return
    whole = asdict(costs.whole)
    words = []
    for measure, limit in limited.items():
        least = problem.least(measure)
        if measure == "latency_ms":
            words.append(
                f"latency_ms: {limit:g} (the least is {_up(least):g}, the teacher takes {_up(whole[measure]):g})"
            )
        else:
            share = least / whole[measure]
            words.append(f"{measure}: {getattr(budget, measure):g} (the least is {_up(share):g})")
    together = " at once" if all(problem.least(name) <= limit for name, limit in limited.items()) else ""
    raise RecipeError(
        f"blockwise.budget: no mix of replacements meets {' and '.join(words)}{together}: allow more, or more kinds in "
        "blockwise.library, or cut finer by blockwise.blocks: layer"
    )


def _up(value: float) -> float:
    """Three digits, never less than it is."""
    digits = float(f"{value:.3g}")
    return digits if digits >= value else float(f"{value * 1.005:.3g}")
