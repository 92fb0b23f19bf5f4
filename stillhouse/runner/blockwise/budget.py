"""What a mix of replacements costs, and what it may cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from torch import nn

from stillhouse.blocks.assemble import KEEP, joined
from stillhouse.blocks.choose import Mix, Option, Problem, best
from stillhouse.blocks.cost import Cost, cost_of, params_of
from stillhouse.blocks.partition import Block
from stillhouse.foundation.errors import RecipeError
from stillhouse.models.cost import weight_bytes
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

    def shares(self, mix: Mix) -> dict[str, float]:
        """What a mix costs by measure, of the whole teacher; a measure of which it costs nothing is left out."""
        own = [asdict(options[name]) for options, name in zip(self.options, mix, strict=True)]
        whole = asdict(self.whole)
        return {name: sum(each[name] for each in own) / of for name, of in whole.items() if of}


def measured(blocks: Sequence[Block], offered: Sequence[Mapping[str, nn.Module]], *, timed: bool = True) -> Costs:
    """Measure every block and what may replace it.

    Args:
        timed: whether latencies are wanted, which takes most of the time; else they are NaN.
    """
    # What comes before the first block's core has no multiply-adds; its time is next to nothing.
    after = joined(blocks[1:], [each.core for each in blocks[1:]])
    whole = cost_of(nn.Sequential(blocks[0].core, after), blocks[0].in_shape, timed=timed)
    whole = _with_lead(whole, blocks[0])
    apart = [
        {KEEP: cost_of(block.core, block.in_shape, timed=timed)}
        | {name: cost_of(module, block.in_shape, timed=timed) for name, module in others.items()}
        for block, others in zip(blocks, offered, strict=True)
    ]
    scale = whole.latency_ms / sum(each[KEEP].latency_ms for each in apart)
    options = [
        {name: _with_lead(replace(cost, latency_ms=cost.latency_ms * scale), block) for name, cost in own.items()}
        for block, own in zip(blocks, apart, strict=True)
    ]
    return Costs(options, whole)


def _with_lead(cost: Cost, block: Block) -> Cost:
    """With what stays before a block, whatever replaces it: norms, for one."""
    return replace(cost, params=cost.params + params_of(block.lead), bytes=cost.bytes + weight_bytes(block.lead))


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
        "blockwise.library, or a finer cut (blockwise.blocks: layer is the finest)"
    )


def _up(value: float) -> float:
    """Three digits, never less than it is."""
    digits = float(f"{value:.3g}")
    return digits if digits >= value else float(f"{value * 1.005:.3g}")
